"""Counts without tensors: strategies and ledger do what they always do, and nothing is carried out."""

from collections.abc import Mapping
from dataclasses import dataclass

from kvbench.backend.base import NO_TIMES, Backend, Booking, Times
from kvbench.backend.choice import BackendChoice, Conditions
from kvbench.checks import check_number
from kvbench.engine.scheduling import Scheduling
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area

NS_PER_S = 1_000_000_000
MOST_S = 3_600.0
AS_THEY_COME = Scheduling()


@dataclass(frozen=True, kw_only=True)
class Counted(BackendChoice):
    """Carry nothing out, and count: what is held, found, admitted and preempted is exact, and every step takes as long.

    Args:
        step_s: seconds of an iteration over all live requests, whatever it computes, > 0.
    Raises:
        ValueError: step_s is out of its range.
    """

    step_s: float = 0.01

    def __post_init__(self) -> None:
        check_number("backend.step_s", self.step_s, 0, MOST_S, above=True)

    def made(self, conditions: Conditions) -> "CountedBackend":
        """A backend that counts, by the engine's rules."""
        step_ns = max(round(self.step_s * NS_PER_S), 1)
        made = CountedBackend(conditions.geometry, step_ns, conditions.scheduling)
        made.caches_prefixes, made.state_interval = conditions.caches_prefixes, conditions.state_interval
        made.state_block_tokens, made.window_interval = conditions.state_block_tokens, conditions.window_interval
        return made


class CountedBackend(Backend):
    """A backend that carries nothing out: what the ledger books is exact, and iterations are of equal length.

    Args:
        geometry: the shape of a token's K and V.
        step_ns: nanoseconds of an iteration, >= 0.
        scheduling: how it is filled.
    """

    source = "counted"
    is_repeatable = True

    def __init__(self, geometry: KVGeometry, step_ns: int = 0, scheduling: Scheduling = AS_THEY_COME) -> None:
        self.geometry = geometry
        self.scheduling = scheduling
        self._step_times = Times(0, 0, 0, 0, step_ns)
        self._now_ns = 0
        self._has_passed = False

    def check_tiers(self, tier_bytes: Mapping[str, int], areas: tuple[Area, ...]) -> None:
        """All are counted; what they load takes no time."""

    def now_ns(self) -> int:
        """The time of the iterations so far: planning takes none."""
        return self._now_ns

    def step(self, booking: Booking, num_queries: int, continued: bool = False) -> Times:
        """Carry nothing out; an iteration's time passes with the first of its steps."""
        if self._has_passed:
            return NO_TIMES
        self._has_passed = True
        self._now_ns += self._step_times.model_ns
        return self._step_times

    def end_iteration(self) -> None:
        """The next step is another iteration's."""
        self._has_passed = False

    def describe(self) -> dict[str, object]:
        """There is no device."""
        return {"device": "none", "device_name": "counted", "attention": "off"}
