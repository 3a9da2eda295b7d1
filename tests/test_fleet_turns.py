"""A fleet of strategies that reduce what a sequence holds: against the runner, and step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.fleet import OUTCOMES, simulate
from kvbench.ledger.costs import area_cost, workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.chain import Chain
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.snapkv import SnapKV
from kvbench.strategy.streaming import Streaming
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from tests.support.fleet_models import COLUMNS, LATE, PRICES, PS_PER_NS, SLOT_BYTES, by_runner, columns_of, results
from tests.support.machines import GEOMETRY, WEIGHTS, machine
from tests.test_fleet import BATCH, SCHEDULINGS
from tests.test_fleet_groups import GEOMETRIES

MAKERS = {
    "sinks": lambda: Sinks(num_sinks=2, window=9),
    "int8": lambda: Quantized(bits=8, group_size=4, residual_tokens=6),
    "int4": lambda: Quantized(bits=4, group_size=8, residual_tokens=8, keys_per="token"),
    "heavy_hitters": lambda: HeavyHitters(num_heavy=5, num_recent=6),
    "compressed": lambda: Compressed(kept_fraction=0.4, interval=7),
    "snapkv": lambda: SnapKV(budget=20, window=4),
    "int2": lambda: Quantized(bits=2, group_size=1, residual_tokens=0),
    "sinks_int4": lambda: Chain(
        parts=(Sinks(num_sinks=2, window=30), Quantized(bits=4, group_size=4, residual_tokens=5))
    ),
    "packed_window": lambda: Chain(
        parts=(Quantized(bits=8, group_size=1, residual_tokens=3), Sinks(num_sinks=0, window=9))
    ),
    "streaming": lambda: Streaming(window_size=9, overlap_size=2, max_retired=3),
    "hierarchical": lambda: Hierarchical(fast_capacity=9),
    "access": lambda: Hierarchical(fast_capacity=12, eviction="access", read_ahead=True),
}
ROWS = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=14)
SLOTS = st.integers(20, 400)
UNITS = {"snapkv": 8, "compressed": 2}
"""Slots of 64 bytes that a budget counts in: of what grows by 256, several."""


def budget_of(made, slots, geometry=GEOMETRY):
    slots *= UNITS.get(type(made).__name__.lower(), 1)
    return slots * geometry.bytes_per_token + workspace_bytes(made.areas, geometry, 1)


def run(name, rows, slots, max_batch, **options):
    made = MAKERS[name]()
    chosen = {"geometry": GEOMETRY, "budget_bytes": budget_of(made, slots), "max_batch": max_batch}
    return simulate(columns_of(rows), made, PRICES, **chosen | options)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH, rules=SCHEDULINGS)
def test_it_equals_the_runner_on_the_modelled_backend(name, rows, slots, max_batch, rules):
    made = MAKERS[name]()
    fleet = run(name, rows, slots, max_batch, scheduling=rules)
    requests, totals, sums = by_runner(columns_of(rows), made, budget_of(made, slots), max_batch, rules=rules)
    ours = results(fleet)
    ours["finish_ns"] = np.where(fleet.outcome == OUTCOMES.index("completed"), fleet.finish_ns, -1).tolist()
    assert ours == {column: requests[column].tolist() for column in COLUMNS} | {"held_tokens": totals["held_tokens"]}
    assert fleet.totals.num_prompt_tokens + fleet.totals.num_decoded_tokens == totals["num_tokens"]
    for counted in ("num_recomputed_tokens", "num_resizes", "copied_bytes", "peak_bytes"):
        assert getattr(fleet.totals, counted) == totals[counted], counted
    time_ps, *_, batch, _ = fleet.sums.sum(axis=0) / PS_PER_NS
    # The runner's rows have whole nanoseconds, each step's cut off; and they say what is held while a prompt attends, a
    # fleet's sums what is when the iteration is over.
    assert [time_ps, batch] == pytest.approx([sums[0], sums[4]], rel=0.02, abs=1.0)


LONG = st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 2_400), st.integers(0, 700)), min_size=1, max_size=5)
FILES = {
    "oldest": Hierarchical(fast_capacity=700, slow_capacity=512, disk_capacity=1024),
    "accessed": Hierarchical(fast_capacity=600, slow_capacity=512, disk_capacity=None, eviction="access"),
    "read ahead": Hierarchical(fast_capacity=20, slow_capacity=1024, disk_capacity=512, read_ahead=True),
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=10, deadline=None)
@given(rows=LONG, slots=st.integers(1_000, 2_500), max_batch=BATCH, rules=SCHEDULINGS)
def test_tiers_with_files_equal_the_runner(name, rows, slots, max_batch, rules):
    made = FILES[name]
    chosen = {"geometry": GEOMETRY, "budget_bytes": budget_of(made, slots), "max_batch": max_batch}
    fleet = simulate(columns_of(rows), made, PRICES, scheduling=rules, **chosen)
    stepped = simulate(columns_of(rows), made, PRICES, scheduling=rules, step_by_step=True, **chosen)
    requests, totals, _ = by_runner(columns_of(rows), made, chosen["budget_bytes"], max_batch, rules=rules)
    ours = results(fleet)
    assert ours == results(stepped)
    ours["finish_ns"] = np.where(fleet.outcome == OUTCOMES.index("completed"), fleet.finish_ns, -1).tolist()
    assert ours == {column: requests[column].tolist() for column in COLUMNS} | {"held_tokens": totals["held_tokens"]}
    for counted in ("num_recomputed_tokens", "num_resizes", "copied_bytes", "peak_bytes"):
        assert getattr(fleet.totals, counted) == totals[counted], counted


@pytest.mark.parametrize("name", ["int8", "sinks", "snapkv"])
@settings(max_examples=10, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH)
def test_states_lie_beside_what_is_reduced(name, rows, slots, max_batch):
    geometry, made = GEOMETRIES["states"], MAKERS[name]()
    budget_bytes = budget_of(made, slots, geometry)
    settings = {"geometry": geometry, "budget_bytes": budget_bytes, "max_batch": max_batch}
    prices = prices_of(machine(), work_of_parameters(geometry, WEIGHTS))
    fleet = simulate(columns_of(rows), made, prices, **settings)
    requests, totals, _ = by_runner(columns_of(rows), made, budget_bytes, max_batch, geometry)
    ours = results(fleet)
    ours["finish_ns"] = np.where(fleet.outcome == OUTCOMES.index("completed"), fleet.finish_ns, -1).tolist()
    assert ours == {column: requests[column].tolist() for column in COLUMNS} | {"held_tokens": totals["held_tokens"]}
    assert fleet.totals.peak_bytes == totals["peak_bytes"]


SHORT = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 8), st.integers(0, 60)), min_size=1, max_size=8)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("compressed", "int2", "packed_window")])
@settings(max_examples=10, deadline=None)
@given(rows=SHORT, max_batch=BATCH)
def test_what_is_held_is_what_the_runner_holds_where_no_prompt_is_reduced(name, rows, max_batch):
    made = MAKERS[name]()
    fleet = run(name, rows, 2_000, max_batch)
    *_, sums = by_runner(columns_of(rows), made, budget_of(made, 2_000), max_batch)
    time_ps, used, allocated, _, batch, _ = fleet.sums.sum(axis=0) / PS_PER_NS
    assert [time_ps, used, allocated, batch] == pytest.approx([*sums[:3], sums[4]], rel=0.02, abs=1.0)


OPTIONS = st.fixed_dictionaries(
    {
        "scheduling": SCHEDULINGS,
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(["round_robin", "least_loaded"]),
        "split": st.booleans(),
    }
)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15, deadline=None)
@given(rows=ROWS, late=st.sampled_from([[], [LATE]]), slots=SLOTS, max_batch=BATCH, options=OPTIONS)
def test_jumping_gives_what_stepping_gives(name, rows, late, slots, max_batch, options):
    rows = rows + late
    jumped = run(name, rows, slots, max_batch, **options)
    stepped = run(name, rows, slots, max_batch, step_by_step=True, **options)
    assert results(jumped) == results(stepped)
    assert jumped.totals == stepped.totals
    assert jumped.sums == pytest.approx(stepped.sums, rel=1e-9, abs=1e-3)
    for ours, theirs in zip(jumped.timeline, stepped.timeline, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)
    shares = jumped.shares()
    if shares.time_s and jumped.is_split:
        assert sum(shares[:5]) == pytest.approx(1)
        assert min(shares[:5]) > -1e-9


@pytest.mark.parametrize("changed", [{"preemption": "swap"}, {"space": "buddy"}])
def test_what_is_reduced_is_neither_swapped_nor_placed(changed):
    with pytest.raises(ValueError, match=r"Sinks reduces what a sequence holds.*got space=\w+ and preemption=\w+"):
        run("sinks", [(0, 3, 3)], 400, 2, **changed)


def test_layers_with_windows_are_refused():
    windowed = KVGeometry.uniform(
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        dtype="float16",
        name="Windowed",
        num_window_layers=1,
        window_tokens=8,
    )
    prices = prices_of(machine(), work_of_parameters(windowed, WEIGHTS))
    settings = {"geometry": windowed, "budget_bytes": 10**6, "max_batch": 2}
    with pytest.raises(ValueError, match="slots that all layers hold alike; Windowed has 1 full layer"):
        simulate(columns_of([(0, 3, 3)]), MAKERS["sinks"](), prices, **settings)


def test_a_fleet_of_int8_by_hand():
    """One request, a prompt of 3 and 12 more tokens that are written, in a ring of 12 slots of 64 bytes.

    The thirteenth token sends the oldest group of 4 to a chunk of 128 packed slots, and the fifteenth is the last one.
    """
    (cost,) = (area_cost(area, GEOMETRY, 1) for area in MAKERS["int8"]().areas[:1])
    chunk_bytes = cost.bytes_of(128)
    result = run("int8", [(0, 3, 13)], 400, 1)
    assert result.held_tokens.tolist() == [15]
    staging = workspace_bytes(MAKERS["int8"]().areas, GEOMETRY, 1)
    assert result.totals.peak_bytes == staging + 12 * SLOT_BYTES + chunk_bytes
    assert result.totals.num_iterations == 13
    assert (result.totals.num_resizes, result.totals.copied_bytes) == (0, 0)


SLOW = [
    prices_of(machine(memory_bytes_per_s=64e6, host_bytes_per_s=rate), work_of_parameters(GEOMETRY, WEIGHTS))
    for rate in (16e6, 20e6, 42e6)
]
"""A slot takes a microsecond to read, and 20 slots over a link 80, 64 or 30: a step waits for it until 20 to 40 slots
on the device, beside what reading takes at all, take longer."""


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4_000), st.integers(41, 60), st.integers(40, 90)), min_size=1, max_size=3),
    prices=st.sampled_from(SLOW),
)
def test_a_jump_ends_where_a_step_no_longer_waits_for_a_link(rows, prices):
    chosen = {"geometry": GEOMETRY, "max_batch": 4}
    chosen["budget_bytes"] = budget_of(Hierarchical(fast_capacity=40), 4_000)
    columns = columns_of([*rows, LATE])
    jumped = simulate(columns, Hierarchical(fast_capacity=40), prices, **chosen)
    stepped = simulate(columns, Hierarchical(fast_capacity=40), prices, step_by_step=True, **chosen)
    assert results(jumped) == results(stepped)
