"""What strategies leave to a run: a pool's size, the longest sequence, growth's end; and who tells them."""

from dataclasses import replace

import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.modelled import Modelled
from kvbench.ledger import UNLIMITED, Ledger, Limits
from kvbench.model.hardware import hardware_from
from kvbench.plan.area import STAGING_TOKENS
from kvbench.runner.run import limits_of, run
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY, node_of, strategy

STAGING_BYTES = STAGING_TOKENS * TINY.bytes_per_token // TINY.num_layers
BUDGET = STAGING_BYTES + 1000 * TINY.bytes_per_token + 5
BOUNDS = ("pool_tokens", "max_capacity", "max_seq_len", "slow_capacity")


def limits(**known):
    return Limits(**({"geometry": TINY, "budget_bytes": BUDGET} | known))


def pool(chosen, known):
    (area,) = [area for area in chosen.fitted(known).areas if area.name == "main"]
    return area.layout.pool_tokens


@pytest.mark.parametrize(
    ("known", "slots"),
    [
        ({"is_modelled": True, "live_tokens": (20, 10)}, 992),  # all of the budget, in whole blocks of 16
        ({"live_tokens": (20, 10)}, 48),  # what the requests can fill: two blocks and one
        ({"live_tokens": (5000, 10)}, 992),
        ({"context_tokens": 100}, 112),
        ({"budget_bytes": None, "live_tokens": (33,)}, 48),
        ({"budget_bytes": None, "live_tokens": (33,), "is_modelled": True}, 48),
        ({"num_rows": 2, "is_modelled": True, "budget_bytes": 2 * BUDGET}, 992),
        ({"is_modelled": True, "budget_bytes": 1}, 16),  # a block at least, which then does not fit
        ({}, 992),
    ],
)
def test_a_pool_is_all_of_the_budget_and_in_tensors_no_more_than_requests_fill(known, slots):
    assert pool(Paged(block_size=16, pool_tokens=None), limits(**known)) == slots
    assert pool(Paged(block_size=16, pool_tokens=64), limits(**known)) == 64


def test_a_fast_tier_takes_no_more_of_a_pool_than_it_holds():
    chosen = strategy("paged_hierarchical")
    assert pool(chosen, limits(live_tokens=(5000, 5000, 40), budget_bytes=10**9)) == 1024 + 1024 + 48
    assert pool(chosen, limits(live_tokens=(5000,), is_modelled=True)) == 992


def test_nothing_is_left_to_a_run_by_default_that_it_does_not_decide():
    left = {name: [key for key, value in _numbers(node_of("strategy", name)) if value is None] for name in STRATEGIES}
    decided = {*BOUNDS, "disk_capacity", "window_blocks", "prefix_caching"}
    assert {key for keys in left.values() for key in keys} == {*decided, "format"}  # which is the model's, as it stands
    bounds = [
        key for name in STRATEGIES for key, value in _numbers(node_of("strategy", name)) if key in BOUNDS and value
    ]
    assert bounds == ["slow_capacity"]  # of hierarchical_disk, whose host is small so that its disk is used


def _numbers(node):
    for key, value in node.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _numbers(inner)
            else:
                yield key, inner


def test_what_reserves_holds_the_longest_request_and_growth_does_not_know_it():
    known = limits(live_tokens=(700, 30))
    for name in ("static", "power_of_two"):
        assert strategy(name).fitted(known).max_tokens == 700
        assert strategy(name, max_seq_len=50).fitted(known).max_tokens == 50
        assert strategy(name).fitted(limits(context_tokens=4096)).max_tokens == 4096
    for name in ("dynamic", "predictive", "async", "predictive_quantile"):
        assert strategy(name).fitted(known).max_tokens == UNLIMITED
        assert strategy(name).fitted(limits(live_tokens=(700,), context_tokens=4096)).max_tokens == 4096
        assert strategy(name).fitted(limits(live_tokens=(9000,), context_tokens=4096)).max_tokens == 9000
        assert strategy(name, max_capacity=600).fitted(known).max_tokens == 600
    members = strategy("adaptive", code=node_of("strategy", "static")).fitted(known)
    assert members.max_tokens == 700


def test_a_strategy_is_told_by_each_run_and_keeps_nothing_of_it():
    chosen = Static(max_seq_len=None)
    assert [chosen.fitted(limits(live_tokens=(count,))).max_seq_len for count in (5, 9)] == [5, 9]
    with pytest.raises(ValueError, match="max_seq_len: null is for the run to decide"):
        chosen.on_admit(0, Session(0, (Request(1),)), None)
    with pytest.raises(ValueError, match="a run says how large its pool is"):
        Ledger(TINY, areas=Paged(block_size=16, pool_tokens=None).areas)


@pytest.mark.parametrize(
    ("name", "words"), [("static", "max_seq_len: null is the longest"), ("paged", "pool_tokens: null")]
)
def test_what_nobody_knows_is_asked_for(name, words):
    with pytest.raises(ValueError, match=words):
        strategy(name).fitted(limits(budget_bytes=None))


@pytest.mark.parametrize("value", [0, -5, 1.5, True, "8"])
def test_a_bound_is_a_positive_integer_or_left_open(value):
    for made in (
        lambda: Static(max_seq_len=value),
        lambda: Dynamic(initial_capacity=1, growth_factor=2, max_capacity=value, round_to=1),
        lambda: Paged(block_size=16, pool_tokens=value),
    ):
        with pytest.raises(ValueError, match="is a positive integer, got"):
            made()


CHATS = [Session(0, (Request(40, 4), Request(8, 4))), Session(0, (Request(90, 2),)), Session(5, (Request(10, 1),))]
THINKING = [*CHATS, Session(9, (Request(5, 1), Request(5, 1, think_ns=10)))]


def test_a_run_knows_as_many_requests_as_can_hold_a_cache_at_once():
    measured = MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False))
    assert limits_of(CHATS, measured, 2, BUDGET) == limits(live_tokens=(91, 55))
    assert limits_of(THINKING, measured, 2, BUDGET).live_tokens == (91, 55, 11, 10)
    modelled = limits_of(CHATS, machine(), 2, BUDGET)
    assert modelled.load_times is not None, "links are the machine's"
    assert replace(modelled, load_times=None) == limits(live_tokens=(91, 55), is_modelled=True)


def machine():
    node = node_of("hardware", "h100")
    return Modelled().made(Conditions(geometry=TINY, hardware=hardware_from(node), cache_only=True))


def test_requests_that_fit_the_budget_are_never_preempted_by_a_pool():
    chats = [Session(0, (Request(900, 20),)) for _ in range(40)]
    recorder = run(
        {"paged": strategy("paged")},
        chats,
        machine(),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=40,
        budget_bytes=STAGING_BYTES + 40 * 928 * TINY.bytes_per_token,
    )
    assert {(row.outcome, row.num_preemptions) for row in recorder.requests} == {("completed", 0)}
