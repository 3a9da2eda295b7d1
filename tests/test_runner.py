"""Admission, the clock, preemption and outcomes, with steps whose times are given."""

import pytest

from kvbench.frames import requests_frame, steps_frame
from kvbench.runner import run
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Turn
from tests.catalogue import TINY
from tests.fake import MS, Fake

TOKEN = TINY.bytes_per_token


def result(strategy, requests, slots=None, max_concurrency=4, **kwargs):
    backend = Fake(**kwargs)
    recorder = run(
        {"it": strategy},
        requests,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=max_concurrency,
        budget_bytes=None if slots is None else slots * TOKEN,
    )
    steps = steps_frame(recorder)
    return steps, requests_frame(recorder, steps, requests, TOKEN)


def phases(steps, request):
    own = steps[steps["request"] == request]
    return [f"{row.phase} {row.num_tokens}" for row in own.itertuples()]


def test_first_token_comes_with_the_prefill_and_the_last_step_brings_none():
    # 50 ms of prefill, then three steps of 10 ms: tokens are out at 50, 60 and 70 ms; the last K and V at 80 ms.
    _, requests = result(Exact(round_to=1), [Request(0, (Turn(20, 3),))])
    row = requests.iloc[0]
    assert row["ttft_s"] == pytest.approx(0.050, abs=0.002)
    assert row["tpot_s"] == pytest.approx(0.010, abs=0.001)
    assert row["latency_s"] == pytest.approx(0.080, abs=0.002)
    assert row["queue_s"] == pytest.approx(0, abs=0.002)


def test_a_request_without_decode_has_no_ttft_and_one_token_has_no_tpot():
    _, requests = result(Exact(round_to=1), [Request(0, (Turn(20), Turn(30))), Request(0, (Turn(20, 1),))])
    assert requests["ttft_s"].isna().tolist() == [True, False]
    assert requests["tpot_s"].isna().tolist() == [True, True]


def test_an_iteration_steps_every_live_request_and_its_tokens_are_out_at_its_end():
    # Both prefills are one iteration of 100 ms; then iterations of 20 ms.
    _, requests = result(Exact(round_to=1), [Request(0, (Turn(20, 2),)), Request(0, (Turn(20, 2),))])
    assert requests["ttft_s"].tolist() == pytest.approx([0.1, 0.1], abs=0.004)
    assert requests["tpot_s"].tolist() == pytest.approx([0.02, 0.02], abs=0.002)


def test_idle_time_is_skipped_and_counted():
    hour_ns = 3600 * 1000 * MS
    steps, requests = result(
        Exact(round_to=1), [Request(0, (Turn(20, 1), Turn(5, 1, think_ns=hour_ns))), Request(hour_ns * 3, (Turn(9),))]
    )
    assert steps["end_s"].iloc[-1] == pytest.approx(3 * 3600 + 0.05, abs=0.01)
    assert steps["idle_us"].sum() / 1e6 == pytest.approx(3 * 3600, abs=1)
    assert requests["latency_s"].tolist() == pytest.approx([3600.12, 0.05], abs=0.02)


def test_concurrency_is_limited_and_admission_is_in_order_of_arrival():
    requests = [Request(index, (Turn(10, 2),)) for index in range(4)]
    steps, frame = result(Exact(round_to=1), requests, max_concurrency=2)
    assert steps["num_live"].max() == 2
    assert frame["queue_s"].is_monotonic_increasing
    assert frame["queue_s"].iloc[2] == pytest.approx(0.140, abs=0.01)  # after the first two: 100 + 20 + 20 ms


def test_who_does_not_fit_waits():
    # Each reserves 30 of 50 slots at admission: the second waits until the first has finished.
    steps, frame = result(Static(max_seq_len=30), [Request(0, (Turn(10, 2),)), Request(0, (Turn(10, 2),))], slots=50)
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 0]
    assert frame["queue_s"].tolist() == pytest.approx([0, 0.07], abs=0.01)
    assert steps["allocated_bytes"].max() == 30 * TOKEN


def test_the_youngest_is_preempted_and_computed_again():
    # Two caches of 20 grow by a token a step; at 25 + 25 of 50 slots (and a transient) the older one needs more.
    requests = [Request(0, (Turn(20, 12),)), Request(1, (Turn(20, 12),))]
    steps, frame = result(Concat(), requests, slots=50)
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 1]
    assert frame["held_tokens"].tolist() == [32, 32]
    again = steps[(steps["phase"] == "recompute")]
    assert again["request"].tolist() == [1]
    lost = again["num_tokens"].iloc[0]
    decoded = [text for text in phases(steps, 1) if text.startswith("decode")]
    assert len(decoded) == 12
    assert 20 < lost < 32
    assert (steps["allocated_bytes"] + steps["transient_bytes"]).max() <= 50 * TOKEN


def test_who_does_not_fit_alone_is_out_of_memory_and_the_rest_goes_on():
    requests = [Request(0, (Turn(80, 2),)), Request(0, (Turn(10, 2),))]
    _, frame = result(Concat(), requests, slots=50)
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]


def test_a_decoding_request_that_outgrows_the_budget_alone_keeps_what_it_held():
    _, frame = result(Concat(), [Request(0, (Turn(30, 40),))], slots=50)
    assert frame["outcome"].tolist() == ["out_of_memory"]
    assert 30 < frame["held_tokens"].iloc[0] < 50


def test_longer_than_the_strategy_holds_is_an_outcome():
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=32, round_to=1)
    _, frame = result(dynamic, [Request(0, (Turn(30, 8),)), Request(0, (Turn(10, 2),))])
    assert frame["outcome"].tolist() == ["too_long", "completed"]
    assert frame["held_tokens"].tolist() == [32, 12]


def test_repetitions_are_interleaved_and_rotated():
    backend = Fake()
    recorder = run(
        {"a": Concat(), "b": Concat()},
        [Request(0, (Turn(3),))],
        backend,
        num_repetitions=2,
        num_warmup=1,
        max_concurrency=1,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    order = steps[steps["num_tokens"] > 0][["repetition", "strategy", "warmup"]].astype(str).agg(" ".join, axis=1)
    assert order.tolist() == ["0 a True", "0 b True", "1 b False", "1 a False", "2 a False", "2 b False"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_repetitions": 0}, "repetitions is an integer of at least 1, got 0"),
        ({"num_warmup": -1}, "warmup is an integer of at least 0, got -1"),
        ({"max_concurrency": 0}, "max_concurrency is an integer of at least 1, got 0"),
        ({"requests": []}, "no request to run"),
        ({"strategies": {}}, "no strategy to run"),
    ],
)
def test_bad_numbers_are_refused(changed, words):
    arguments = {"strategies": {"a": Concat()}, "requests": [Request(0, (Turn(1),))], "backend": Fake()}
    arguments |= {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None} | changed
    with pytest.raises(ValueError, match=words):
        run(**arguments)
