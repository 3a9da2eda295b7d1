"""Work beside the main one: a thread on a CPU, a second stream on a GPU."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import torch

NICENESS = 10
"""How far a thread that copies ahead steps back on Linux, from where it is: a tenth of a processor that others want."""


Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)


class Handle(Protocol[Made]):
    """Work that was given away."""

    def check(self) -> None:
        """Wait until it is known whether it failed.

        Raises:
            BaseException: what the work raised.
        """
        ...

    def result(self) -> Made:
        """Wait for it where it is needed.

        Raises:
            BaseException: what the work raised.
        """
        ...


class Worker(Protocol):
    """Takes work, and does it one after another."""

    def submit(self, work: Callable[[], Result]) -> Handle[Result]:
        """Give work away; it begins when what the device was given so far allows."""
        ...

    def wait(self) -> None:
        """Wait for all work given so far."""
        ...

    def close(self) -> None:
        """Wait for all work, and end."""
        ...


class _OnThread(Generic[Result]):
    """Work in another thread."""

    def __init__(self, future: Future[Result]) -> None:
        self._future = future

    def check(self) -> None:
        """See `Handle.check`."""
        self._future.result()

    def result(self) -> Result:
        """See `Handle.result`."""
        return self._future.result()


class Thread:
    """A thread for a device whose work is done when the call returns.

    Args:
        steps_back: whether it leaves the processors to those who wait for a step; else it is waited for in each.
    """

    def __init__(self, steps_back: bool) -> None:
        begin = _step_back if steps_back and sys.platform == "linux" else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kvbench", initializer=begin)

    def submit(self, work: Callable[[], Result]) -> _OnThread[Result]:
        """See `Worker.submit`."""
        return _OnThread(self._pool.submit(work))

    def wait(self) -> None:
        """See `Worker.wait`."""
        self._pool.submit(int).result()

    def close(self) -> None:
        """See `Worker.close`."""
        self._pool.shutdown(wait=True)


def _step_back() -> None:
    """Lower this thread's priority; threads that it starts inherit it. A kernel that refuses leaves it as it is."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


class _OnStream(Generic[Result]):
    """Work in another stream: waiting for it is the device's business, not the host's."""

    def __init__(self, event: torch.Event, value: Result) -> None:
        self._event = event
        self._value = value

    def check(self) -> None:
        """Nothing: it would have failed when it was given away. See `Handle.check`."""

    def result(self) -> Result:
        """Let the current stream wait. See `Handle.result`."""
        self._event.wait()
        return self._value


class Stream:
    """A second stream of an accelerator, for one thread at a time: entered by two, it is lost to both.

    Args:
        device: the accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.Stream(device=device)
        self._entering = threading.Lock()

    def submit(self, work: Callable[[], Result]) -> _OnStream[Result]:
        """See `Worker.submit`."""
        before = torch.accelerator.current_stream(self._device)
        with self._entering, self._stream:
            self._stream.wait_stream(before)
            value = work()
            event = torch.Event(device=self._device)
            event.record()
        return _OnStream(event, value)

    def wait(self) -> None:
        """See `Worker.wait`."""
        self._stream.synchronize()

    def close(self) -> None:
        """See `Worker.close`."""
        self._stream.synchronize()


def worker_of(device: torch.device, *, steps_back: bool) -> Worker:
    """A worker of a device; see `Thread` for steps_back."""
    return Thread(steps_back) if device.type == "cpu" else Stream(device)
