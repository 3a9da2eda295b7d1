"""A fleet whose requests keep no rows: the same figures, in memory that does not grow with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.charts.catalogue import fleet_charts
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import blocks, simulate
from kvbench.fleet.histogram import Histogram, SampleList
from kvbench.fleet.state import OUTCOMES
from kvbench.fleet.sums import Objective, RequestSums
from kvbench.results.results import load
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from tests.support.fleet_models import PRICES, SLOT_BYTES, columns_of
from tests.support.machines import GEOMETRY

MAKERS = {
    "paged": lambda slots: Paged(block_size=4, pool_tokens=slots // 4 * 4),
    "dynamic": lambda slots: Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=48, round_to=4),
    "static": lambda slots: Static(max_seq_len=32),
}
STAGING = 512
ROWS = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 30), st.integers(0, 24)), min_size=1, max_size=14)
OPTIONS = st.fixed_dictionaries(
    {
        "max_batch": st.integers(1, 6),
        "repeats": st.integers(1, 9),
        "scheduling": st.sampled_from([Scheduling(), Scheduling(4), Scheduling(4, mixes=False)]),
        "preemption": st.sampled_from(["recompute", "swap"]),
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(["round_robin", "least_loaded"]),
        "split": st.booleans(),
        "num_clients": st.sampled_from([None, 1, 3, 40]),
    }
)
PERCENT = 0.005


def run(name, rows, slots, num_clients=None, **options):
    budget_bytes = (slots + STAGING * (name == "paged")) * SLOT_BYTES
    chosen = {"geometry": GEOMETRY, "budget_bytes": budget_bytes, "max_batch": 4}
    return simulate(columns_of(rows, num_clients), MAKERS[name](slots), PRICES, **chosen | options)


def rows_of(parts):
    """The requests of several hands, in order of replica and end."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in blocks.Served.__annotations__}
    order = np.lexsort((columns["finish_order"], columns["replica"]))
    return {name: column[order].tolist() for name, column in columns.items()}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, slots=st.integers(20, 120), options=OPTIONS, block=st.sampled_from([1, 7, 64]))
def test_in_blocks_the_same_becomes_of_every_request(name, rows, slots, options, block):
    parts = []
    whole = run(name, rows, slots, **options)
    folded = run(name, rows, slots, **options, fold=parts.append, block=block)
    assert rows_of(parts) == rows_of([whole])
    assert folded.totals == whole.totals
    assert folded.finish_ns.size == 0
    assert folded.sums == pytest.approx(whole.sums, rel=1e-9, abs=1e-3)
    assert folded.limits == pytest.approx(whole.limits, rel=1e-6, abs=1e-9, nan_ok=True)
    for ours, theirs in zip(folded.timeline, whole.timeline, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)
    # And summed up by block it is what all of them come to at once.
    objective = Objective(2e-6, 5e-7)
    at_once, summed = RequestSums(OUTCOMES, objective, SampleList), RequestSums(OUTCOMES, objective)
    at_once.add(whole)
    for part in parts:
        summed.add(part)
    exact = ("num_requests", "num_completed", "num_preemptions", "num_tokens", "num_within", "makespan_s")
    assert [getattr(summed, name) for name in exact] == [getattr(at_once, name) for name in exact]
    assert summed.counts.tolist() == at_once.counts.tolist()
    ours, theirs = summed.latencies(), at_once.latencies()
    assert ours == pytest.approx(theirs, rel=PERCENT, abs=0, nan_ok=True)
    means, most = ([name for name in theirs if f"_{kind}_s" in name] for kind in ("mean", "max"))
    assert [ours[name] for name in means] == pytest.approx([theirs[name] for name in means], rel=1e-12, nan_ok=True)
    assert [ours[name] for name in most] == pytest.approx([theirs[name] for name in most], rel=0, abs=0, nan_ok=True)


TIMES = st.one_of(st.just(0.0), st.floats(2.0**-70, 2.0**30))


@given(st.lists(TIMES, min_size=1, max_size=20), st.integers(1, 200), st.integers(1, 50))
def test_a_percentile_of_a_histogram_is_within_half_a_percent(values, times, cut):
    samples = np.array(values * times)
    exact, counted = SampleList(), Histogram()
    exact.add(samples)
    counted.add(samples[:cut])
    counted.add(samples[cut:])
    for name in ("p50", "p90", "p99", "mean"):
        assert counted.statistic(name) == pytest.approx(exact.statistic(name), rel=PERCENT, abs=0, nan_ok=True)
    assert counted.statistic("max") == samples.max()


def test_the_ends_of_the_clock_have_a_bin():
    for value in (1e-9 / 2**40, 2**60 / 1e9):
        counted = Histogram()
        counted.add(np.repeat([value, value * 0.9], [30, 1]))
        assert counted.statistic("p50") == pytest.approx(value, rel=PERCENT)
    assert np.isnan(Histogram().statistic("mean"))


@pytest.mark.parametrize("routing", ["round_robin", "least_loaded"])
def test_the_table_does_not_grow_with_the_trace(monkeypatch, routing):
    sizes = []

    def watched(tables, arriving, *rest):
        sizes.append(tables.requests.size)
        return run_kernel(tables, arriving, *rest)

    run_kernel = blocks.run
    monkeypatch.setattr(blocks, "run", watched)
    rows = [(i * 200_000, 5 + i % 7, 3 + i % 5) for i in range(20)]
    most = []
    for repeats in (2, 40):
        sizes.clear()
        parts = []
        run("paged", rows, 120, repeats=repeats, replicas=2, routing=routing, fold=parts.append, block=8)
        assert sum(part.outcome.size for part in parts) == 20 * repeats
        most.append(max(sizes))
    assert most[0] == most[1] <= 16


def test_a_run_without_rows_says_the_same(kvbench, tmp_path):
    rows = [f"{i * 0.05},{20 + 31 * i % 700},{5 + i % 90}" for i in range(150)]
    (tmp_path / "plain.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows))
    line = ["+scenario=plain_trace", "scenario.path=plain.csv", "strategy=[paged,static]", "backend.repeats=10"]
    fleet = ["backend=fleet", "hardware=h100", "model=llama3_8b", "backend.ttft_objective_s=0.02"]
    outs = [kvbench(*line, *fleet, f"backend.keep={keep}") for keep in ("requests", "summary")]
    assert [out.count("percentiles within 0.5 %") for out in outs] == [0, 1]
    whole, kept = (load(folder) for folder in sorted((tmp_path / "results" / "plain_trace").iterdir()))
    assert kept.summary.columns.tolist() == whole.summary.columns.tolist()
    for column in whole.summary:
        ours, theirs = kept.summary[column], whole.summary[column]
        if theirs.dtype.kind != "f":
            assert ours.tolist() == theirs.tolist()
            continue
        is_percentile = any(f"_{name}_s" in column for name in ("p50", "p90", "p99"))
        assert ours.tolist() == pytest.approx(theirs.tolist(), rel=PERCENT if is_percentile else 1e-9, nan_ok=True)
    assert whole.summary["ttft_p99_s"].notna().all()
    assert 0 < whole.summary["attained_share"].min() < 1
    for name in ("requests", "sessions"):
        ours, theirs = getattr(kept, name), getattr(whole, name)
        assert (len(ours), len(theirs)) == (0, 3_000)
        assert set(ours.columns) >= set(theirs.columns)
    times = kept.timeline.drop(columns="strategy")
    assert np.allclose(times, whole.timeline.drop(columns="strategy"), equal_nan=True)
    assert {chart.name for chart in fleet_charts(kept.summary, kept.requests, kept.timeline)} == {
        "fleet_service",
        "fleet_memory",
        "fleet_load",
    }
