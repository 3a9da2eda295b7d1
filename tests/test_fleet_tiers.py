"""Tiers below a fleet's devices: block by block as plain lists of names, in every count and nanosecond."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from kvbench.charts.tiers import break_even
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.tiers import BELOW, TIER_LOADS, TIER_WRITES
from kvbench.fleet import simulate
from kvbench.fleet.frames import FleetRun, fleet_frames
from kvbench.fleet.prefix.segments import CELL
from kvbench.fleet.prefix.tier import KEPT, TIER, store, tier_at
from kvbench.fleet.steps import STEP_NS, steady_prices
from kvbench.strategy.paged import Paged
from kvbench.timing.links import Link, token_ps
from kvbench.timing.prices import LINEAR, PS_PER_NS, SIZES
from tests.support.fleet_columns import OBJECTIVE
from tests.support.fleet_models import SLOT_BYTES, results
from tests.support.imitated import Asked
from tests.support.imitated_links import Below, PlainTier, TimedEngine
from tests.support.machines import GEOMETRY, WINDOWED
from tests.test_fleet_prefix import REQUESTS, ROUTED, RULES, STAGING, columns_of, texts_of

TOKEN_NS = 100
TIERS = st.lists(
    st.tuples(
        st.sampled_from(BELOW), st.integers(1, 30), st.sampled_from([1, 10, 300]), st.sampled_from([0, 200, 2_000])
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tier: tier[0],
)


def prices():
    """Steps that all take STEP_NS, where computing a token more would take TOKEN_NS in large ones."""
    made = steady_prices(SLOT_BYTES)
    made.tables[LINEAR, SIZES // 2 + 1 :] = TOKEN_NS * PS_PER_NS * np.arange(1, SIZES // 2 + 1)
    assert token_ps(made) == TOKEN_NS * PS_PER_NS
    return made


def served(
    columns, num_blocks, size, tiers, max_live=3, budget=8, writes="through", loads="always", windows="keep", **options
):
    own = {f"{name}_bytes": count * size * SLOT_BYTES + SLOT_BYTES // 2 for name, count, *_ in tiers}
    own["prefetch"] = options.pop("prefetch", False)
    made = Paged(
        block_size=size,
        pool_tokens=num_blocks * size,
        window_blocks=windows,
        prefix_caching=True,
        tier_writes=writes,
        tier_loads=loads,
        **own,
    )
    chosen = {
        "geometry": GEOMETRY,
        "budget_bytes": (num_blocks * size + STAGING) * SLOT_BYTES,
        "max_batch": max_live,
        "scheduling": Scheduling(tokens=budget, sequences=max_live, **RULES),
        "links": {name: Link(block * PS_PER_NS, latency * PS_PER_NS) for name, _, block, latency in tiers},
    }
    return simulate(columns, made, prices(), **chosen | options)


@njit
def _drive(at, run, first, past):
    store(tier_at(at, 0), run, first, past)


def _kept(kept):
    """The names that a tier keeps, the oldest first."""
    found, number = [], kept[0]["newer"]
    while number:
        own = kept[number]
        found += [(int(own["run"]), block) for block in reversed(range(own["first"], own["first"] + own["count"]))]
        number = own["newer"]
    return found


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    stores=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 6)), max_size=40),
)
def test_stretches_of_runs_are_lists_of_names(sizes, stores):
    below = Below([PlainTier(size, 0, 0) for size in sizes])
    rows, cells = np.zeros(len(sizes), TIER), [np.zeros(3, CELL) for _ in sizes]
    kept = [np.zeros(size + 3, KEPT) for size in sizes]
    rows["stride"], rows["size"] = 1, sizes
    rows["table_at"], rows["kept_at"] = ([each.ctypes.data for each in tables] for tables in (cells, kept))
    rows["below_at"][:-1] = rows.ctypes.data + TIER.itemsize * np.arange(1, len(sizes))
    for run, first, count in stores:
        _drive(rows.ctypes.data, run, first, first + count)
        for block in reversed(range(first, first + count)):
            below.store((run, block))
        assert [_kept(own) for own in kept] == [list(names) for names in below.names]
    assert rows["num_written_blocks"].tolist() == below.written


# One takes over what another still fills, while a third, which has less of the same text, fills it behind.
ZEROS = [0] * 12
FILLED_BEHIND = [
    (0, 0, 0, [0], [0, 0, 0, 0]),
    (0, 0, 5, ZEROS, [0, 0, 0, 0, 0, 0]),
    (2, 0, 4, [0], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    (0, 0, 0, [0], [0, 0]),
    (2, 8, 15, [0], [0]),
    (0, 0, 0, [0], [0]),
    (2, 0, 3, [0, 0], ZEROS),
    (2, 0, 4, [0], [0, 1, 0, 0, 0, 0, 0, 1]),
    (0, 0, 1, [0], [0, 0, 0, 0]),
    (0, 0, 0, [0], [0]),
    (0, 0, 0, [0], [0]),
    (0, 0, 0, [0], [0]),
    (2, 2, 23, [0], [0]),
    (0, 9, 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ZEROS),
]


@settings(max_examples=400, deadline=None)
@given(
    drawn=REQUESTS,
    size=st.sampled_from([1, 2, 4]),
    spare=st.integers(0, 8),
    max_live=st.integers(1, 5),
    budget=st.integers(5, 20),
    tiers=TIERS,
    writes=st.sampled_from(TIER_WRITES),
    loads=st.sampled_from(TIER_LOADS),
    is_stepped=st.booleans(),
)
@example(
    **{"drawn": FILLED_BEHIND, "size": 1, "spare": 0, "max_live": 4, "budget": 6, "tiers": [("host", 7, 1, 200)]},
    **{"writes": "eviction", "loads": "always", "is_stepped": False},
)
def test_it_is_plain_lists_of_names(drawn, size, spare, max_live, budget, tiers, writes, loads, is_stepped):
    texts, tiers = texts_of(drawn), sorted(tiers, key=lambda tier: BELOW.index(tier[0]))
    columns = columns_of(texts)
    num_blocks = max(-(-(len(prompt) + len(answer)) // size) for _, prompt, answer in texts) + spare
    asked = [
        Asked(number, arrival * STEP_NS, len(prompt), len(answer), columns.contents.block_keys(number, size))
        for number, (arrival, prompt, answer) in enumerate(texts)
    ]
    plain = [PlainTier(*tier[1:]) for tier in tiers]
    token_ns = TOKEN_NS if loads == "cost" else None
    engine = TimedEngine(asked, num_blocks, size, max_live, budget, plain, writes, token_ns, STEP_NS)
    engine.run()
    found = served(columns, num_blocks, size, tiers, max_live, budget, writes, loads, step_by_step=is_stepped)
    numbers = range(len(asked))
    assert found.finish_ns.tolist() == [engine.ends[number] for number in numbers]
    assert found.hit_tokens.tolist() == [request.hits for request in asked]
    by_tier = {name: [0] * len(asked) for name in BELOW} | {
        name: [engine.tokens[number][i] for number in numbers] for i, (name, *_) in enumerate(tiers)
    }
    assert {name: getattr(found, f"{name}_tokens").tolist() for name in BELOW} == by_tier
    assert found.load_ps.tolist() == [engine.waits[number] * PS_PER_NS for number in numbers]
    assert found.num_preemptions.tolist() == [request.num_preemptions for request in asked]
    assert found.totals.num_evicted_blocks == engine.pool.num_evicted
    assert [used.num_written_blocks for used in found.tiers] == engine.below.written
    assert [used.num_loaded_blocks for used in found.tiers] == engine.below.loaded
    assert found.timeline.found_below.sum(axis=1).tolist() == [sum(by_tier[name]) for name in BELOW]
    assert found.timeline.looked.sum() == found.totals.num_queried_tokens
    assert found.timeline.found.sum() == found.totals.num_hit_tokens


@settings(max_examples=150, deadline=None)
@given(
    drawn=REQUESTS,
    spare=st.integers(0, 8),
    tiers=TIERS,
    writes=st.sampled_from(TIER_WRITES),
    loads=st.sampled_from(TIER_LOADS),
    options=ROUTED,
    block=st.integers(1, 9),
)
def test_on_several_replicas_in_jumps_and_in_blocks_it_is_the_same(drawn, spare, tiers, writes, loads, options, block):
    texts, pieces = texts_of(drawn), []
    columns, tiers = columns_of(texts), sorted(tiers, key=lambda tier: BELOW.index(tier[0]))
    num_blocks = max(-(-(len(prompt) + len(answer)) // 2) for _, prompt, answer in texts) + spare
    chosen = {"tiers": tiers, "writes": writes, "loads": loads} | options
    jumped = served(columns, num_blocks, 2, **chosen)
    stepped = served(columns, num_blocks, 2, step_by_step=True, **chosen)
    folded = served(columns, num_blocks, 2, fold=pieces.append, block=block, **chosen)
    assert results(jumped) == results(stepped)
    assert jumped.totals == stepped.totals == folded.totals
    assert jumped.tiers == stepped.tiers == folded.tiers
    for name in ("host_tokens", "disk_tokens", "remote_tokens", "load_ps"):
        assert getattr(jumped, name).tolist() == getattr(stepped, name).tolist()
        assert sum(int(getattr(piece, name).sum()) for piece in pieces) == getattr(jumped, name).sum()


def test_what_loading_saved_by_hand():
    # Twelve tokens of three blocks are loaded, each of 500 microseconds, where computing them takes 100 ns a token; or
    # of 20 ns.
    texts = [(number * 10_000, (word,) * 13, (0,)) for number, word in enumerate((0, 1, 0))]
    for block_ns, told in (
        (500_000, "1.5 ms; computing those tokens would have taken 1.2 µs, 1/1,250 of that."),
        (20, "0.06 µs; computing those tokens would have taken 1.2 µs, 20 times that."),
    ):
        found = served(columns_of(texts), 4, 4, [("host", 6, block_ns, 5)], budget=32)
        made = fleet_frames({"it": FleetRun(found, {})}, "again", OBJECTIVE).summary
        figures = made[["host_load_s", "host_saved_s"]].iloc[0].tolist()
        assert figures == pytest.approx([3 * block_ns / 1e9, 12 * 100e-9])
        assert break_even(made, []) == [f"it: loading from the host's memory took its link {told}"]


def test_latencies_are_drawn_with_a_seed():
    # The same two blocks, which a device of three has lost each time, from a store whose latency varies.
    texts = [(20 * i, (i % 3,) * 5, (0,)) for i in range(30)]
    kept = ("remote", 30, 0, 0)
    once, again, other = (
        served(columns_of(texts), 3, 2, [kept], links={"remote": Link(1, 0, 10**6, 1.0)}, seed=seed).load_ps
        for seed in (0, 0, 1)
    )
    assert once.tolist() == again.tolist() != other.tolist()
    assert len(set(once.tolist())) > 20
    assert 5e5 < np.median(once[once > 0]) < 2e6


@pytest.mark.parametrize(
    ("tiers", "changed", "message"),
    [
        ([("host", 4, 1, 1)], {"links": {}}, "host_bytes: a fleet loads from the host over a link"),
        ([("disk", 0, 1, 1)], {}, "disk_bytes holds at least a block of .* bytes, got"),
        ([("host", 4, 1, 1)], {"geometry": WINDOWED, "windows": "free"}, "3 window layers: set window_blocks to keep"),
    ],
)
def test_what_tiers_cannot_be_is_refused(tiers, changed, message):
    with pytest.raises(ValueError, match=message):
        served(columns_of(texts_of([])), 64, 2, tiers, **changed)
