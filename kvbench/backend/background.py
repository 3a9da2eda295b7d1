"""Work beside the main one: a thread on a CPU, a second stream on a GPU."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch


class Handle(Protocol):
    """Work that was given away."""

    def result(self) -> object:
        """Wait for it where it is needed.

        Raises:
            BaseException: what the work raised.
        """
        ...

    def done(self) -> bool:
        """Whether it has ended."""
        ...


class Worker(Protocol):
    """Takes work, and does it one after another."""

    def submit(self, work: Callable[[], object]) -> Handle:
        """Give work away; it begins when what the device was given so far allows."""
        ...

    def close(self) -> None:
        """Wait for all work, and end."""
        ...


class Thread:
    """A thread for a device whose work is done when the call returns."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kvbench")

    def submit(self, work: Callable[[], object]) -> Future:
        """See `Worker.submit`."""
        return self._pool.submit(work)

    def close(self) -> None:
        """See `Worker.close`."""
        self._pool.shutdown(wait=True)


class _OnStream:
    """Work in another stream: waiting for it is the device's business, not the host's."""

    def __init__(self, event: torch.Event, value: object) -> None:
        self._event = event
        self._value = value

    def result(self) -> object:
        """Let the current stream wait. See `Handle.result`."""
        self._event.wait()
        return self._value

    def done(self) -> bool:
        """See `Handle.done`."""
        return self._event.query()


class Stream:
    """A second stream of an accelerator.

    Args:
        device: the accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.Stream(device=device)

    def submit(self, work: Callable[[], object]) -> _OnStream:
        """See `Worker.submit`."""
        self._stream.wait_stream(torch.accelerator.current_stream(self._device))
        with self._stream:
            value = work()
            event = torch.Event(device=self._device)
            event.record()
        return _OnStream(event, value)

    def close(self) -> None:
        """See `Worker.close`."""
        self._stream.synchronize()


def worker_of(device: torch.device) -> Worker:
    """The worker of a device."""
    return Thread() if device.type == "cpu" else Stream(device)
