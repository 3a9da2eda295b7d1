"""From rows to numbers, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.model.geometry import KVGeometry
from kvbench.results.intervals import half_width, of_row
from kvbench.results.schema import REQUESTS, STEPS, SUMMARY
from kvbench.results.statistics import percentile
from kvbench.results.summary import summary_frame
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.support.fake import Fake

ARTICLE = KVGeometry.uniform(num_layers=1, num_heads=32, num_kv_heads=32, head_dim=128, dtype="float32")
TOKEN = 32 * 1024
MIB = 1 << 20
APPENDS = (50, 100, 150, 200, 250, 300)


@pytest.fixture(scope="module")
def frames():
    requests = [Session(0, tuple(Request(count) for count in APPENDS))]
    strategies = {
        "dynamic": Dynamic(initial_capacity=256, growth_factor=1.5, max_capacity=8192, round_to=1),
        "static": Static(max_seq_len=8192),
        "concat": Concat(),
        "short": Static(max_seq_len=200),
        "paged": Paged(block_size=16, pool_tokens=2048),
    }
    backend = Fake(ARTICLE)
    recorder = run(strategies, requests, backend, num_repetitions=3, num_warmup=1, max_concurrency=1, budget_bytes=None)
    steps = steps_frame(recorder)
    by_request = requests_frame(recorder, steps, requests)
    about = {"scenario": "short_chat", "source": "measured", "scope": "cache", "slot_bytes": TOKEN}
    summary = summary_frame(steps, by_request, copy_bandwidth_bytes_per_s=1e10, **about)
    return steps, by_request, summary.set_index("strategy")


def test_frames_have_the_columns_of_the_schema(frames):
    steps, requests, summary = frames
    assert list(steps.columns) == list(STEPS)
    assert list(requests.columns) == list(REQUESTS)
    assert ["scenario", "strategy", *summary.columns[1:]] == list(SUMMARY)


def test_dynamic_on_short_chat_by_hand(frames):
    row = frames[2].loc["dynamic"]
    # Capacities after each append: 256 256 384 576 864 1296; held: 50 150 300 500 750 1050.
    assert row["peak_bytes"] == (1296 + 432) * TOKEN
    assert row["peak_allocated_bytes"] == 1296 * TOKEN
    assert row["cumulative_bytes"] == (256 + 384 + 576 + 864 + 1296) * TOKEN
    allocated = 50 * 256 + 100 * 256 + 150 * 384 + 200 * 576 + 250 * 864 + 300 * 1296
    used = 50 * 50 + 100 * 150 + 150 * 300 + 200 * 500 + 250 * 750 + 300 * 1050
    assert row["mean_allocated_bytes"] == pytest.approx(allocated / 1050 * TOKEN)
    assert row["utilization_mean"] == pytest.approx(used / allocated)
    assert row["utilization_peak"] == pytest.approx(500 / 576)
    assert row["utilization_final"] == pytest.approx(1050 / 1296)
    # Only the last capacity is more than the request's 1,050 tokens.
    assert row["waste_share"] == pytest.approx(300 * 246 / allocated)
    assert row["reserved_share"] == pytest.approx((allocated - used - 300 * 246) / allocated)
    assert (row["num_resizes"], row["copied_bytes"]) == (4, 1700 * TOKEN)
    assert row["num_tokens"] == 1050
    assert row["efficiency"] == pytest.approx((500 / 576) / (3376 * TOKEN / MIB / 1000))
    assert row["total_s"] == pytest.approx(6 * 0.05, rel=0.02)
    assert row["tokens_per_s"] == pytest.approx(3500, rel=0.02)


def test_stalls_are_what_resizes_take_and_admissions_what_the_first_reserve(frames):
    steps, requests, _ = frames
    times_us = np.where(steps["num_resizes"] > 0, 1_000, np.where(steps["phase"] == "admit", 300, 20))
    about = {"scenario": "x", "source": "measured", "scope": "cache", "slot_bytes": TOKEN}
    summary = summary_frame(steps.assign(reserve_us=times_us), requests, copy_bandwidth_bytes_per_s=1e10, **about)
    row = summary.set_index("strategy").loc["dynamic", ["stall_s", "admit_s", "allocation_s"]]
    assert row.tolist() == pytest.approx([4 * 0.001, 0.0003, 4 * 0.001 + 0.0003])


def test_what_reading_takes_is_allocated_too(frames):
    # Whole blocks of 16, weighted by the tokens appended, and a buffer of 1,024 tokens of the one layer to gather into.
    blocks = 50 * 64 + 100 * 160 + 150 * 304 + 200 * 512 + 250 * 752 + 300 * 1056
    row = frames[2].loc["paged"]
    assert row["workspace_bytes"] == 1024 * TOKEN
    assert row["mean_allocated_bytes"] == pytest.approx((blocks / 1050 + 1024) * TOKEN)


def test_shares_add_up(frames):
    summary = frames[2]
    done = summary.loc[["dynamic", "static", "concat"]]
    assert (done["utilization_mean"] + done["reserved_share"] + done["waste_share"]).tolist() == pytest.approx(
        [1, 1, 1]
    )


def test_what_failed_is_in_the_row(frames):
    assert frames[2].loc["short", "outcome"] == "too_long 1 of 6, unreached 3 of 6"
    assert frames[2].loc["short", ["num_sessions", "num_requests", "num_completed"]].tolist() == [1, 6, 2]
    assert frames[2].loc["short", "num_tokens"] == 150
    assert frames[2].loc["static", "outcome"] == "completed"


def test_warmup_is_kept_in_the_rows_and_left_out_of_the_summary(frames):
    steps, _, summary = frames
    assert steps.loc[steps["warmup"], "repetition"].unique().tolist() == [0]
    assert summary.loc["static", "cumulative_bytes"] == 8192 * TOKEN


def test_a_percentile_needs_ten_samples_beyond_it(frames):
    row = frames[2].loc["dynamic"]  # 6 steps in 3 repetitions: 18 samples
    assert math.isnan(row["step_p50_us"])
    assert row["step_max_us"] >= row["step_mean_us"] > 0
    samples = np.arange(1000.0)
    assert percentile(samples[:20], "p50") == 9.5
    assert math.isnan(percentile(samples[:19], "p50"))
    assert not math.isnan(percentile(samples[:100], "p90"))
    assert math.isnan(percentile(samples[:99], "p90"))
    assert not math.isnan(percentile(samples, "p99"))
    assert math.isnan(percentile(samples[:999], "p99"))


def test_confidence_interval_by_hand():
    # Mean 3, s = √2.5, t(4) = 2.132.
    assert half_width([1, 2, 3, 4, 5]) == pytest.approx(2.132 * math.sqrt(2.5 / 5))
    assert math.isnan(half_width([1.0]))
    assert math.isnan(half_width([1.0, math.nan]))


def test_the_ends_of_an_interval_by_hand():
    row = {"source": "measured", "total_s": 3.0, "tokens_per_s": 8.0}
    found = of_row(row, ["total_s", "tokens_per_s", "none"], {"total_s": [1, 2, 3, 4, 5], "tokens_per_s": [8.0]})
    # 2.132 · √2.5 / √5 = 1.5076
    assert (found["total_s_low"], found["total_s_high"]) == pytest.approx((1.4924, 4.5076), abs=1e-4)
    assert math.isnan(found["tokens_per_s_low"])
    assert found["interval_from"] == "repetitions"
    assert of_row(row, ["total_s"], {"total_s": [3.0]})["interval_from"] is None
    # A normal error whose mean distance is 10 % has a standard deviation of 12.53 %, and 90 % within 20.62 %.
    found = of_row(row | {"source": "modelled", "step_error": 0.1}, ["total_s"], {"total_s": [3.0]})
    assert (found["total_s_low"], found["total_s_high"]) == pytest.approx((2.3815, 3.6185), abs=1e-4)
    assert found["interval_from"] == "validation"


@given(st.integers(2, 60), st.integers(0, 99))
def test_confidence_interval_covers_about_as_often_as_it_says(num_values, seed):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(1500, num_values))
    covered = [abs(row.mean()) <= half_width(row) for row in samples]
    assert 0.86 <= np.mean(covered) <= 0.94  # five standard deviations of a share of so many
