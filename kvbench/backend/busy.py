"""For how long a device was busy: the one place that measures it."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from kvbench.backend.device import wait_for

NS_PER_US = 1_000


def busy_ns(device: torch.device, work: Callable[[], object]) -> int | None:
    """For how long an accelerator is busy with work, copies included, by its profiler, which slows the host.

    Events around work that the device waits for hold the gaps between launches; this does not.

    Returns:
        Nanoseconds; None where the profiler sees nothing of the device, as where it is not permitted to.
    """
    wait_for(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        wait_for(device)
    on_device = [event for event in profiled.events() if event.device_type.name == "CUDA"]
    spans = [(event.time_range.start, event.time_range.end) for event in on_device if not event.is_user_annotation]
    return round(covered(spans) * NS_PER_US) if spans else None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of several spans, of start and end, was under way: streams work at the same time."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return total
