"""The modelled backend: prices by hand, and a clock that shares, overlaps and waits."""

import pytest

from kvbench.backend.base import Times
from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled
from kvbench.plan.area import Area, Cast, Chunks
from kvbench.plan.ops import Append, Keep, Move, Release, Reserve, Rule, Settle
from kvbench.runner.frames import results_of
from kvbench.runner.run import check_signals, run
from kvbench.strategy.dynamic import Dynamic
from kvbench.timing.prices import (
    LINEAR,
    SEQUENCES,
    UNBOUNDED,
    attention_ps,
    decode_ps,
    mixed_ps,
    num_scoring,
    scoring_ps,
    sized_ps,
)
from kvbench.timing.pricing import prices_of
from kvbench.timing.steps import StepFigures
from kvbench.workload.request import Request, Session
from tests.support.booked import BookedSteps
from tests.support.catalogue import strategy
from tests.support.machines import GEOMETRY, WEIGHTS, WORK, machine

ONE_AREA = (Area(),)


def modelled(areas=ONE_AREA, hardware=None, memory_fraction=0.5, **changed):
    conditions = Conditions(**{"geometry": GEOMETRY, "hardware": hardware or machine(), "weights": WEIGHTS} | changed)
    backend = BookedSteps(Modelled(memory_fraction=memory_fraction).made(conditions), areas)
    backend.open(0)
    return backend


def test_a_step_of_a_whole_model_by_its_prices():
    backend, prices = modelled(), prices_of(machine(), WORK)
    tables = prices.tables
    # Four tensors are allocated and nothing is copied.
    assert backend.step((Reserve(0, 10),), 0, 0) == Times(40, 0, 0, 0, 0)
    backend.begin_iteration()
    model_ps = prices.step_ps + sized_ps(LINEAR, 4, tables) + sized_ps(SEQUENCES, 1, tables)
    attend_ps = prices.prompt_ps + attention_ps(4, 0, prices, tables)
    spent_ps = 40_000 + 4_000 + attend_ps + model_ps
    times = backend.step((Append(0, 4),), 0, 4)
    assert times == Times(0, 4, 0, attend_ps // 1_000, spent_ps // 1_000 - 44 - attend_ps // 1_000)
    backend.begin_iteration((0,))
    model_ps = prices.step_ps + sized_ps(LINEAR, 1, tables) + sized_ps(SEQUENCES, 1, tables)
    backend.step((Append(0, 1),), 0, 1)
    assert backend.now_ns() == (spent_ps + 1_000 + decode_ps(1, 5, tables) + model_ps) // 1_000


def test_what_the_steps_of_an_iteration_share_is_paid_once():
    backend, prices = modelled(), prices_of(machine(), WORK)
    backend.open(1)
    for seq in (0, 1):
        backend.step((Reserve(seq, 6), Append(seq, 3 + seq)), seq, 0)
    began_ns = backend.now_ns()
    backend.begin_iteration((0, 1))
    for seq in (0, 1):
        backend.step((Append(seq, 1),), seq, 1)
    tables = prices.tables
    model_ps = prices.step_ps + sized_ps(LINEAR, 2, tables) + sized_ps(SEQUENCES, 2, tables)
    assert backend.now_ns() - began_ns == (2_000 + model_ps + decode_ps(2, 4 + 5, tables)) // 1_000


def test_decode_steps_beside_prompts_take_what_one_call_takes_for_both():
    made = machine(kernels={"attention": {"decode": {"bfloat16": StepFigures(regroups=1.0)._asdict()}}})
    found = {}
    for order in ((0, 1), (1, 0), (0,), (1,)):
        backend = modelled(hardware=made)
        backend.open(1)
        backend.step((Reserve(0, 6), Append(0, 3)), 0, 0)
        backend.step((Reserve(1, 6),), 1, 0)
        backend.begin_iteration((0,))
        found[order] = sum(backend.step((Append(seq, 1 + seq),), seq, 1 + seq).attend_ns for seq in order)
    tables = prices_of(made, WORK).tables
    more_ns = (mixed_ps(1, 4, tables) - decode_ps(1, 4, tables)) // 1_000
    assert more_ns != 0
    assert found[0, 1] == pytest.approx(found[1, 0], abs=2)
    assert found[0, 1] == pytest.approx(found[0,] + found[1,] + more_ns, abs=3)


def test_prompts_of_an_iteration_are_one_call():
    backend, prices, spent_ns = modelled(), prices_of(machine(), WORK), []
    backend.open(1)
    for seq in (0, 1):
        backend.step((Reserve(seq, 9),), seq, 0)
    backend.begin_iteration()
    for seq in (0, 1):
        spent_ns.append(backend.step((Append(seq, 6),), seq, 6).attend_ns)
    each_ps = attention_ps(6, 0, prices, prices.tables)
    assert spent_ns == pytest.approx([(prices.prompt_ps + each_ps) / 1_000, each_ps / 1_000], abs=1)
    assert prices.prompt_ps > 1_000


def test_one_token_of_a_prompt_is_no_decode_step():
    found = []
    for decoding in ((), (0,)):
        backend = modelled()
        backend.step((Reserve(0, 9), Append(0, 8)), 0, 0)
        backend.begin_iteration(decoding)
        found.append(backend.step((Append(0, 1),), 0, 1).attend_ns)
    prices = prices_of(machine(), WORK)
    prompt_ps = prices.prompt_ps + attention_ps(1, 8, prices, prices.tables)
    assert found == [prompt_ps // 1_000, decode_ps(1, 9, prices.tables) // 1_000]


def test_the_cache_alone_has_no_weights_and_pays_launches_a_step():
    backend = modelled(cache_only=True)
    assert backend.scope == "cache"
    backend.step((Reserve(0, 10),), 0, 0)
    backend.begin_iteration()
    # Written in 4 ns after 3 launches for each of 2 layers.
    assert backend.step((Append(0, 4),), 0, 4) == Times(0, 4 + 6, 0, 10, 0)


def test_rows_read_the_weights_once_and_compute_each():
    backend, prices = modelled(num_rows=2), prices_of(machine(), WORK, num_rows=2)
    backend.step((Reserve(0, 2),), 0, 0)
    backend.begin_iteration((0,))
    times = backend.step((Append(0, 1),), 0, 1)
    tables = prices.tables
    model_ps = prices.step_ps + sized_ps(LINEAR, 2, tables) + sized_ps(SEQUENCES, 2, tables)
    assert (times.append_ns, times.attend_ns) == (2, decode_ps(2, 1, tables) // 1_000)
    assert sum(times) == (2_000 + decode_ps(2, 1, tables) + model_ps) // 1_000


def test_what_is_cast_has_half_the_bytes():
    backend = modelled((Area(format=Cast("fp8_e4m3")),), machine(flops_per_s=256e9), cache_only=True)
    backend.step((Reserve(0, 10),), 0, 0)
    # 4 slots of 32 bytes written in 2 ns, after 6 of launches, and by one query read in 2; 10 pairs take 5.
    assert backend.step((Append(0, 4),), 0, 4)[1:4] == (2 + 6, 0, 5)
    assert backend.step((), 0, 1).attend_ns == 2
    assert backend.step((Reserve(0, 20),), 0, 0).reserve_ns == 40 + 4


def test_every_chunk_is_allocated():
    backend = modelled((Area(layout=Chunks(4)),))
    assert backend.step((Reserve(0, 4),), 0, 0).reserve_ns == 40
    assert backend.step((Reserve(0, 16),), 0, 0).reserve_ns == 3 * 40
    assert backend.step((Reserve(0, 8),), 0, 0).reserve_ns == 0


def test_a_resize_copies_what_is_live():
    backend = modelled()
    backend.step((Reserve(0, 4), Append(0, 4)), 0, 0)
    assert backend.step((Reserve(0, 8),), 0, 0).reserve_ns == 40 + 4 * 2


def test_an_eviction_copies_what_is_kept_and_ranking_reads_all():
    # A position for each of 2 layers and 1 head makes a slot 72 bytes, 1.125 ns to read or write.
    backend = modelled((Area(positions=True),))
    backend.step((Reserve(0, 8), Append(0, 8)), 0, 0)
    # A launch a layer, and 3 slots copied at 2.25: 8.75 ns.
    assert backend.step((Keep(0, Rule(recent=3)),), 0, 0).move_ns == 8
    # The norms of 3 slots are read, 3.375, and 2 are copied, 4.5: 9.875 ns, with what was carried 10.625.
    assert backend.step((Keep(0, Rule(top=2, by="norm")),), 0, 0).move_ns == 10


def test_work_beside_the_steps_is_waited_for_only_as_far_as_it_is_not_done():
    backend = modelled()
    backend.step((Reserve(0, 4), Append(0, 3)), 0, 0)
    # 40 ns of allocation and 3 slots copied: ready 46 ns from now, and this step takes no time for it.
    assert backend.step((Reserve(0, 8, background=True),), 0, 0) == Times(0, 0, 0, 0, 0)
    backend.begin_iteration()
    assert sum(backend.step((Append(0, 1),), 0, 0)) == 1
    assert backend.check((Settle(0),)) == Times(45, 0, 0, 0, 0)
    # The tail, one slot, is copied then.
    assert backend.step((Settle(0), Append(0, 1)), 0, 0) == Times(2, 1, 0, 0, 0)


def test_a_release_waits_for_work_beside_the_steps():
    backend = modelled()
    backend.step((Reserve(0, 4), Append(0, 3)), 0, 0)
    backend.step((Reserve(0, 8, background=True),), 0, 0)
    assert backend.step((Release(0),), 0, 0).reserve_ns == 46


def test_a_slower_tier_costs_its_link():
    areas = (Area("slow", layout=Chunks(4), tier="host"), Area())
    backend = modelled(areas, cache_only=True)
    backend.step((Reserve(0, 8), Append(0, 8), Reserve(0, 4, "slow")), 0, 0)
    # A launch a layer; 4 slots read on the device and 4 copied to close the gap; then 5 ns and 4 slots over the link.
    moved = backend.step((Move(0, "main", "slow", Rule(recent=4)),), 0, 0).move_ns
    assert moved == 2 + 4 + 4 * 2 + 5 + 4 * 10
    backend.begin_iteration()
    # Read beside each other: 5 ns and 4 slots at 10 take longer than 4 slots at 1.
    assert backend.step((), 0, 1).attend_ns == 45


def test_a_run_is_the_same_each_time_and_says_what_it_is():
    backend = modelled().backend
    chosen = Dynamic(initial_capacity=4, growth_factor=1.5, max_capacity=64, round_to=1)
    requests = [Session(0, (Request(5, 9),)), Session(300, (Request(3, 4),))]
    settings = {"num_warmup": 0, "max_concurrency": 2, "budget_bytes": backend.memory_bytes()}
    recorder = run({"dynamic": chosen}, requests, backend, num_repetitions=2, **settings)
    frames = results_of(recorder, requests, backend, "two")
    first, second = (frames.steps[frames.steps["repetition"] == repetition] for repetition in (0, 1))
    assert first["end_s"].tolist() == second["end_s"].tolist()
    assert frames.summary["source"].tolist() == ["modelled"]
    assert frames.summary["scope"].tolist() == ["model"]
    assert (frames.steps["plan_us"] == 0).all()  # the host's clock is not looked at


def test_memory_is_what_the_weights_leave():
    assert modelled().memory_bytes() == 500_000 - 2_000
    with pytest.raises(ValueError, match=r"weights of Tiny take 2,000 bytes, and Round has 1,500 \("):
        modelled(hardware=machine(memory_bytes=3_000))
    assert modelled(hardware=machine(memory_bytes=3_000), cache_only=True).memory_bytes() == 1_500


@pytest.mark.parametrize("fraction", [0, 1.5, True, "half", -1])
def test_a_memory_fraction_is_a_share(fraction):
    with pytest.raises(ValueError, match="memory_fraction is a number above 0 and at most 1"):
        modelled(memory_fraction=fraction)


def test_bad_settings_say_what_is_allowed():
    with pytest.raises(ValueError, match="name one, such as hardware=h100"):
        Modelled().made(Conditions(geometry=GEOMETRY, weights=WEIGHTS))
    with pytest.raises(ValueError, match="cache_only=true"):
        Modelled().made(Conditions(geometry=GEOMETRY, hardware=machine()))
    with pytest.raises(ValueError, match="Did you mean 'caching'"):
        Modelled(allocator="cachin")


def test_a_strategy_that_attention_must_tell_something_is_refused_where_none_is_priced():
    strategies = {"heavy_hitters": strategy("heavy_hitters")}
    with pytest.raises(ValueError, match=r"attention to tell it: mass; backend modelled supplies none$"):
        check_signals(strategies, modelled(attend=False))


def test_scores_take_the_product_of_queries_and_keys_once_more():
    # A slot is read in 1,000 ps and a pair takes as long: half of each for keys alone.
    prices = prices_of(machine(), WORK)
    assert scoring_ps(1, 40, prices) == 40 * 500
    assert scoring_ps(3, 40, prices) == (38 + 39 + 40) * 500
    assert scoring_ps(0, 40, prices) == 0
    assert [num_scoring(tokens, 32, 0) for tokens in (1, 5, 90)] == [0, 5, 32]
    assert [num_scoring(tokens, UNBOUNDED, 1) for tokens in (1, 5, 90)] == [1, 5, 90]
