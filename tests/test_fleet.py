"""The fleet against the runner on the modelled backend, and against itself step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import OUTCOMES, simulate
from kvbench.fleet.kernel import AHEAD
from kvbench.fleet.state import WASTED
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
from kvbench.strategy.power_of_two import PowerOfTwo
from kvbench.strategy.static import Static
from kvbench.timing.prices import DECODE_FIXED, DECODE_UNIT, MIXED_FIXED, MIXED_UNIT
from kvbench.timing.pricing import prices_of
from kvbench.timing.steps import StepFigures
from tests.support.fleet_models import (
    COLUMNS,
    LATE,
    PRICES,
    PS_PER_NS,
    ROUND,
    SLOT_BYTES,
    by_runner,
    columns_of,
    results,
    that_go_on,
)
from tests.support.machines import GEOMETRY, WORK, machine

STAGING = 1024 // 2  # in slots: 1,024 tokens of one layer of two
MAKERS = {
    "paged": lambda slots: Paged(block_size=4, pool_tokens=slots // 4 * 4, window_blocks="keep"),
    "dynamic": lambda slots: Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=48, round_to=4),
    "static": lambda slots: Static(max_seq_len=32),
    "exact": lambda slots: Exact(round_to=4),
    "power_of_two": lambda slots: PowerOfTwo(max_seq_len=48),
    "concat": lambda slots: Concat(),
    "chunked": lambda slots: Chunked(chunk_tokens=8),
}
CONTIGUOUS = ("dynamic", "static", "exact", "power_of_two", "concat")
ROWS = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 30), st.integers(0, 24)), min_size=1, max_size=14)
SLOTS, BATCH = st.integers(20, 120), st.integers(1, 6)


def budget_of(name, slots):
    return (slots + STAGING * (name == "paged")) * SLOT_BYTES


def run(name, rows, slots, max_batch, num_clients=None, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": budget_of(name, slots), "max_batch": max_batch}
    return simulate(columns_of(rows, num_clients), MAKERS[name](slots), PRICES, **chosen | options)


@pytest.mark.parametrize("name", ["static", "dynamic", "paged"])
@pytest.mark.parametrize("rows", [[(0, 5, 9), (100, 7, 6), (150_000, 4, 8)], [(0, 3, 20), (1, 8, 4), (400_000, 9, 2)]])
def test_decode_steps_beside_prompts_take_as_long_as_step_by_step(name, rows):
    made = machine(kernels={"attention": {"decode": {"bfloat16": StepFigures(regroups=1.0)._asdict()}}})
    columns, budget_bytes, prices = columns_of(rows), budget_of(name, 80), prices_of(made, WORK)
    chosen = {"geometry": GEOMETRY, "budget_bytes": budget_bytes, "max_batch": 3}
    requests, *_ = by_runner(columns, MAKERS[name](80), budget_bytes, 3, hardware=made)
    fleet = simulate(columns, MAKERS[name](80), prices, **chosen)
    assert fleet.finish_ns.tolist() == requests["finish_ns"].tolist()
    tables = prices.tables.copy()
    tables[[MIXED_FIXED, MIXED_UNIT]] = tables[[DECODE_FIXED, DECODE_UNIT]]
    alone = simulate(columns, MAKERS[name](80), prices._replace(tables=tables), **chosen)
    assert alone.finish_ns.tolist() != fleet.finish_ns.tolist()


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH)
def test_it_equals_the_runner_on_the_modelled_backend(name, rows, slots, max_batch):
    equals_the_runner(name, rows, slots, max_batch, Scheduling())


def equals_the_runner(name, rows, slots, max_batch, rules, num_clients=None):
    fleet = run(name, rows, slots, max_batch, num_clients, scheduling=rules)
    columns, made, budget_bytes = columns_of(rows, num_clients), MAKERS[name](slots), budget_of(name, slots)
    requests, totals, sums = by_runner(columns, made, budget_bytes, max_batch, rules=rules)
    ours = results(fleet)
    # The runner's frames have it of completed requests.
    ours["finish_ns"] = np.where(fleet.outcome == OUTCOMES.index("completed"), fleet.finish_ns, -1).tolist()
    assert fleet.arrival_ns.tolist() == requests["arrival_ns"].tolist()
    assert ours == {column: requests[column].tolist() for column in COLUMNS} | {"held_tokens": totals["held_tokens"]}
    assert fleet.totals.num_prompt_tokens + fleet.totals.num_decoded_tokens == totals["num_tokens"]
    assert fleet.totals.num_recomputed_tokens == totals["num_recomputed_tokens"]
    assert fleet.totals.num_resizes == totals["num_resizes"]
    assert fleet.totals.copied_bytes == totals["copied_bytes"]
    assert fleet.totals.peak_bytes == totals["peak_bytes"]
    time_ps, used, allocated, wasted, batch, _ = fleet.sums.sum(axis=0)
    # The runner's rows have whole nanoseconds, each step's cut off.
    assert np.array([time_ps, used, allocated, wasted, batch]) / PS_PER_NS == pytest.approx(sums, rel=0.02, abs=1.0)


SCHEDULINGS = st.builds(
    Scheduling,
    tokens=st.sampled_from([None, 1, 4, 20]),
    sequences=st.sampled_from([None, 2]),
    chunks=st.booleans(),
    mixes=st.booleans(),
    counts_decode=st.booleans(),
    evicts=st.booleans(),
    waits_for_end=st.booleans(),
    fits_prompts=st.booleans(),
    plans_steps=st.booleans(),
).map(that_go_on)


@pytest.mark.parametrize("slots", [60, 200])
def test_steps_in_which_last_blocks_come_are_skipped_to_the_same_waste(slots):
    # The last arrival makes bins so long that many steps lie in one.
    rows = [(0, 5, 33), (10, 7, 26), (20, 4, 40), (30, 6, 21), (3 * 10**9, 3, 3)]
    skipped, stepped = (run("paged", rows, slots, 3, step_by_step=each) for each in (False, True))
    assert results(skipped) == results(stepped)
    assert skipped.totals == stepped.totals
    assert skipped.sums == pytest.approx(stepped.sums, rel=1e-12)
    assert skipped.sums[:, WASTED].sum() > 0


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH, rules=SCHEDULINGS)
def test_it_equals_the_runner_under_an_engines_rules(name, rows, slots, max_batch, rules):
    equals_the_runner(name, rows, slots, max_batch, rules)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH, rules=SCHEDULINGS, num_clients=st.integers(1, 8))
def test_it_equals_the_runner_where_clients_wait(name, rows, slots, max_batch, rules, num_clients):
    equals_the_runner(name, rows, slots, max_batch, rules, num_clients)


@pytest.mark.parametrize("name", ["dynamic", "static"])
def test_what_is_asked_of_a_pool_is_asked_of_blocks_alone(name):
    # So tight that requests give way; were they admitted again at once, they would be for ever.
    rows = [(0, 20, 24), (1, 25, 24), (2, 30, 20), (3, 9, 30)]
    rules = Scheduling(8, counts_decode=True)
    of_blocks = rules._replace(waits_for_end=False, fits_prompts=True, plans_steps=True)
    equals_the_runner(name, rows, 80, 4, of_blocks)
    assert results(run(name, rows, 80, 4, scheduling=of_blocks)) == results(run(name, rows, 80, 4, scheduling=rules))


OPTIONS = st.fixed_dictionaries(
    {
        "scheduling": SCHEDULINGS,
        "preemption": st.sampled_from(["recompute", "swap"]),
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(["round_robin", "least_loaded"]),
        "split": st.booleans(),
        "num_clients": st.sampled_from([None, 1, 3, 8]),
    }
)
SPACES = st.sampled_from(["counting", "buddy", "best_fit"])


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=30, deadline=None)
@given(
    rows=ROWS,
    late=st.sampled_from([[], [LATE]]),
    slots=SLOTS,
    max_batch=BATCH,
    options=OPTIONS,
    space=SPACES,
    least=st.sampled_from([1, 4]),
)
def test_jumping_gives_what_stepping_gives(name, rows, late, slots, max_batch, options, space, least):
    rows = rows + late
    if name in CONTIGUOUS:
        options = options | {"space": space, "min_block_tokens": least}
    jumped = run(name, rows, slots, max_batch, **options)
    stepped = run(name, rows, slots, max_batch, step_by_step=True, **options)
    assert results(jumped) == results(stepped)
    assert jumped.replica.tolist() == stepped.replica.tolist()
    assert jumped.totals == stepped.totals
    whole, its_steps = (result.sums.sum(axis=0) for result in (jumped, stepped))
    assert whole == pytest.approx(its_steps, rel=1e-9, abs=1e-3)
    assert (jumped.outcome >= 0).all()
    if options["num_clients"] is not None and options["replicas"] > 1:
        # What is sent as an iteration begins may be seen by it, or by the next: the reason to wait is that one's.
        return
    assert jumped.sums == pytest.approx(stepped.sums, rel=1e-9, abs=1e-3)
    for ours, theirs in zip(jumped.timeline, stepped.timeline, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)
    assert jumped.limits == pytest.approx(stepped.limits, rel=1e-6, abs=1e-9, nan_ok=True)
    if jumped.totals.makespan_ns > jumped.arrival_ns.min():
        assert sum(jumped.limits) == pytest.approx(1)
        assert min(jumped.limits) >= 0
    shares = jumped.shares()
    if shares.time_s and jumped.is_split:
        assert sum(shares[:5]) == pytest.approx(1)
        assert min(shares[:5]) > -1e-9


def test_a_long_answer_is_a_few_jumps_and_the_same_time():
    rows = [(0, 7, 90_000), (10**15, 3, 40_000), (10**15 + 10**6, 3, 70_000)]
    jumped, stepped = (run("paged", rows, 200_000, 2, step_by_step=step) for step in (False, True))
    assert results(jumped) == results(stepped)
    assert jumped.totals == stepped.totals
    assert jumped.totals.num_iterations > 160_000
    assert jumped.sums == pytest.approx(stepped.sums, rel=1e-9)


def test_round_robin_is_each_share_by_itself():
    rng = np.random.default_rng(3)
    rows = sorted(zip(rng.integers(0, 9_000, 40).tolist(), rng.integers(1, 30, 40).tolist(), [9] * 40, strict=True))
    together = run("dynamic", rows, 60, 3, replicas=3)
    assert together.replica.tolist() == [number % 3 for number in range(40)]
    for replica in range(3):
        alone = results(run("dynamic", rows[replica::3], 60, 3))
        assert {name: column[replica::3] for name, column in results(together).items()} == alone


def test_requests_are_routed_some_before_they_come_to_the_same_end():
    rng = np.random.default_rng(5)
    arrivals = np.sort(rng.integers(0, 25_000_000, 2 * AHEAD + 100))
    rows = np.stack([arrivals, *rng.integers(1, 24, (2, arrivals.size))], axis=1).tolist()
    before, arriving = (run("paged", rows, 60, 3, routing=each) for each in ("round_robin", "least_loaded"))
    assert results(before) == results(arriving)
    assert before.totals == arriving.totals
    assert before.totals.num_preemptions > 0
    assert before.sums == pytest.approx(arriving.sums, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_least_loaded_routes_to_the_least_of_what_is_not_finished(seed):
    rng = np.random.default_rng(seed)
    rows = sorted(zip(rng.integers(0, 9_000, 60).tolist(), rng.integers(1, 30, 60).tolist(), [9] * 60, strict=True))
    num_replicas = 4
    result = run("paged", rows, 60, 3, replicas=num_replicas, routing="least_loaded")
    last = num_replicas - 1
    for number, (arrival, _, _) in enumerate(rows):
        before = result.replica[:number][result.finish_ns[:number] > arrival]
        loads = np.bincount(before, minlength=num_replicas)
        turns = [(last + 1 + step) % num_replicas for step in range(num_replicas)]
        assert result.replica[number] == min(turns, key=lambda replica: loads[replica])
        last = int(result.replica[number])
    for replica in range(num_replicas):
        own = result.replica == replica
        alone = results(run("paged", [row for row, is_own in zip(rows, own, strict=True) if is_own], 60, 3))
        assert {name: np.array(column)[own].tolist() for name, column in results(result).items()} == alone


def test_the_queue_over_time_is_the_requests_waits():
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.integers(0, 900, 300)).tolist()
    rows = list(zip(arrivals, rng.integers(1, 30, 300).tolist(), rng.integers(0, 24, 300).tolist(), strict=True))
    result = run("paged", rows, 5_000, 2)  # blocks are reserved in steps: admission takes no time, none is preempted
    waited_ns = (result.admitted_ns - np.array(arrivals)).sum()
    assert waited_ns > 0
    assert result.timeline.queue.sum() * result.timeline.bin_ns == pytest.approx(waited_ns)
    time_ps = result.sums.sum(axis=0)[0]
    assert result.timeline.busy.sum() * result.timeline.bin_ns * PS_PER_NS == pytest.approx(time_ps)


def level_over_time(starts, ends, weights, bin_ns, num_bins):
    """Of intervals, each with a weight: the mean of what there is in each bin, and the most."""
    moments = np.unique(np.concatenate([starts, ends, np.arange(num_bins + 1) * bin_ns]))
    own = moments[:-1] // bin_ns
    changes = np.zeros(moments.size)
    np.add.at(changes, np.searchsorted(moments, starts), weights)
    np.subtract.at(changes, np.searchsorted(moments, ends), weights)
    levels, inside = np.cumsum(changes)[:-1], own < num_bins
    mean, most = np.zeros(num_bins), np.zeros(num_bins)
    np.add.at(mean, own[inside], (levels * np.diff(moments))[inside] / bin_ns)
    np.maximum.at(most, own[inside], levels[inside])
    return mean, most


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, slots=st.integers(54, 300), max_batch=BATCH, after=st.integers(0, 20_000))
def test_a_timeline_is_what_was(rows, slots, max_batch, after):
    """Under static, whose slots are taken at admission and kept to the end: by the requests' own times."""
    columns = columns_of([*rows, (rows[0][0] + after, 3, 3)])
    free = ROUND._replace(storage_ps=0)  # so that who is admitted begins at once
    length = 54
    budget_bytes = slots * SLOT_BYTES
    result = simulate(
        columns, Static(max_seq_len=length), free, geometry=GEOMETRY, budget_bytes=budget_bytes, max_batch=max_batch
    )
    over, ran = result.timeline, result.admitted_ns >= 0
    size = (over.bin_ns, len(over.used))
    lived = result.admitted_ns[ran], result.finish_ns[ran]
    batch, most_batch = level_over_time(*lived, np.ones(ran.sum()), *size)
    assert np.allclose(over.batch, batch)
    assert np.array_equal(over.most_batch, most_batch)
    assert np.allclose(over.allocated, batch * length * SLOT_BYTES)
    assert np.array_equal(over.most_allocated, most_batch * length * SLOT_BYTES)
    waited = columns.arrival_ns[ran], result.admitted_ns[ran]
    queue, most_queue = level_over_time(*waited, np.ones(ran.sum()), *size)
    assert np.allclose(over.queue, queue)
    assert np.array_equal(over.most_queue, most_queue)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH, options=OPTIONS)
def test_a_timeline_never_passes_what_there_is(name, rows, slots, max_batch, options):
    result = run(name, rows, slots, max_batch, **options)
    over, replicas = result.timeline, options["replicas"]
    for mean, most, cap in (
        (over.used, over.most_used, over.most_allocated),
        (over.allocated, over.most_allocated, np.float64(result.limit_bytes)),
        (over.batch, over.most_batch, np.float64(replicas * max_batch)),
        (over.queue, over.most_queue, np.float64(len(rows))),
    ):
        assert (mean >= 0).all()
        assert (mean <= most).all()
        assert (most <= cap).all()
    assert (over.allocated + over.blocked_free <= result.limit_bytes).all()
    assert over.busy.max() <= replicas * (1 + 1e-12)
    assert over.most_allocated.max() <= replicas * result.totals.peak_bytes
    # Together the stretches are the run.
    means = np.array([over.busy, over.used, over.allocated, over.batch]) * over.bin_ns * PS_PER_NS
    assert means.sum(axis=1) == pytest.approx(result.sums.sum(axis=0)[[0, 1, 2, 4]])
