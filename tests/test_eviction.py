"""Which blocks that nobody holds go first: by hand, runner beside fleet, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.counted import CountedBackend
from kvbench.engine.eviction import EVICTIONS
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet.steps import STEP_NS
from kvbench.ledger import Limits
from kvbench.model.geometry import KVGeometry
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.paged import Paged
from kvbench.workload.columns import requests_by_turn
from tests.support.machines import GEOMETRY
from tests.support.numbered import PLAIN
from tests.test_fleet_prefix import REQUESTS, RULES, columns_of, served, texts_of
from tests.test_prefix_operations import BLOCK, texts
from tests.test_prefix_operations import served as cached

WINDOWED = KVGeometry.uniform(
    num_layers=2,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    dtype="float16",
    name="Windowed",
    num_window_layers=1,
    window_tokens=8,
)

# A system prompt of two blocks with a or b behind it, c of two blocks, and d; the last two are to come.
LINES = [
    [("s", 8), ("a", 4)],
    [("c", 8)],
    [("s", 8), ("b", 4)],
    [("s", 8), ("a", 4), ("more", 1)],
    [("d", 4)],
    [("c", 8), ("more", 1)],
    [("s", 8), ("b", 4), ("more", 1)],
]


@pytest.mark.parametrize(
    ("eviction", "order"),
    [
        # As they were let go of: the fourth request was the last to hold a and s.
        ("lru", "c1 c0 b2 a2 s1 s0 d0"),
        # The first has computed s and a; s waits for b, which the third has computed behind it.
        ("fifo", "a2 c1 c0 b2 s1 s0 d0"),
        # s was found twice and a once.
        ("lfu", "c1 c0 b2 d0 a2 s1 s0"),
        # c's session goes on.
        ("session", "b2 a2 s1 s0 d0 c1 c0"),
        # Nobody needs a or d again; s and b are needed after c.
        ("optimal", "a2 d0 b2 s1 s0 c1 c0"),
    ],
)
def test_the_order_by_hand(eviction, order):
    sessions = texts(*LINES)
    sessions[1] = replace(sessions[1], goes_on=True)
    cache = cached(num_blocks=16, eviction=eviction)
    for seq in range(5):
        cache.serve(seq, sessions[seq])
        cache.finish(seq)
    names = {
        key: f"{words[-1]}{number}"
        for words, request in (("sa", 0), ("c", 1), ("sb", 2), ("d", 4))
        for number, key in enumerate(sessions[request].keys.of(BLOCK))
    }
    names |= dict(zip(sessions[0].keys.of(BLOCK), ("s0", "s1", "a2"), strict=True)) | {
        sessions[2].keys.of(BLOCK)[2]: "b2"
    }
    assert " ".join(names[key] for key in cache.strategy._order.going(cache.view)) == order


@settings(max_examples=60, deadline=None)
@given(
    drawn=REQUESTS,
    spare=st.integers(0, 8),
    max_live=st.integers(1, 4),
    eviction=st.sampled_from(EVICTIONS),
    num_sessions=st.integers(1, 9),
)
def test_a_fleet_is_the_runner(drawn, spare, max_live, eviction, num_sessions):
    drawn = texts_of(drawn)
    numbers = np.arange(len(drawn)) ** 2 % num_sessions
    columns = replace(columns_of(drawn), sessions=numbers, turns=np.arange(len(drawn)))
    num_blocks = max(-(-(len(prompt) + len(answer)) // 2) for _, prompt, answer in drawn) + spare
    found = served(columns, num_blocks, 2, max_live, 9, eviction=eviction)
    made = Paged(block_size=2, pool_tokens=num_blocks * 2, window_blocks="keep", prefix_caching=True, eviction=eviction)
    rules, sessions = Scheduling(tokens=9, sequences=max_live, **RULES), requests_by_turn(columns)
    recorder = run(
        {"it": made},
        sessions,
        CountedBackend(GEOMETRY, STEP_NS, rules),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=max_live,
        budget_bytes=None,
    )
    rows = requests_frame(recorder, steps_frame(recorder), sessions)
    ends = np.rint((rows["arrival_s"] + rows["latency_s"]) * 1e9).astype(int)
    order = np.lexsort((found.turn, found.session))
    assert found.finish_ns[order].tolist() == ends.tolist()
    assert found.hit_tokens[order].tolist() == rows["hit_tokens"].tolist()
    assert found.num_preemptions[order].tolist() == rows["num_preemptions"].tolist()


def test_what_knows_the_future_is_there_to_compare_with():
    assert Paged(eviction="optimal").reference
    assert not Paged(eviction="session").reference
    kept = Paged(prefix_caching=True, eviction="session")
    assert (kept.facts(PLAIN)["eviction"], Paged().facts(PLAIN)["eviction"]) == ("session", "")


@pytest.mark.parametrize(
    ("changed", "geometry", "message"),
    [
        ({"prefix_caching": False}, PLAIN, "eviction=lfu orders blocks that are kept, and prefix_caching is false"),
        ({}, WINDOWED, "eviction=lfu orders blocks by what is behind them, and windows and states leave theirs"),
    ],
)
def test_orders_of_nothing_are_refused(changed, geometry, message):
    with pytest.raises(ValueError, match=message):
        Paged(**{"prefix_caching": True, "pool_tokens": 64, "eviction": "lfu"} | changed).fitted(
            Limits(geometry=geometry, budget_bytes=None)
        )


def test_an_unknown_order_is_named():
    with pytest.raises(ValueError, match=r"unknown eviction 'sesion'\. Did you mean 'session'"):
        Paged(eviction="sesion")
