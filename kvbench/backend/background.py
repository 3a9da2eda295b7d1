"""Work beside the main one: a thread on a CPU, a thread with a second stream on a GPU."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
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
    """Work in another stream: once it was given to the device, waiting for it is the device's business."""

    def __init__(self, given: _OnThread[tuple[torch.Event, Result]], work: Callable[[], Result]) -> None:
        self._given = given
        self._work: Callable[[], Result] | None = work
        """Held until another stream waits: what the work reads would be free for that stream's use before."""

    def check(self) -> None:
        """See `Handle.check`."""
        try:
            self._given.check()
        except BaseException:
            self._work = None
            raise

    def result(self) -> Result:
        """Let the current stream wait. See `Handle.result`."""
        self.check()
        done, value = self._given.result()
        done.wait()
        self._work = None
        return value


class Stream:
    """A second stream of an accelerator and the one thread that enters it: what waits on the host waits there.

    A stream that two threads enter is lost to both. Files and copies that do not lie together make a host wait.

    Args:
        device: the accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.Stream(device=device)
        self._thread = Thread(steps_back=False)

    def submit(self, work: Callable[[], Result]) -> _OnStream[Result]:
        """See `Worker.submit`."""
        before = self._event()
        return _OnStream(self._thread.submit(partial(self._given, work, before)), work)

    def _given(self, work: Callable[[], Result], before: torch.Event) -> tuple[torch.Event, Result]:
        with self._stream:
            before.wait()
            value = work()
            return self._event(), value

    def _event(self) -> torch.Event:
        """An event behind all that the current stream was given."""
        event = torch.Event(device=self._device)
        event.record()
        return event

    def wait(self) -> None:
        """See `Worker.wait`."""
        self._thread.wait()
        self._stream.synchronize()

    def close(self) -> None:
        """See `Worker.close`."""
        self._thread.close()
        self._stream.synchronize()


def worker_of(device: torch.device, *, steps_back: bool) -> Worker:
    """A worker of a device; see `Thread` for steps_back."""
    return Stream(device) if device.type == "cuda" else Thread(steps_back)
