"""One layer of a model on the measured backend, driven plan by plan, and timed by the device's clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from kvbench.backend.base import Booking, Times
from kvbench.backend.choice import Conditions
from kvbench.backend.clock import clock_of
from kvbench.backend.measured import MeasuredBackend
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import STAGING_TOKENS, Area
from kvbench.plan.ops import Append, Operation, Release, Reserve
from kvbench.workload.request import NS_PER_S

SEQ = 0
SPARE_TOKENS = 64
"""Room beyond the largest size, for tokens appended there."""


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
        self.geometry = replace(geometry, num_layers=1)
        self.backend = self.new_backend(device)
        self.backend.prepare(most_slots, most_slots + SPARE_TOKENS)
        self.areas: tuple[Area, ...] = ()
        self._clock = clock_of(self.backend.device)
        size = (self.backend.num_rows, self.geometry.num_kv_heads, STAGING_TOKENS, self.geometry.head_dim)
        dtype = getattr(torch, self.geometry.dtype)
        self.buffers = tuple(torch.zeros(size, dtype=dtype, device=self.backend.device) for _ in range(2))

    def new_backend(self, device: str) -> MeasuredBackend:
        """Another backend for the same layer, with inputs of its own."""
        return MeasuredBackend(Conditions(geometry=self.geometry, device=device))

    def tensor_bytes(self, num_slots: int) -> int:
        """Bytes of so many slots in one tensor."""
        return num_slots * self.geometry.tensor_bytes_per_token * self.backend.num_rows

    @contextmanager
    def sequence(self, *areas: Area) -> Iterator[None]:
        """A sequence that lives so; what it still holds in the end is released."""
        self.areas = areas
        self.backend.begin_repetition(areas)
        self.backend.open(SEQ)
        try:
            yield
        finally:
            self.backend.end_repetition()

    def step(self, *plan: Operation, num_queries: int = 0) -> Times:
        """Carry a plan out and attend; the nanoseconds that it took."""
        times = self.backend.step(Booking(SEQ, plan), num_queries)
        drained = self.backend.drain()
        return drained[-1] if drained else times

    def fill(self, num_slots: int, reserved: int = 0) -> Times:
        """Reserve slots of the area main and write so many tokens."""
        return self.step(Reserve(SEQ, max(reserved, num_slots)), Append(SEQ, num_slots))

    def release_s(self) -> float:
        """Release the sequence; the seconds that it took."""
        return self.step(Release(SEQ)).reserve_ns / NS_PER_S

    def timed_s(self, call: Callable[[], object]) -> float:
        """The seconds that a call's work took on the device."""
        start = self._clock.mark()
        call()
        times = self._clock.times([(0, start, self._clock.mark())])
        drained = self._clock.drain()
        return (drained[-1] if drained else times).reserve_ns / NS_PER_S
