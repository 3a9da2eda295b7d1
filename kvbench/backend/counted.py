"""Counts without tensors: strategies and ledger do what they always do, and nothing is carried out."""

from time import perf_counter_ns

from kvbench.backend.base import NO_TIMES, Backend, Booking, Times
from kvbench.model.geometry import KVGeometry


class Counted(Backend):
    """A backend that carries nothing out: what the ledger books is exact, and times are none.

    Args:
        geometry: the shape of a token's K and V.
    """

    source = "counted"
    is_repeatable = True
    now_ns = staticmethod(perf_counter_ns)

    def __init__(self, geometry: KVGeometry) -> None:
        self.geometry = geometry

    def step(self, booking: Booking, num_queries: int, continued: bool = False) -> Times:
        """Carry nothing out."""
        return NO_TIMES

    def describe(self) -> dict[str, object]:
        """There is no device."""
        return {"device": "none", "device_name": "counted", "attention": "off"}
