"""A device that runs behind the host gives times when it is drained; they land in the rows that they belong to."""

import pytest

from kvbench.backend.base import NO_TIMES, Times
from kvbench.plan.ops import Append
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.exact import Exact
from kvbench.strategy.recompute import Recompute
from kvbench.workload.request import Request, Session
from tests.support.fake import MS, Fake


class Late(Fake):
    """Knows a step's time only when drained; a continued step adds to the one before."""

    def __init__(self):
        super().__init__()
        self.outstanding = []

    def step(self, booking, num_queries, continued=False):
        written = sum(op.num_tokens for op in booking.plan if isinstance(op, Append))
        if continued:
            self.outstanding[-1] = self.outstanding[-1]._replace(reserve_ns=7 * MS)
        else:
            self.outstanding.append(Times(0, written * MS, 0, 0))
        return NO_TIMES

    def drain(self):
        drained, self.outstanding = self.outstanding, []
        return drained


def test_late_times_land_in_their_rows():
    requests = [Session(0, (Request(3, 40),)), Session(0, (Request(5, 50),))]
    strategies = {"exact": Exact(round_to=1), "recompute": Recompute()}
    recorder = run(strategies, requests, Late(), num_repetitions=2, num_warmup=0, max_concurrency=2, budget_bytes=None)
    steps = steps_frame(recorder)
    exact = steps[steps["strategy"] == "exact"]
    assert (exact["append_us"] == exact["num_tokens"] * 1000).all()
    appended = steps[(steps["strategy"] == "recompute") & (steps["num_tokens"] > 0)]
    assert (appended["append_us"] == appended["context_tokens"] * 1000).all()
    assert (appended["reserve_us"] == 7000).all()
    assert (appended["step_us"] >= appended["append_us"] + 7000).all()


def test_idle_time_is_skipped_by_a_clock_that_was_set_right():
    # The first request takes 400 ms of prefill and a step of 1 ms; the second comes 50 ms later and waits for nothing.
    requests = [Session(0, (Request(400, 1),)), Session(450 * MS, (Request(30, 1),))]
    recorder = run(
        {"exact": Exact(round_to=1)},
        requests,
        Late(),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    frame = requests_frame(recorder, steps, requests)
    assert frame["queue_s"].tolist() == pytest.approx([0, 0], abs=0.005)
    assert frame["ttft_s"].tolist() == pytest.approx([0.4, 0.03], abs=0.005)
    assert steps["idle_us"].sum() / 1000 == pytest.approx(49, abs=5)


@pytest.mark.parametrize(
    ("requests", "arrival_s", "ttft_s"),
    [
        # Thinking begins when the turn has ended on the device; then a prompt of 10 and the token still to be written.
        ([Session(0, (Request(400, 1), Request(10, 1, think_ns=1000 * MS)))], [0, 1.4], [0.4, 0.011]),
        # The second comes while the first decodes, and is admitted at the next step: it waits for no more than that.
        ([Session(0, (Request(30, 60),)), Session(50 * MS, (Request(20, 1),))], None, [0.03, 0.02]),
    ],
)
def test_late_times_are_known_when_a_decision_needs_them(requests, arrival_s, ttft_s):
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 2, "budget_bytes": None}
    recorder = run({"exact": Exact(round_to=1)}, requests, Late(), **once)
    frame = requests_frame(recorder, steps_frame(recorder), requests)
    assert frame["ttft_s"].tolist() == pytest.approx(ttft_s, abs=0.006)
    if arrival_s is not None:
        assert frame["arrival_s"].tolist() == pytest.approx(arrival_s, abs=0.006)


def test_a_device_is_drained_now_and_then_while_nothing_waits_for_its_times():
    class Counting(Late):
        num_drains = 0

        def drain(self):
            self.num_drains += 1
            return super().drain()

    backend, once = Counting(), {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    run({"exact": Exact(round_to=1)}, [Session(0, (Request(3, 100),))], backend, **once)
    # A hundred iterations: after the 32nd, the 64th and the 96th; and at the end of the run.
    assert backend.num_drains == 4
