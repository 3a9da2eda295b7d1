"""From a fleet's columns to rows, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kvbench.fleet.frames import Objective, fleet_frames
from kvbench.results.results import Results
from kvbench.results.schema import REQUESTS, SUMMARY, TIMELINE
from tests.support.fleet_columns import GIB, MS, OBJECTIVE, S, columns, three

FOUR = {
    # One waits 1 s and has its tokens 20 ms apart; one is slow to its first; one has slow tokens; one is refused.
    "arrival_ns": np.array([1 * S, 2 * S, 3 * S, 4 * S]),
    "prompt_tokens": np.array([100, 200, 300, 400]),
    "output_tokens": np.array([11, 1, 5, 7]),
    "admitted_ns": np.array([2 * S, 2 * S, 3 * S, 4 * S]),
    "first_token_ns": np.array([2 * S + 500 * MS, 5 * S, 3 * S + 100 * MS, -1]),
    "finish_ns": np.array([2 * S + 700 * MS, 5 * S, 3 * S + 500 * MS, 4 * S]),
    "num_preemptions": np.array([0, 2, 1, 0]),
    "outcome": np.array([0, 0, 0, 1]),
    "held_tokens": np.array([110, 200, 304, 0]),
}


def four(**changed):
    return columns(num_requests=4, **(FOUR | changed))


def made(objective=OBJECTIVE, **changed) -> Results:
    return fleet_frames({"a": four(**changed)}, "chat", objective)


def test_times_of_requests_by_hand():
    requests = made().requests
    assert requests["queue_s"].tolist() == [1, 0, 0, 0]
    assert requests["ttft_s"].tolist()[:3] == pytest.approx([1.5, 3, 0.1])
    # 200 ms over 10 gaps; a single token has none; 400 ms over 4.
    assert requests["tpot_s"].tolist() == pytest.approx([0.02, math.nan, 0.1, math.nan], nan_ok=True)
    assert requests["latency_s"].tolist() == pytest.approx([1.7, 3, 0.5, 0])
    assert math.isnan(requests["ttft_s"].iloc[3])
    assert requests["outcome"].tolist() == ["completed", "completed", "completed", "too_long"]
    assert set(requests.columns) == set(REQUESTS) - {"peak_bytes"}


def test_the_summary_by_hand():
    row = made().summary.iloc[0]
    assert list(made().summary.columns) == list(SUMMARY)
    assert (row["source"], row["scope"], row["simulated_by"], row["hardware"]) == ("modelled", "model", "fleet", "H100")
    assert (row["num_requests"], row["num_completed"], row["outcome"]) == (4, 3, "too_long 1 of 4")
    assert row["makespan_s"] == pytest.approx(5 - 1)
    assert row["num_tokens"] == 111 + 201 + 305
    assert row["tokens_per_s"] == pytest.approx(617 / 4)
    assert row["requests_per_s"] == pytest.approx(3 / 4)
    assert row["num_preemptions"] == 3
    assert row["latency_mean_s"] == pytest.approx((1.7 + 3 + 0.5) / 3)
    assert row["latency_max_s"] == pytest.approx(3)
    assert row["queue_mean_s"] == pytest.approx(0.25)
    assert math.isnan(row["ttft_p50_s"]), "three samples"
    assert math.isnan(row["ttft_mean_s_low"])


@pytest.mark.parametrize(
    ("objective", "num_within"),
    [
        (Objective(1.0, 0.05), 0),  # slow to its first; slow to its first; slow tokens
        (Objective(2.0, 0.05), 1),
        (Objective(3.0, 0.05), 2),  # a request of a single token has no TPOT to be held against
        (Objective(3.0, 0.1), 3),
        (Objective(math.inf, math.inf), 3),  # the refused one is in no goodput
    ],
)
def test_goodput_counts_completed_requests_within_both_objectives(objective, num_within):
    row = made(objective).summary.iloc[0]
    assert row["goodput_per_s"] == pytest.approx(num_within / 4)
    assert row["attained_share"] == num_within / 4
    if math.isinf(objective.ttft_s):
        assert math.isnan(row["ttft_objective_s"])
    else:
        assert row["ttft_objective_s"] == objective.ttft_s


def test_shares_of_memory_are_over_time():
    # 0.4, 0.2, 0.3 and 0.1 of what is held or unusable: of the allocated 0.9, 4/9, 2/9 and 3/9.
    row = made().summary.iloc[0]
    shares = row[["utilization_mean", "reserved_share", "waste_share"]].tolist()
    assert shares == pytest.approx([4 / 9, 2 / 9, 3 / 9])
    assert row["external_share"] == pytest.approx(0.1)
    assert (row["mean_batch"], row["available_bytes"]) == (pytest.approx(5), 64 * GIB)


def test_what_was_not_told_apart_is_empty():
    row = made(is_split=False).summary.iloc[0]
    assert row[["reserved_share", "waste_share"]].isna().all()
    assert row["utilization_mean"] == pytest.approx(4 / 9)


def test_the_timeline_is_in_seconds_and_names_its_strategy():
    frames = three()
    assert list(frames.timeline.columns) == list(TIMELINE)
    assert frames.timeline["strategy"].cat.categories.tolist() == ["static", "dynamic", "paged"]
    own = frames.timeline[frames.timeline["strategy"] == "paged"]
    # The last of 40 arrives at 3.9 s, waits 0.78, has its first token 0.03 later and ends 0.36 after: 5.07 s, in 8.
    assert own["time_s"].tolist() == pytest.approx([at * 5.07 / 8 for at in range(8)])
    assert fleet_frames({"a": columns(num_bins=0)}, "chat", OBJECTIVE).timeline.empty


def test_nobody_was_served():
    nothing, arrivals = np.full(4, -1), FOUR["arrival_ns"]
    ends = {"admitted_ns": nothing, "first_token_ns": nothing, "finish_ns": arrivals}
    totals = replace(four().result.totals, busy_ns=0)
    frames = made(**ends, outcome=np.array([1, 2, 2, 1]), totals=totals, sums=np.zeros((4, 6)))
    row = frames.summary.iloc[0]
    assert frames.requests["outcome"].tolist() == ["too_long", "out_of_memory", "out_of_memory", "too_long"]
    assert (row["outcome"], row["num_completed"]) == ("out_of_memory 2 of 4, too_long 2 of 4", 0)
    assert (row["attained_share"], row["tokens_per_s"]) == (0, 0)
    assert row[["mean_batch", "ttft_mean_s", "queue_mean_s"]].isna().all()


def test_what_a_strategy_is_stands_in_its_row_and_names_columns():
    row = made(facts={"lossless": False, "pool_bytes": 7}).summary.iloc[0]
    assert (row["lossless"], row["pool_bytes"]) == (False, 7)
    with pytest.raises(ValueError, match="name columns of the summary, got resizes"):
        made(facts={"resizes": 7})
    with pytest.raises(ValueError, match="same length"):
        made(held_tokens=np.zeros(3))


def test_slots_become_bytes():
    totals = replace(four().result.totals, num_resizes=2, copied_bytes=3 * 64, moved_bytes=5 * 64)
    row = made(totals=totals).summary.iloc[0]
    assert (row["num_resizes"], row["copied_bytes"], row["moved_bytes"]) == (2, 3 * 64, 5 * 64)
