"""Admission, the clock, preemption and outcomes, with steps whose times are given."""

import pytest

from kvbench.frames import requests_frame, steps_frame
from kvbench.ledger import OutOfMemory
from kvbench.ops import Append, Reserve, append_plan
from kvbench.runner import run
from kvbench.strategy.base import resize_and_append
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.predictive import Predictive
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY
from tests.support.fake import MS, Fake

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
    return steps, requests_frame(recorder, steps, requests)


def phases(steps, request):
    own = steps[steps["request"] == request]
    return [f"{row.phase} {row.num_tokens}" for row in own.itertuples()]


def test_first_token_comes_with_the_prefill_and_the_last_step_brings_none():
    # 50 ms of prefill, then three steps of 10 ms: tokens are out at 50, 60 and 70 ms; the last K and V at 80 ms.
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20, 3),))])
    row = requests.iloc[0]
    assert row["ttft_s"] == pytest.approx(0.050, abs=0.002)
    assert row["tpot_s"] == pytest.approx(0.010, abs=0.001)
    assert row["latency_s"] == pytest.approx(0.080, abs=0.002)
    assert row["queue_s"] == pytest.approx(0, abs=0.002)


def test_a_request_without_decode_has_no_ttft_and_one_token_has_no_tpot():
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20), Request(30))), Session(0, (Request(20, 1),))])
    assert requests["ttft_s"].isna().tolist() == [True, False]
    assert requests["tpot_s"].isna().tolist() == [True, True]


def test_an_iteration_steps_every_live_request_and_its_tokens_are_out_at_its_end():
    # Both prefills are one iteration of 100 ms; then iterations of 20 ms.
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20, 2),)), Session(0, (Request(20, 2),))])
    assert requests["ttft_s"].tolist() == pytest.approx([0.1, 0.1], abs=0.004)
    assert requests["tpot_s"].tolist() == pytest.approx([0.02, 0.02], abs=0.002)


def test_idle_time_is_skipped_and_counted():
    hour_ns = 3600 * 1000 * MS
    steps, requests = result(
        Exact(round_to=1),
        [Session(0, (Request(20, 1), Request(5, 1, think_ns=hour_ns))), Session(hour_ns * 3, (Request(9),))],
    )
    assert steps["end_s"].iloc[-1] == pytest.approx(3 * 3600 + 0.05, abs=0.01)
    assert steps["idle_us"].sum() / 1e6 == pytest.approx(3 * 3600, abs=1)
    assert requests["latency_s"].tolist() == pytest.approx([3600.12, 0.05], abs=0.02)


def test_concurrency_is_limited_and_admission_is_in_order_of_arrival():
    requests = [Session(index, (Request(10, 2),)) for index in range(4)]
    steps, frame = result(Exact(round_to=1), requests, max_concurrency=2)
    assert steps["num_live"].max() == 2
    assert frame["queue_s"].is_monotonic_increasing
    assert frame["queue_s"].iloc[2] == pytest.approx(0.140, abs=0.01)  # after the first two: 100 + 20 + 20 ms


def test_who_does_not_fit_waits():
    # Each reserves 30 of 50 slots at admission: the second waits until the first has finished.
    steps, frame = result(
        Static(max_seq_len=30), [Session(0, (Request(10, 2),)), Session(0, (Request(10, 2),))], slots=50
    )
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 0]
    assert frame["queue_s"].tolist() == pytest.approx([0, 0.07], abs=0.01)
    assert steps["allocated_bytes"].max() == 30 * TOKEN


def test_the_youngest_is_preempted_and_computed_again():
    # Two caches of 20 grow by a token a step; at 25 + 25 of 50 slots (and a transient) the older one needs more.
    requests = [Session(0, (Request(20, 12),)), Session(1, (Request(20, 12),))]
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
    requests = [Session(0, (Request(80, 2),)), Session(0, (Request(10, 2),))]
    _, frame = result(Concat(), requests, slots=50)
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]


def test_a_decoding_request_that_outgrows_the_budget_alone_keeps_what_it_held():
    _, frame = result(Concat(), [Session(0, (Request(30, 40),))], slots=50)
    assert frame["outcome"].tolist() == ["out_of_memory"]
    assert 30 < frame["held_tokens"].iloc[0] < 50


def test_a_prediction_does_not_make_a_request_run_out_of_memory():
    # Nine appends of ten tokens: 90 of 150 slots. The first prediction is "held plus 100", more than there is room for.
    kwargs = {"initial_capacity": 8, "growth_factor": 1.5, "max_capacity": 8192, "round_to": 1, "history_window": 10}
    requests = [Session(0, (Request(10),) * 9), Session(0, (Request(10),) * 9)]
    for rule in ("total", "append"):
        _, frame = result(Predictive(rule=rule, **kwargs), requests, slots=150)
        assert frame["outcome"].tolist() == ["completed", "completed"]


def test_an_append_that_is_planned_twice_is_remembered_once():
    strategy = Predictive(
        initial_capacity=8, growth_factor=1.5, max_capacity=8192, round_to=1, history_window=10, rule="total"
    )
    seen = []
    forget = strategy.on_finish
    strategy.on_finish = lambda seq, view: (seen.append((seq, list(strategy._lengths[seq]))), forget(seq, view))[1]
    result(strategy, [Session(0, (Request(10),) * 9), Session(0, (Request(10),) * 9)], slots=150)
    assert max(len(lengths) for _, lengths in seen) == 9


class Giving(Static):
    """Reserves more than it needs, and gives the rest back under pressure."""

    def on_pressure(self, seq, need_bytes, view):
        for other in range(2):
            if view.is_open(other) and view.capacity(other) > view.num_used(other) > 0:
                return (Reserve(other, view.num_used(other)),)
        return ()


def test_a_strategy_may_give_memory_back_before_anybody_is_preempted():
    # The first holds 30 of 45 slots and uses 20; the second wants 30 at its admission, and gets them when 10 are given.
    class Wanting(Giving):
        def on_admit(self, seq, request, view):
            return super().on_admit(seq, request, view) if seq == 0 else ()

        def on_append(self, seq, num_tokens, view):
            if view.capacity(seq) >= view.num_used(seq) + num_tokens:
                return append_plan(seq, num_tokens)
            return resize_and_append(seq, view.num_used(seq) + num_tokens, num_tokens)

    steps, frame = result(
        Wanting(max_seq_len=30), [Session(0, (Request(20, 1),)), Session(0, (Request(20, 1),))], slots=46
    )
    assert "relieve" in steps["phase"].tolist()
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].sum() == 0


def test_a_device_that_refuses_memory_is_an_outcome():
    class Full(Fake):
        def step(self, plan, seq, num_queries, continued=False):
            if any(isinstance(op, Append) and op.num_tokens == 99 for op in plan):
                raise OutOfMemory(99 * TOKEN, None)
            return super().step(plan, seq, num_queries, continued)

    requests = [Session(0, (Request(99, 2),)), Session(0, (Request(10, 2),))]
    recorder = run(
        {"it": Concat()}, requests, Full(), num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None
    )
    assert {row.request: row.outcome for row in recorder.requests} == {0: "out_of_memory", 1: "completed"}


def test_a_request_that_fails_while_decoding_keeps_its_tokens():
    # 30 tokens of prefill in 31 slots: one step of decode fits, and brings the second token; the next does not.
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=31, round_to=1)
    steps, frame = result(dynamic, [Session(0, (Request(30, 40),))])
    assert frame["outcome"].tolist() == ["too_long"]
    assert steps["output_tokens"].sum() == 2
    assert frame["ttft_s"].tolist() == pytest.approx([0.05], abs=0.002)
    assert frame["tpot_s"].tolist() == pytest.approx([0.01], abs=0.001)


def test_longer_than_the_strategy_holds_is_an_outcome():
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=32, round_to=1)
    _, frame = result(dynamic, [Session(0, (Request(30, 8),)), Session(0, (Request(10, 2),))])
    assert frame["outcome"].tolist() == ["too_long", "completed"]
    assert frame["held_tokens"].tolist() == [32, 12]


def test_repetitions_are_interleaved_and_rotated():
    backend = Fake()
    recorder = run(
        {"a": Concat(), "b": Concat()},
        [Session(0, (Request(3),))],
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
        ({"sessions": []}, "no request to run"),
        ({"strategies": {}}, "no strategy to run"),
    ],
)
def test_bad_numbers_are_refused(changed, words):
    arguments = {"strategies": {"a": Concat()}, "sessions": [Session(0, (Request(1),))], "backend": Fake()}
    arguments |= {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None} | changed
    with pytest.raises(ValueError, match=words):
        run(**arguments)
