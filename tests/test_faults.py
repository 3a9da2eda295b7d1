"""Memory that is refused on each tier, before, within and after a step: an outcome that names it, and nothing leaks."""

import errno
import os

import pytest
import torch

from kvbench.backend.base import Booking
from kvbench.backend.choice import Conditions
from kvbench.backend.clock import EventClock
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.storage import memory
from kvbench.ledger import Ledger, OutOfMemory
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.plan.area import Area, Ring
from kvbench.plan.ops import Append, Reserve
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy import base
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.fake import Fake
from tests.support.watched import Watched

TOKEN = TINY.bytes_per_token
TRACKED = TOKEN + 2 * TINY.track_bytes_per_token
"""Bytes of a token with its position and score."""


def result(chosen, requests, backend=None, budget_bytes=None, max_concurrency=2):
    recorder = run(
        {"it": chosen},
        requests,
        backend or Watched(attend=bool(chosen.signals)),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=max_concurrency,
        budget_bytes=budget_bytes,
    )
    steps = steps_frame(recorder)
    return steps, requests_frame(recorder, steps, requests)


def tiers(**changed):
    sizes = {"fast_capacity": 64, "slow_capacity": 512, "disk_capacity": 0, "read_ahead": False}
    return strategy("hierarchical", **(sizes | changed))


def slots_of(size):
    """Slots of a tensor of so many elements an axis; staging buffers are flat."""
    if isinstance(size, int):
        return None
    return size[2] if len(size) > 2 else size[0] * TINY.num_layers * 2 * DTYPE_BYTES[TINY.dtype] // TOKEN


def refuse(monkeypatch, num_tokens, error=(RuntimeError, "DefaultCPUAllocator: can't allocate memory")):
    """Make every allocation of tensors of so many slots fail; the others are made."""
    empty = torch.empty

    def failing(size, *args, **kwargs):
        if slots_of(size) == num_tokens:
            raise error[0](*error[1:])
        return empty(size, *args, **kwargs)

    monkeypatch.setattr(memory.torch, "empty", failing)


LONG_AND_SHORT = [Session(0, (Request(700, 2),)), Session(0, (Request(20, 2),))]


def test_full_tiers_are_too_long():
    steps, frame = result(tiers(), LONG_AND_SHORT)
    assert frame["outcome"].tolist() == ["too_long", "completed"]
    assert frame["held_tokens"].tolist() == [576, 21]
    assert steps["host_bytes"].max() == 512 * TOKEN
    assert steps["host_bytes"].iloc[-1] == 0


def full_disk(monkeypatch, code):
    def refuse_room(handle, start, num_bytes):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(memory.os, "posix_fallocate", refuse_room)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_outcome(monkeypatch, tmp_path, code):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    full_disk(monkeypatch, code)
    steps, frame = result(tiers(disk_capacity=512), LONG_AND_SHORT)
    assert frame["outcome"].tolist() == ["disk_full", "completed"]
    assert steps[["host_bytes", "disk_bytes", "allocated_bytes"]].iloc[-1].tolist() == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_otherwise_is_an_error(monkeypatch):
    full_disk(monkeypatch, errno.EACCES)
    with pytest.raises(OSError, match="Permission denied"):
        result(
            tiers(disk_capacity=512),
            LONG_AND_SHORT,
            MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False)),
        )


def test_a_host_that_refuses_memory_is_an_outcome_of_the_host(monkeypatch):
    refuse(monkeypatch, 512)  # a chunk of the slow tier
    steps, frame = result(tiers(), LONG_AND_SHORT)
    assert frame["outcome"].tolist() == ["out_of_host_memory", "completed"]
    assert frame["held_tokens"].tolist() == [64, 21]
    assert steps[["host_bytes", "allocated_bytes"]].iloc[-1].tolist() == [0, 0]


@pytest.mark.parametrize("error", [(RuntimeError, "CUDA error: out of memory"), (MemoryError,)])
def test_a_device_that_refuses_memory_is_an_outcome_of_the_device(monkeypatch, error):
    refuse(monkeypatch, 64, error)
    _, frame = result(tiers(), LONG_AND_SHORT)
    assert frame["outcome"].tolist() == ["out_of_memory"] * 2


def test_another_error_of_an_allocator_is_an_error(monkeypatch):
    refuse(monkeypatch, 64, (RuntimeError, "invalid size"))
    with pytest.raises(RuntimeError, match="invalid size"):
        result(tiers(), LONG_AND_SHORT, MeasuredBackend(Conditions(geometry=TINY, device="cpu", attend=False)))


@pytest.mark.parametrize("refused", [400, 1024])
def test_a_pool_or_a_staging_buffer_that_cannot_be_had_is_each_requests_outcome(monkeypatch, refused):
    refuse(monkeypatch, refused)
    chosen = strategy("paged", block_size=4, pool_tokens=400)
    _, frame = result(chosen, [Session(0, (Request(20, 2),))] * 3)
    assert frame["outcome"].tolist() == ["out_of_memory"] * 3


def test_memory_that_comes_back_serves_the_next(monkeypatch):
    # The first request's pool is refused; then there is memory.
    empty, refused = torch.empty, []

    def once(size, *args, **kwargs):
        if slots_of(size) == 1024 and not refused:
            refused.append(size)
            raise RuntimeError("can't allocate memory")
        return empty(size, *args, **kwargs)

    monkeypatch.setattr(memory.torch, "empty", once)
    chosen = strategy("paged", block_size=4, pool_tokens=400)
    _, frame = result(chosen, [Session(0, (Request(20, 2),))] * 2, max_concurrency=1)
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]


def test_a_budget_that_is_reached_within_a_move_is_an_outcome():
    # The device holds 64 slots, their tracks and the staging buffer; to gather what leaves takes more.
    chosen = tiers(eviction="access")
    staging = 1024 * TOKEN // 2
    steps, frame = result(chosen, LONG_AND_SHORT, budget_bytes=64 * TRACKED + staging, max_concurrency=1)
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]
    assert frame["held_tokens"].tolist() == [64, 21]
    assert steps[["host_bytes", "allocated_bytes"]].iloc[-1].tolist() == [0, 0]
    # With room for what leaves, and then for a tensor of the slots that close ranks, it is moved.
    gathered = 64 * TRACKED
    _, frame = result(chosen, LONG_AND_SHORT, budget_bytes=64 * TRACKED + staging + gathered, max_concurrency=1)
    assert frame["outcome"].tolist() == ["too_long", "completed"]


def test_a_reduction_that_finds_no_memory_waits_until_there_is_some():
    # The first holds 256 slots; the second's prompt of 300 takes 512, and the budget is full. Closing ranks takes a
    # tensor more. When the first has ended, the second is reduced: 24 of its prompt, and all it decoded since.
    chosen = strategy("snapkv", budget=24, window=8, kernel_size=3)
    requests = [Session(0, (Request(10, 4),)), Session(0, (Request(300, 10),))]
    steps, frame = result(chosen, requests, budget_bytes=(256 + 512) * TRACKED)
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 0]
    own = steps[(steps["session"] == 1) & (steps["num_tokens"] > 0)]
    assert own["kept_tokens"].tolist() == [300, 301, 302, *range(24 + 3, 24 + 10)]
    assert own["capacity_tokens"].tolist() == [512] * 4 + [256] * 6
    held = steps["allocated_bytes"] + steps["transient_bytes"] + steps["workspace_bytes"]
    assert held.max() <= (256 + 512) * TRACKED


class Reluctant(Ledger):
    """Refuses the first three plans that give slots back behind other operations."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_refused = 0

    def book(self, plan):
        if self.num_refused < 3 and any(isinstance(op, Reserve) and op.num_tokens == 8 for op in plan[1:]):
            self.num_refused += 1
            raise OutOfMemory(1, 0)
        return super().book(plan)


@pytest.mark.parametrize("name", ["sinks", "heavy_hitters"])
def test_slots_that_could_not_be_given_back_are_given_back_later(name, monkeypatch):
    # The prompt's 30 slots cannot be made 8 in the first three steps. A step keeps 8 tokens all the same.
    monkeypatch.setattr(base, "Ledger", Reluctant)
    sizes = {"num_sinks": 2, "window": 6} if name == "sinks" else {"num_heavy": 4, "num_recent": 4}
    steps, frame = result(strategy(name, **sizes), [Session(0, (Request(30, 7),))], backend=Watched())
    own = steps[steps["num_tokens"] > 0]
    assert frame["outcome"].tolist() == ["completed"]
    assert own["kept_tokens"].tolist() == [30, 8, 8, 8, 8, 8, 8]
    assert own["capacity_tokens"].tolist() == [30, 30, 30, 30, 8, 8, 8]


def test_a_device_that_fails_to_reduce_is_an_outcome():
    class Failing(Fake):
        def step(self, booking, num_queries, continued=False):
            if continued and booking.seq == 0:
                raise OutOfMemory(1, None)
            return super().step(booking, num_queries, continued)

    chosen = strategy("sinks", num_sinks=2, window=6)
    requests = [Session(0, (Request(30, 6),)), Session(0, (Request(30, 6),))]
    steps, frame = result(chosen, requests, backend=Failing())
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]
    assert steps["allocated_bytes"].iloc[-1] == 0


def test_a_step_whose_rest_fails_has_no_late_times(monkeypatch):
    # The device's times come later, a step each; the failed one has no row to go to.
    backend = Watched(attend=False)
    backend.prepare(8, 8)
    backend.begin_repetition((Area(layout=Ring(2)),))
    backend._clock = EventClock(backend.device)
    monkeypatch.setattr(EventClock, "mark", lambda self: None)
    backend.open(0)
    backend.step(Booking(0, (Reserve(0, 8),)), 0)
    backend.step(Booking(0, (Append(0, 4),)), 0)
    refuse(monkeypatch, 6)
    with pytest.raises(OutOfMemory):
        backend.step(Booking(0, (Reserve(0, 6),)), 0, continued=True)
    assert len(backend._clock._steps) == 1


def test_an_exhausted_pool_makes_the_youngest_wait():
    chosen = strategy("paged", block_size=4, pool_tokens=40)
    _, frame = result(chosen, [Session(0, (Request(16, 8),)), Session(0, (Request(16, 8),))])
    assert frame["outcome"].tolist() == ["completed", "completed"]
    assert frame["num_preemptions"].tolist() == [0, 1]
    _, frame = result(chosen, [Session(0, (Request(16, 40),))])
    assert frame["outcome"].tolist() == ["out_of_memory"]
    assert frame["held_tokens"].tolist() == [40]
