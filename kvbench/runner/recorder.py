"""The recorder: raw rows of a run, kept as columns of integers; no metric is computed here."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from kvbench.backend.base import Times
from kvbench.ledger import Receipt
from kvbench.results.columns import DERIVED, LIMITS, STEPS

PHASES = ("admit", "prefill", "fork", "decode", "recompute", "relieve", "finish", "load")
ADMIT, PREFILL, FORK, DECODE, RECOMPUTE, RELIEVE, FINISH, LOAD = range(len(PHASES))

ARRIVALS, BATCH, MEMORY, POOL, COMPUTING = range(len(LIMITS))

STEP_FIELDS = tuple(name.replace("_us", "_ns") for name in STEPS if name not in DERIVED)
"""What is recorded of a step, in the order of schema.STEPS: integers; `strategy`, `phase` and `limit` are indices."""

_IN_ORDER = itemgetter(*STEP_FIELDS)
_RESERVE = STEP_FIELDS.index("reserve_ns")
_HOST = STEP_FIELDS.index("host_ns")
assert STEP_FIELDS[_RESERVE:_HOST] == Times._fields, "late times are written over a row's in one piece"


@dataclass(frozen=True, slots=True)
class RequestRow:
    """How one request, a turn of a session that was sent at `arrival_ns`, ended in one repetition.

    `hit_tokens` were there when it was first admitted, and `loaded_tokens` lay in tiers below; it was turn `own_turn`
    of the sequence of that number.
    """

    repetition: int
    strategy: int
    session: int
    turn: int
    outcome: str
    held_tokens: int
    num_preemptions: int
    arrival_ns: int
    hit_tokens: int
    sequence: int
    own_turn: int
    loaded_tokens: Mapping[str, int]
    load_wait_ps: int


@dataclass
class Recorder:
    """Collects rows of all strategies and repetitions of a run.

    Args:
        strategies: their names; rows name them by index.
        num_warmup: repetitions, from the first, that are warm-up.
        facts: what each strategy is, by column of the summary.
        tiers: what went to and came from each tier below the device, a row a repetition.
    """

    strategies: tuple[str, ...]
    num_warmup: int
    requests: list[RequestRow] = field(default_factory=list)
    allocator: list[dict[str, int]] = field(default_factory=list)
    facts: dict[str, dict[str, object]] = field(default_factory=dict)
    tiers: list[dict[str, object]] = field(default_factory=list)
    _cells: "array[int]" = field(default_factory=lambda: array("q"))
    _num_filled: int = 0

    @property
    def num_steps(self) -> int:
        """Rows so far."""
        return len(self._cells) // len(STEP_FIELDS)

    def step(self, row: Mapping[str, int]) -> None:
        """Add a step's row: a value by each name of STEP_FIELDS."""
        self._cells.extend(_IN_ORDER(row))

    def fill(self, drained: list[Times] | None) -> int:
        """Write times that a device gave late into the rows that still lack them, oldest first.

        Args:
            drained: a step's times each; None from a backend that is never late.
        Returns:
            Nanoseconds by which those steps took longer than their host time.
        """
        if drained is None:
            return 0
        late_ns = 0
        for times in drained:
            start = self._num_filled * len(STEP_FIELDS)
            self._cells[start + _RESERVE : start + _RESERVE + len(times)] = array("q", times)
            late_ns += max(0, sum(times) - self._cells[start + _HOST])
            self._num_filled += 1
        return late_ns

    def num_finished(self) -> dict[str, int]:
        """Repetitions that each strategy finished, warm-up left out; none of those that were cut short."""
        done = [peaks["strategy"] for peaks in self.allocator if peaks["repetition"] >= self.num_warmup]
        return {name: done.count(index) for index, name in enumerate(self.strategies)}

    def drop_unfinished(self) -> None:
        """Forget the rows of a repetition that was cut short."""
        finished = {(peaks["repetition"], peaks["strategy"]) for peaks in self.allocator}
        cells = self.steps()
        self._cells = array("q", cells[[(int(row[0]), int(row[1])) in finished for row in cells]].tobytes())
        self.requests = [row for row in self.requests if (row.repetition, row.strategy) in finished]
        self.tiers = [row for row in self.tiers if (row["repetition"], row["strategy"]) in finished]

    def steps(self) -> np.ndarray:
        """All rows, int64 [num_steps, fields]; a copy."""
        return np.array(self._cells, dtype=np.int64).reshape(-1, len(STEP_FIELDS))


def transient_bytes(receipt: Receipt, later: Receipt, held: tuple[int, int, int]) -> int:
    """The most bytes held in passing during a step, less those held between its plans; 0 where no more than before it.

    Args:
        receipt: of the plan before attention.
        later: of the plan after it.
        held: bytes allocated before, between and after them. The row says what was held between, so that this and
            what was held in passing are the peak; what was held before is in rows before.
    """
    before_bytes, between_bytes, after_bytes = held
    peak_bytes = max(receipt.peak_bytes, later.peak_bytes, after_bytes)
    return peak_bytes - between_bytes if peak_bytes > max(before_bytes, between_bytes) else 0
