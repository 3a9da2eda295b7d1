"""What a runner asks of a backend."""

from typing import NamedTuple, Protocol

from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import Area
from kvbench.plan.ops import Plan

RESERVE, APPEND, MOVE, ATTEND, MODEL = range(5)
"""What a step's time is spent on; the fields of `Times`, by place."""


class Times(NamedTuple):
    """Nanoseconds of a step, by what they were spent on; the model's are all but the cache's and its attention's."""

    reserve_ns: int
    append_ns: int
    move_ns: int
    attend_ns: int
    model_ns: int = 0


NO_TIMES = Times(0, 0, 0, 0)


class Backend(Protocol):
    """Carries plans out and says how long they took.

    Attributes:
        source: "measured" or "modelled"; every summary row says which.
        scope: "cache" where times are of the cache and its attention alone, "model" where of a whole model.
        geometry: the shape of a token's K and V.
        num_rows: rows of every sequence's batch.
        slot_bytes: bytes of a token as the model gives it, over all layers and rows.
        signals: what attention can tell a strategy: mass, votes, accesses.
        is_repeatable: whether a second run takes the same time to the nanosecond, so that repetitions tell nothing.
        hardware: the machine that is modelled; None where none is.
    """

    source: str
    scope: str
    geometry: KVGeometry
    num_rows: int
    is_repeatable: bool
    hardware: Hardware | None = None

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token as the model gives it, over all layers and rows."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """What attention can tell a strategy."""
        ...

    def memory_bytes(self) -> int:
        """What live requests may hold together, unless a budget is given."""
        ...

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """Make all inputs that steps of these sizes will need, so that no step makes any."""
        ...

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Start from an emptied allocator and reset peaks; sequences opened from now on live so."""
        ...

    def end_repetition(self) -> None:
        """Wait for what runs in the background, and let go of all that is held."""
        ...

    def now_ns(self) -> int:
        """The clock that a step's host time is taken from: the processor's, or the model's."""
        ...

    def begin_iteration(self) -> None:
        """A pass over the live requests begins: what their steps share is paid once in it."""
        ...

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        ...

    def check(self, plan: Plan) -> Times:
        """Wait for the background work that a plan settles, before the plan is booked.

        Returns:
            What waiting took.
        Raises:
            OutOfMemory: the work found no memory.
            BackgroundError: it failed otherwise.
        """
        ...

    def step(self, plan: Plan, seq: int, num_queries: int, continued: bool = False) -> Times:
        """Carry a plan out; then attend with so many newest tokens' queries, 0 for none.

        A continued step is the rest of the one before: what follows attention.

        Returns:
            The times; zeros where the device runs behind the host: `drain` gives those later, in order of steps.
        Raises:
            OutOfMemory: the device gave no memory.
        """
        ...

    def drain(self) -> list[Times] | None:
        """Wait for the device; the times of all steps since the last drain, or None where `step` returned them."""
        ...

    def allocator_peaks(self) -> dict[str, int]:
        """The device allocator's own figures since the repetition began, by summary column; empty where it has none."""
        ...

    def describe(self) -> dict[str, object]:
        """What a reader must know of device and calls, for environment.json."""
        ...
