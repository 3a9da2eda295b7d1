"""One layer of a model on the measured backend, driven plan by plan, and timed: the device's work, or the host's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from kvbench.backend.base import Booking, Times
from kvbench.backend.choice import Conditions
from kvbench.backend.clock import Clock, HostClock, clock_of
from kvbench.backend.device import wait_for
from kvbench.backend.measured import MeasuredBackend
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import STAGING_TOKENS, Area
from kvbench.plan.ops import Append, Operation, Release, Reserve
from kvbench.workload.request import NS_PER_S

SEQ = 0
SPARE_TOKENS = 64
"""Room beyond the largest size, for tokens appended there."""
HELD_CYCLES = 4_000_000
"""For which an accelerator waits while the host gives it what is timed: 2 ms, in which a step of a layer is given."""


class BenchBackend(MeasuredBackend):
    """Timed by whichever clock it is given; each decode step attends alone."""

    def __init__(self, conditions: Conditions) -> None:
        super().__init__(conditions, batch_decode=False)
        self.busy_ns = None  # nobody looks at a summary

    def use(self, clock: Clock) -> None:
        """Take the times of steps from another clock."""
        self._clock = clock


class CalibrationBench:
    """A backend with one sequence at a time, and staging buffers for what is brought from elsewhere.

    Args:
        geometry: of the model; one of its layers is measured.
        device: auto, cpu or cuda.
        most_slots: the largest size.
    Raises:
        ValueError: no such device here, or layers do not all hold K and V of all tokens.
    """

    def __init__(self, geometry: KVGeometry, device: str, most_slots: int) -> None:
        self.geometry = geometry.reshaped(num_layers=1)
        self.backend = self.new_backend(device)
        self.backend.prepare(most_slots, most_slots + SPARE_TOKENS)
        self.areas: tuple[Area, ...] = ()
        self.is_accelerator = self.backend.device.type != "cpu"
        self._is_held = self.is_accelerator
        self._clock = clock_of(self.backend.device)
        size = (self.backend.num_rows, self.geometry.plain.num_kv_heads, STAGING_TOKENS, self.geometry.plain.head_dim)
        dtype = getattr(torch, self.geometry.dtype)
        self.buffers = tuple(torch.zeros(size, dtype=dtype, device=self.backend.device) for _ in range(2))

    def new_backend(self, device: str) -> BenchBackend:
        """Another backend for the same layer, with inputs of its own."""
        return BenchBackend(Conditions(geometry=self.geometry, device=device))

    def tensor_bytes(self, num_slots: int) -> int:
        """Bytes of so many slots in one tensor."""
        return num_slots * self.geometry.tensor_bytes_per_token * self.backend.num_rows

    @contextmanager
    def sequence(self, *areas: Area) -> Iterator[None]:
        """A sequence that lives so; what it still holds in the end is released."""
        self.areas = areas
        self.backend.live_in(areas)
        self.backend.open(SEQ)
        try:
            yield
        finally:
            self.backend.end_repetition()

    def step(self, *plan: Operation, num_queries: int = 0) -> Times:
        """Carry a plan out and attend; the nanoseconds that it took."""
        self._hold()
        times = self.backend.step(Booking(SEQ, plan), num_queries)
        drained = self.backend.drain()
        wait_for(self.backend.device)
        return drained[-1] if drained else times

    def _hold(self) -> None:
        """Let an accelerator wait until the host is through, so that its events hold no gaps between launches."""
        if self._is_held:
            torch.cuda._sleep(HELD_CYCLES)

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Time what the host takes to give an accelerator its work; on a CPU that is all there is."""
        before = self._clock, self._is_held
        self._use(HostClock(), is_held=False)
        try:
            yield
        finally:
            self._use(*before)

    def _use(self, clock: Clock, is_held: bool) -> None:
        self._clock, self._is_held = clock, is_held
        self.backend.use(clock)

    def fill(self, num_slots: int, reserved: int = 0) -> Times:
        """Reserve slots of the area main and write so many tokens."""
        return self.step(Reserve(SEQ, max(reserved, num_slots)), Append(SEQ, num_slots))

    def release_s(self) -> float:
        """Release the sequence; the seconds that it took."""
        return self.step(Release(SEQ)).reserve_ns / NS_PER_S

    def timed_s(self, call: Callable[[], object]) -> float:
        """The seconds that a call's work took: on the device, or `on_host`."""
        self._hold()
        start = self._clock.mark()
        call()
        times = self._clock.times([(0, start, self._clock.mark())])
        drained = self._clock.drain()
        wait_for(self.backend.device)
        return (drained[-1] if drained else times).reserve_ns / NS_PER_S
