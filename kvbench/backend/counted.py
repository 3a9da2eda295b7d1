"""Counts without tensors: strategies and ledger do what they always do, and nothing is carried out."""

from time import perf_counter_ns

from kvbench.backend.base import NO_TIMES, Times
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import Area
from kvbench.plan.ops import Plan


class Counted:
    """A backend that carries nothing out: what the ledger books is exact, and times are none.

    Args:
        geometry: the shape of a token's K and V.
    """

    source, scope, num_rows = "counted", "cache", 1
    signals: tuple[str, ...] = ()
    is_repeatable = True
    hardware: Hardware | None = None
    now_ns = staticmethod(perf_counter_ns)

    def __init__(self, geometry: KVGeometry) -> None:
        self.geometry = geometry

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token."""
        return self.geometry.bytes_per_token

    def memory_bytes(self) -> int:
        """As much as there is a number for."""
        return 2**62

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """No inputs are needed."""

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Nothing is held."""

    def begin_iteration(self) -> None:
        """Nothing is shared by a pass."""

    def check(self, plan: Plan) -> Times:
        """Nothing is waited for."""
        return NO_TIMES

    def end_repetition(self) -> None:
        """Nothing is held."""

    def open(self, seq: int) -> None:
        """Nothing is held."""

    def step(self, plan: Plan, seq: int, num_queries: int, continued: bool = False) -> Times:
        """Carry nothing out."""
        return NO_TIMES

    def drain(self) -> list[Times] | None:
        """No time is late."""
        return None

    def allocator_peaks(self) -> dict[str, int]:
        """There is no allocator."""
        return {}

    def describe(self) -> dict[str, object]:
        """There is no device."""
        return {"device": "none", "device_name": "counted", "attention": "off"}
