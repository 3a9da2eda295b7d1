"""Admission, the clock, preemption and outcomes, with steps whose times are given."""

import pytest

from kvbench.ledger import OutOfMemory
from kvbench.plan.ops import Append, Reserve, append_plan
from kvbench.results.columns import LIMITS
from kvbench.results.summary import limit_shares, sessions_frame
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.base import resize_and_append
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
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
    own = steps[steps["session"] == request]
    return [f"{row.phase} {row.num_tokens}" for row in own.itertuples()]


def test_n_output_tokens_are_the_prefills_and_those_of_n_minus_1_steps():
    # 50 ms of prefill, then two steps of 10 ms: tokens are out at 50, 60 and 70 ms.
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20, 3),))])
    row = requests.iloc[0]
    assert row[["queue_s", "ttft_s", "tpot_s", "latency_s"]].tolist() == pytest.approx([0, 0.050, 0.010, 0.070])
    assert row["held_tokens"] == 22  # the third token's K and V are never written


def test_the_last_token_of_an_answer_is_written_by_the_next_prefill():
    # Prompts of 20, 7 and 5 tokens, answers of 3, 1 and none: 20 + 2 steps, then 7 + 1 owed, then 5 + 1 owed.
    steps, requests = result(Exact(round_to=1), [Session(0, (Request(20, 3), Request(7, 1), Request(5)))])
    own = ["admit 0", "prefill 20", "decode 1", "decode 1", "prefill 8", "prefill 6", "finish 0"]
    assert phases(steps, 0) == own
    assert steps["prompt_tokens"].tolist() == [0, 20, 0, 0, 7, 5, 0]
    assert steps["output_tokens"].tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert requests["held_tokens"].tolist() == [22, 30, 36]
    assert steps["capacity_tokens"].max() == 36  # what an oracle reserves


def test_a_request_without_decode_has_no_ttft_and_one_token_has_no_tpot():
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20), Request(30))), Session(0, (Request(20, 1),))])
    assert requests["ttft_s"].isna().tolist() == [True, True, False]
    assert requests["tpot_s"].isna().tolist() == [True, True, True]


def test_an_iteration_steps_every_live_request_and_its_tokens_are_out_at_its_end():
    # Both prefills are one iteration of 100 ms; then iterations of 20 ms.
    _, requests = result(Exact(round_to=1), [Session(0, (Request(20, 2),)), Session(0, (Request(20, 2),))])
    assert requests["ttft_s"].tolist() == pytest.approx([0.1, 0.1])
    assert requests["tpot_s"].tolist() == pytest.approx([0.02, 0.02])


def test_idle_time_is_skipped_and_counted():
    hour_ns = 3600 * 1000 * MS
    steps, requests = result(
        Exact(round_to=1),
        [Session(0, (Request(20, 1), Request(5, 1, think_ns=hour_ns))), Session(hour_ns * 3, (Request(9),))],
    )
    assert steps["end_s"].iloc[-1] == pytest.approx(3 * 3600 + 0.05)
    assert steps["idle_us"].sum() / 1e6 == pytest.approx(3 * 3600 - 0.1)
    assert requests["arrival_s"].tolist() == pytest.approx([0, 3600.05, 3 * 3600])
    assert requests["latency_s"].tolist() == pytest.approx([0.05, 0.05, 0.05])
    assert sessions_frame(requests)["latency_s"].tolist() == pytest.approx([3600.1, 0.05])


def test_concurrency_is_limited_and_admission_is_in_order_of_arrival():
    requests = [Session(index, (Request(10, 3),)) for index in range(4)]
    steps, frame = result(Exact(round_to=1), requests, max_concurrency=2)
    assert steps["num_live"].max() == 2
    assert frame["queue_s"].is_monotonic_increasing
    assert frame["queue_s"].iloc[2] == pytest.approx(0.130)  # the first is done after 50 + 10 + 50 + 10 + 10 ms


def test_who_is_computed_with_others_waits_for_the_start_of_their_iteration():
    # What came during the first one's prefill of 50 ms is computed from then on, and all of it takes 10 + 50 + 50 ms.
    requests = [Session(0, (Request(20, 3),)), *(Session(5_000_000, (Request(50, 1),)) for _ in range(2))]
    _, frame = result(Exact(round_to=1), requests)
    assert frame["queue_s"].tolist() == pytest.approx([0, 0.045, 0.045])
    assert frame["ttft_s"].tolist() == pytest.approx([0.050, 0.155, 0.155])


def test_who_does_not_fit_waits():
    # Each reserves 30 of 50 slots at admission: the second waits until the first has finished.
    steps, frame = result(
        Static(max_seq_len=30), [Session(0, (Request(10, 2),)), Session(0, (Request(10, 2),))], slots=50
    )
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 0]
    assert frame["queue_s"].tolist() == pytest.approx([0, 0.06])
    assert steps["allocated_bytes"].max() == 30 * TOKEN


def test_the_youngest_is_preempted_and_computed_again():
    # Two caches of 20 grow by a token a step; at 25 + 25 of 50 slots (and a transient) the older one needs more.
    requests = [Session(0, (Request(20, 12),)), Session(1, (Request(20, 12),))]
    steps, frame = result(Concat(), requests, slots=50)
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 1]
    assert frame["held_tokens"].tolist() == [31, 31]
    again = steps[(steps["phase"] == "recompute")]
    assert again["session"].tolist() == [1]
    lost = again["num_tokens"].iloc[0]
    decoded = [text for text in phases(steps, 1) if text.startswith("decode")]
    assert len(decoded) == 11
    assert 20 < lost < 31
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
        assert frame["outcome"].tolist() == ["completed"] * 18


def test_an_append_that_is_planned_twice_is_remembered_once():
    class Noted(Predictive):
        def on_finish(self, seq, view):
            seen.append((seq, list(self._lengths[seq])))
            return super().on_finish(seq, view)

    seen = []
    result(
        Noted(initial_capacity=8, max_capacity=8192),
        [Session(0, (Request(10),) * 9), Session(0, (Request(10),) * 9)],
        slots=150,
    )
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
        Wanting(max_seq_len=30), [Session(0, (Request(20, 3),)), Session(0, (Request(20, 1),))], slots=46
    )
    assert "relieve" in steps["phase"].tolist()
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].sum() == 0


def test_a_device_that_refuses_memory_is_an_outcome():
    class Full(Fake):
        def step(self, booking, num_queries, continued=False):
            if any(isinstance(op, Append) and op.num_tokens == 99 for op in booking.plan):
                raise OutOfMemory(99 * TOKEN, None)
            return super().step(booking, num_queries, continued)

    requests = [Session(0, (Request(99, 2),)), Session(0, (Request(10, 2),))]
    recorder = run(
        {"it": Concat()}, requests, Full(), num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None
    )
    assert {row.session: row.outcome for row in recorder.requests} == {0: "out_of_memory", 1: "completed"}


def test_a_request_that_fails_while_decoding_keeps_its_tokens():
    # 30 tokens of prefill in 31 slots: one step of decode fits, with the second token; the next does not.
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=31, round_to=1)
    steps, frame = result(dynamic, [Session(0, (Request(30, 40),))])
    assert frame["outcome"].tolist() == ["too_long"]
    assert steps["output_tokens"].sum() == 2
    assert frame["ttft_s"].tolist() == pytest.approx([0.05])
    assert frame["tpot_s"].tolist() == pytest.approx([0.01])


def test_longer_than_the_strategy_holds_is_an_outcome():
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=32, round_to=1)
    _, frame = result(dynamic, [Session(0, (Request(30, 8),)), Session(0, (Request(10, 2),))])
    assert frame["outcome"].tolist() == ["too_long", "completed"]
    assert frame["held_tokens"].tolist() == [32, 11]


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
        ({"num_repetitions": 0}, "repetitions is a positive integer, got 0"),
        ({"num_warmup": -1}, "warmup is an integer of at least 0, got -1"),
        ({"max_concurrency": 0}, "max_concurrency is a positive integer, got 0"),
        ({"sessions": []}, "no request to run"),
        ({"strategies": {}}, "no strategy to run"),
    ],
)
def test_bad_numbers_are_refused(changed, words):
    arguments = {"strategies": {"a": Concat()}, "sessions": [Session(0, (Request(1),))], "backend": Fake()}
    arguments |= {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None} | changed
    with pytest.raises(ValueError, match=words):
        run(**arguments)


def thinking(prompt, outputs, think_ms, later=5):
    return Session(0, (Request(prompt, outputs), Request(later, outputs, think_ns=think_ms * MS)))


def test_who_is_preempted_thinks_once():
    # Two chats of two turns, a minute apart. At the second turns the caches of 31 tokens each no longer fit 80 slots.
    chats = [thinking(20, 12, 60_000, later=12), thinking(20, 12, 60_000, later=12)]
    steps, requests = result(Concat(), chats, slots=80)
    assert requests["outcome"].tolist() == ["completed"] * 4
    assert requests["num_preemptions"].tolist() == [0, 0, 0, 1]
    assert steps["idle_us"].sum() / 1e6 == pytest.approx(60 - 0.02, abs=0.05)
    assert sessions_frame(requests)["latency_s"].max() < 62
    think_s = requests["arrival_s"][[1, 3]].to_numpy() - requests["latency_s"][[0, 2]].to_numpy()
    assert think_s == pytest.approx([60, 60])


def test_who_loses_its_cache_while_it_thinks_keeps_what_it_has_waited():
    # The first thinks for ten seconds; the second comes after five, and takes its place and its memory: 40 of 50 slots.
    chats = [thinking(20, 2, 10_000), Session(5_000 * MS, (Request(40, 2),))]
    steps, requests = result(Concat(), chats, slots=70, max_concurrency=1)
    assert requests["outcome"].tolist() == ["completed"] * 3
    assert requests["arrival_s"].tolist() == pytest.approx([0, 10.06, 5])
    assert requests["queue_s"].tolist() == pytest.approx([0, 0, 0])  # a chat that thinks takes no place
    assert phases(steps, 0)[-4:] == ["recompute 21", "prefill 6", "decode 1", "finish 0"]
    assert requests["num_preemptions"].tolist() == [0, 1, 0]


def test_the_longest_idle_gives_way_first_and_before_any_live_request():
    # Two chats think, the first for longer; a third one needs the memory of one of them, twice.
    chats = [thinking(10, 1, 50_000), thinking(10, 1, 50_000), Session(1_000 * MS, (Request(30, 4),))]
    steps, requests = result(Concat(), chats, slots=55)
    assert requests["num_preemptions"].tolist() == [0, 1, 0, 0, 0]
    steps, requests = result(Concat(), chats, slots=45)
    assert requests["num_preemptions"].tolist() == [0, 1, 0, 1, 0]
    gave = steps[(steps["phase"] == "finish") & (steps["session"] < 2)]
    assert gave["session"].tolist() == [0, 1, 0, 1]


def test_any_number_of_idle_sessions_gives_way_to_one_request():
    hour_ns = 3600 * 1000 * MS
    chats = [Session(0, (Request(1, 1), Request(1, 1, hour_ns))) for _ in range(1_100)]
    steps, requests = result(Concat(), [*chats, Session(hour_ns // 2, (Request(1_100, 1),))], slots=1_101)
    assert set(requests["outcome"]) == {"completed"}
    assert requests["num_preemptions"].sum() == 1_099
    assert phases(steps, 0) == ["admit 0", "prefill 1", "finish 0", "admit 0", "recompute 1", "prefill 2", "finish 0"]


def test_relief_that_gives_nothing_is_no_relief():
    class Wanting(Concat):
        def on_pressure(self, seq, need_bytes, view):
            return (Reserve(seq, view.capacity(seq)),)

    _, requests = result(Wanting(), [Session(0, (Request(20, 12),)), Session(1, (Request(20, 12),))], slots=50)
    assert requests["outcome"].tolist() == ["completed", "completed"]
    assert requests["num_preemptions"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("requests", "given", "limits"),
    [
        # One after another: the second waits 70 ms for the first's place.
        ([(Request(20, 3),)] * 2, {"max_concurrency": 1}, {"batch": 0.07, "arrivals": 0.07}),
        # Each reserves 30 of 50 slots: the second waits 70 ms for the first's memory.
        ([(Request(20, 3),)] * 2, {"slots": 50}, {"memory": 0.07, "arrivals": 0.07}),
        # Nobody waits, a second of it in thought.
        ([(Request(20, 3), Request(5, 1, think_ns=1000 * MS))], {}, {"arrivals": 1.12}),
    ],
)
def test_what_the_next_request_waited_for_by_hand(requests, given, limits):
    steps, frame = result(Static(max_seq_len=30), [Session(0, turns) for turns in requests], **given)
    shares = limit_shares(steps, frame["latency_s"].max() if len(requests) > 1 else 1.12)
    assert shares == pytest.approx({name: limits.get(name, 0) / sum(limits.values()) for name in LIMITS})


def test_a_pool_smaller_than_the_budget_is_named():
    # 32 of the pool's 40 tokens are the first's, the budget has room: after its prefill of 50 ms the other waits 20 ms.
    paged = Paged(block_size=8, pool_tokens=40)
    steps, frame = result(paged, [Session(0, (Request(30, 3),)), Session(0, (Request(30, 3),))], slots=4000)
    assert limit_shares(steps, frame["latency_s"].max())["pool"] == pytest.approx(20 / 140)


def test_turns_that_are_not_reached_are_rows_too():
    dynamic = Dynamic(initial_capacity=8, growth_factor=2.0, max_capacity=32, round_to=1)
    _, requests = result(dynamic, [Session(0, (Request(10, 2), Request(30, 2), Request(5), Request(5)))])
    assert requests["outcome"].tolist() == ["completed", "too_long", "unreached", "unreached"]
    assert requests["arrival_s"].notna().tolist() == [True, True, False, False]
    row = sessions_frame(requests).iloc[0]
    assert row[["outcome", "num_turns", "num_completed", "held_tokens"]].tolist() == ["too_long", 4, 1, 11]
