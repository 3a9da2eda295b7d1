"""How long work took, by the clock of the device that does it. The one place that knows which."""

from abc import ABC, abstractmethod
from time import perf_counter_ns
from typing import Any, Protocol

import torch

from kvbench.backend.base import NO_TIMES, Times

NS_PER_MS = 1_000_000

Mark = Any
"""A moment, as a clock marks it: only that clock reads it."""

Span = tuple[int, Mark, Mark]
"""What the time was spent on (RESERVE, APPEND, …), and the marks before and after."""


class Clock(Protocol):
    """Marks moments in the device's stream of work, and measures between them."""

    def mark(self) -> Mark:
        """A moment."""
        ...

    def times(self, spans: list[Span], continued: bool = False) -> Times:
        """The step's times, or zeros where they come with `drain`, together with the rest of a continued step."""
        ...

    def forget(self) -> None:
        """Let the last step go, whose rest has failed."""
        ...

    def drain(self) -> list[Times] | None:
        """The times of all steps since the last drain; None where `times` gave them."""
        ...


class HostClock:
    """Work that is done when the call returns: the processor's own clock."""

    mark = staticmethod(perf_counter_ns)

    def times(self, spans: list[Span], continued: bool = False) -> Times:
        """Sum the spans, in ns."""
        sums = [0] * len(Times._fields)
        for what, start, end in spans:
            sums[what] += end - start
        return Times(*sums)

    def forget(self) -> None:
        """Nothing is kept."""

    def drain(self) -> None:
        """Nothing is ever outstanding."""
        return None


class LateClock(ABC):
    """A clock that is read when drained, so that work may be shared out between steps that are over."""

    def __init__(self) -> None:
        self._steps: list[list[Span]] = []
        self._shared: list[tuple[Span, dict[int, float]]] = []

    @abstractmethod
    def mark(self) -> Mark:
        """See `Clock.mark`."""

    @abstractmethod
    def _elapsed_ns(self, start: Mark, end: Mark) -> int:
        """Between two marks."""

    def times(self, spans: list[Span], continued: bool = False) -> Times:
        """Keep the spans for `drain`."""
        if continued:
            self._steps[-1].extend(spans)
        else:
            self._steps.append(spans)
        return NO_TIMES

    def forget(self) -> None:
        """See `Clock.forget`."""
        self._steps.pop()

    @property
    def last_step(self) -> int:
        """The number of the newest step, counted from the last drain."""
        return len(self._steps) - 1

    def share(self, what: int, start: Mark, end: Mark, shares: dict[int, float]) -> None:
        """Give parts of the time between two marks to steps, by their number."""
        self._shared.append(((what, start, end), shares))

    def drain(self) -> list[Times]:
        """Read all marks."""
        steps, self._steps = self._steps, []
        shared, self._shared = self._shared, []
        sums = [[0] * len(Times._fields) for _ in steps]
        for own, spans in zip(sums, steps, strict=True):
            for what, start, end in spans:
                own[what] += self._elapsed_ns(start, end)
        for (what, start, end), shares in shared:
            elapsed_ns = self._elapsed_ns(start, end)
            for number, part in shares.items():
                sums[number][what] += round(elapsed_ns * part)
        return [Times(*own) for own in sums]


class LateHostClock(LateClock):
    """The processor's own clock, read when drained."""

    def mark(self) -> int:
        """See `Clock.mark`."""
        return perf_counter_ns()

    def _elapsed_ns(self, start: Mark, end: Mark) -> int:
        elapsed_ns: int = end - start
        return elapsed_ns


class EventClock(LateClock):
    """Work that a device does behind the host: events in its stream, read when drained.

    Args:
        device: an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def mark(self) -> torch.Event:
        """An event behind all work given to the device so far."""
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        return event

    def _elapsed_ns(self, start: Mark, end: Mark) -> int:
        elapsed_ns: int = round(start.elapsed_time(end) * NS_PER_MS)
        return elapsed_ns

    def drain(self) -> list[Times]:
        """Wait for the device, and read all events."""
        torch.accelerator.synchronize(self._device)
        return super().drain()


def clock_of(device: torch.device) -> Clock:
    """The clock of a device, which gives a step's times as soon as they are known."""
    return HostClock() if device.type == "cpu" else EventClock(device)


def late_clock_of(device: torch.device) -> LateClock:
    """The clock of a device, which gives a step's times when it is drained."""
    return LateHostClock() if device.type == "cpu" else EventClock(device)
