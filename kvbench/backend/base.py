"""What a runner asks of a backend, and what it is handed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.engine.scheduling import Scheduling
from kvbench.ledger import NO_RECEIPT, UNLIMITED, LoadTimes, Receipt
from kvbench.ledger.accounts import Account
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


def summed(times: Times, more: Times) -> Times:
    """The times of two parts of a step."""
    return Times(*(a + b for a, b in zip(times, more, strict=True))) if more is not NO_TIMES else times


class Booking(NamedTuple):
    """A plan that was booked: what there is to carry out, or to price.

    Args:
        seq: whose.
        plan: its operations.
        receipt: what they cost.
        waited: what waiting for the background work took that it settles.
        before_bytes: allocated on the device before it, over all sequences.
        account: what the sequence holds after it; None where it was released.
        used_bytes: of slots on the device that hold tokens after it, over all sequences.
    """

    seq: int
    plan: Plan
    receipt: Receipt = NO_RECEIPT
    waited: Times = NO_TIMES
    before_bytes: int = 0
    account: Account | None = None
    used_bytes: int = 0


class Backend(ABC):
    """Carries out what was booked, and says how long it took.

    One that holds nothing, waits for nothing and is never late has only to say what it is, `step` and `describe`.

    Attributes:
        source: "measured" or "modelled"; every summary row says which.
        scope: "cache" where times are of the cache and its attention alone, "model" where of a whole model.
        geometry: the shape of a token's K and V.
        num_rows: rows of every sequence's batch.
        is_repeatable: whether a second run takes the same time to the nanosecond, so that repetitions tell nothing.
        hardware: the machine that is modelled; None where none is.
        replays: how many draws of a modelled machine's times intervals are made of; 0: there are none.
        scheduling: how an iteration over live requests is filled.
        caches_prefixes: whether the engine keeps blocks for requests that begin alike.
        state_interval: as of `Engine`.
        window_interval: as of `Engine`.
        state_block_tokens: as of `Limits`.
        load_times: what loading blocks from tiers below the device takes; None: no time.
        has_own_pools: whether groups of layers have a pool of blocks each, so that windows lie beside them.
        num_accelerators: of such machines, those that a token passes; bytes and budget are those of one.
        busy_ns: for how long its device is busy with work that is handed over; None where the host is the device.
    """

    source: str
    scope: str = "cache"
    geometry: KVGeometry
    num_rows: int = 1
    is_repeatable: bool = False
    hardware: Hardware | None = None
    replays: int = 0
    scheduling: Scheduling = Scheduling()
    num_accelerators: int = 1
    caches_prefixes: bool = False
    state_interval: int = 0
    window_interval: int = 1
    state_block_tokens: int | None = None
    load_times: LoadTimes | None = None
    has_own_pools: bool = False
    busy_ns: Callable[[Callable[[], object]], int | None] | None = None

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token as the model gives it, over all layers and rows."""
        return self.geometry.bytes_per_token * self.num_rows

    @property
    def signals(self) -> tuple[str, ...]:
        """What attention can tell a strategy: mass, votes, accesses."""
        return ()

    @property
    def why_no_signals(self) -> str:
        """Where there are none, why, for messages."""
        return ""

    def check_areas(self, areas: tuple[Area, ...]) -> None:  # noqa: B027
        """Refuse areas that the model's layers are not held in here.

        Raises:
            ValueError: there is such an area.
        """

    def check_tiers(self, tier_bytes: Mapping[str, int], areas: tuple[Area, ...]) -> None:
        """Refuse tiers below the device that copies of blocks are not kept in here.

        Args:
            tier_bytes: bytes of those that a strategy has.
            areas: its areas.
        Raises:
            ValueError: there is such a tier.
        """
        if tier_bytes:
            first = next(iter(tier_bytes))
            raise ValueError(
                f"{first}_bytes: backend {self.source} keeps no copies of blocks below the device; use "
                "backend=modelled or counted, or set it to 0"
            )

    def memory_bytes(self) -> int:
        """What live requests may hold together, unless a budget is given."""
        return UNLIMITED

    def work_s(
        self, num_tokens: NDArray[np.int64], most_tokens: NDArray[np.int64], num_sequences: NDArray[np.int64]
    ) -> dict[str, float]:
        """Modelled seconds of a whole model's iterations by kind of work, attention and the host left out.

        Args:
            num_tokens: of each iteration, all sequences together.
            most_tokens: of a sequence in it.
            num_sequences: of each iteration.
        """
        return {}

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:  # noqa: B027
        """Make all inputs that steps of these sizes will need, so that no step makes any."""

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:  # noqa: B027
        """Start from an emptied allocator and reset peaks; sequences opened from now on live so."""

    def end_repetition(self) -> None:  # noqa: B027
        """Wait for what runs in the background, and let go of all that is held."""

    def now_ns(self) -> int:
        """The clock that a step's host time is taken from: the processor's, or the model's."""
        return perf_counter_ns()

    def begin_iteration(self, decoding: Collection[int] = ()) -> None:  # noqa: B027
        """A pass over the live requests begins: what their steps share is paid once in it.

        Args:
            decoding: sequences that are to take a decode step in it.
        """

    def end_iteration(self) -> None:  # noqa: B027
        """All live requests have stepped: what was put off to be done for them together is done."""

    def load_wait_ps(self, seq: int) -> int:
        """Picoseconds from an iteration's begin until the last block is there that a sequence loads in it; 0: none."""
        return 0

    def wait_for_loads(self) -> Times:
        """Let the last block come that an iteration loads, at its end; what waiting took."""
        return NO_TIMES

    def tier_times(self) -> dict[str, dict[str, int]]:
        """Picoseconds since the repetition began, by tier and by what its link did: load and write; and saved, what
        computing instead of loading would have taken. Empty: no time."""
        return {}

    def open(self, seq: int) -> None:  # noqa: B027
        """Begin a sequence that holds nothing yet."""

    def check(self, plan: Plan) -> Times:
        """Wait for the background work that a plan settles, before the plan is booked.

        Returns:
            What waiting took.
        Raises:
            OutOfMemory: the work found no memory.
            BackgroundError: it failed otherwise.
        """
        return NO_TIMES

    @abstractmethod
    def step(self, booking: Booking, num_queries: int, continued: bool = False) -> Times:
        """Carry a plan out; then attend with so many newest tokens' queries, 0 for none.

        A continued step is the rest of the one before: what follows attention.

        Returns:
            The times; zeros where the device runs behind the host: `drain` gives those later, in order of steps.
        Raises:
            OutOfMemory: the device gave no memory.
        """

    def drain(self) -> list[Times] | None:
        """Wait for the device; the times of all steps since the last drain, or None where `step` returned them."""
        return None

    def allocator_peaks(self) -> dict[str, int]:
        """The device allocator's own figures since the repetition began, by summary column; empty where it has none."""
        return {}

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """What a reader must know of device (`device`, `device_name`) and calls, for environment.json."""
