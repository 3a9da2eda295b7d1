"""How long work took, by the clock of the device that does it. The one place that knows which."""

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


class EventClock:
    """Work that a device does behind the host: events in its stream, read when drained.

    Args:
        device: an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[list[Span]] = []

    def mark(self) -> torch.Event:
        """An event behind all work given to the device so far."""
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        return event

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

    def drain(self) -> list[Times]:
        """Wait for the device, and read all events."""
        torch.accelerator.synchronize(self._device)
        steps, self._steps = self._steps, []
        drained = []
        for spans in steps:
            sums = [0] * len(Times._fields)
            for what, start, end in spans:
                sums[what] += round(start.elapsed_time(end) * NS_PER_MS)
            drained.append(Times(*sums))
        return drained


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return HostClock() if device.type == "cpu" else EventClock(device)
