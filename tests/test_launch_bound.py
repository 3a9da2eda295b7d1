"""How long a device is busy in decode steps, told apart from the host's time, and who is bound by launches."""

import math
from types import SimpleNamespace

import pytest

from kvbench.backend import busy
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.charts.cautions import warnings
from kvbench.runner.frames import results_of
from kvbench.runner.run import run
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session
from tests.support import device
from tests.support.catalogue import TINY
from tests.support.device import CUDA
from tests.support.fake import MS, Fake

ONCE = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
SESSIONS = [Session(0, (Request(10, 40),)), Session(0, (Request(3, 5),))]


@pytest.mark.parametrize(
    ("spans", "total"),
    [
        ([], 0),
        ([(1, 3), (7, 8)], 3),
        ([(2, 5), (1, 3), (4, 4.5), (5, 6)], 5),  # a copy beside a kernel counts once
    ],
)
def test_two_streams_that_work_at_once_are_busy_once(spans, total):
    assert busy.covered(spans) == total


def event(kind, start, end, is_user_annotation=False):
    return SimpleNamespace(
        device_type=SimpleNamespace(name=kind),
        time_range=SimpleNamespace(start=start, end=end),
        is_user_annotation=is_user_annotation,
    )


@pytest.mark.parametrize(
    ("events", "ns"),
    [
        ([event("CPU", 0, 90), event("CUDA", 10, 12.5), event("CUDA", 20, 21), event("CUDA", 0, 50, True)], 3500),
        ([event("CPU", 0, 90)], None),
    ],
)
def test_what_the_profiler_saw_of_the_device(events, ns, monkeypatch):
    class Profile:
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *raised: None  # noqa: E731
        events = lambda self: found  # noqa: E731

    device.use(monkeypatch)
    found, did = events, []
    monkeypatch.setattr(busy, "profile", lambda activities: Profile())
    assert busy.busy_ns(CUDA, lambda: did.append(1)) == ns
    assert did == [1]


class Device(Fake):
    """Busy for 2 ms in a step whose host takes 10."""

    def busy_ns(self, work):
        before = len(self.plans)
        work()
        return 2 * MS * (len(self.plans) - before)

    def describe(self):
        return super().describe() | {"copy_bandwidth_bytes_per_s": 1e6}


def summary_of(backend, sessions=SESSIONS):
    recorder = run({"static": Static(max_seq_len=64)}, sessions, backend, **ONCE)
    machine = {"copy_bandwidth_bytes_per_s": 1e6}
    return results_of(recorder, sessions, backend, "some", machine=machine).summary


def test_busy_time_and_what_it_moved_by_hand():
    # The middle session by length of those with 16 decode steps: the first. Its last eight steps attend 42 to 49 slots.
    summary = summary_of(Device())
    row = summary.iloc[0]
    assert (row["busy_us"], row["busy_host_us"]) == pytest.approx((2000, 10_000))
    assert row["busy_bytes"] == (45.5 + 2) * TINY.bytes_per_token
    assert row["roofline_share"] == pytest.approx(row["busy_bytes"] / 1e6 / 2e-3)
    (line,) = [line for line in warnings(summary) if "Bound by launches" in line]
    assert "static 10,000 µs for 2,000" in line
    assert not [line for line in warnings(summary.assign(busy_us=9000.0)) if "launches" in line]


@pytest.mark.parametrize(
    ("backend", "sessions"),
    [
        (Device(), SESSIONS[1:]),  # too few steps
        (Device(), [Session(0, (Request(100, 40),))]),  # more than the strategy holds
        (Fake(), SESSIONS),
        (Measured().made(Conditions(geometry=TINY, device="cpu")), SESSIONS),
    ],
)
def test_nothing_is_told_where_there_is_nothing_to_measure(backend, sessions):
    row = summary_of(backend, sessions).iloc[0]
    assert all(math.isnan(row[name]) for name in ("busy_us", "busy_host_us", "busy_bytes"))


def test_results_of_before_are_warned_of_all_else():
    summary = summary_of(Fake())
    assert warnings(summary) == warnings(summary.drop(columns=["busy_us", "busy_host_us", "busy_bytes"]))
