"""Streaming windows: attention reads the active one, those before are retired."""

from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int
from kvbench.ledger import LedgerView
from kvbench.plan.area import Area, Chunks, Ring
from kvbench.plan.ops import MAIN, Keep, Move, Plan, Reserve, Rule, append_plan
from kvbench.strategy.base import (
    IntegerRule,
    Strategy,
    Turns,
    all_stay,
    as_required,
    constant,
    derived,
    passed_on,
    same_capacity,
)
from kvbench.tried import Tried
from kvbench.workload.request import Session

RETIRED = "retired"


@dataclass(frozen=True, kw_only=True)
class Streaming(Strategy):
    """Read a window; when it is full, retire it and begin the next with its last tokens.

    Retired windows stay allocated, at most so many, and can be read back whole: each token is held once. An append
    longer than the window comes in several steps.

    Args:
        window_size: tokens of the active window, > overlap_size.
        overlap_size: last tokens of a window that the next begins with, >= 0.
        max_retired: retired windows that are kept, > 0; the oldest is dropped.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, StreamingKVCache.
    Departs: the tokens of the overlap live in the newer window alone, so that the full context holds each once.
    """

    lossless = False

    window_size: Annotated[int, Tried(choices=(256, 512, 1024, 2048, 4096))] = 1024
    overlap_size: Annotated[int, Tried(choices=(0, 64, 128, 256))] = 128
    max_retired: Annotated[int, Tried(choices=(1, 4, 10, 32))] = 10

    def __post_init__(self) -> None:
        check_int("window_size", self.window_size, 1)
        check_int("overlap_size", self.overlap_size, 0)
        check_int("max_retired", self.max_retired, 1)
        if self.overlap_size >= self.window_size:
            raise ValueError(f"overlap_size is less than window_size ({self.window_size}), got {self.overlap_size}")

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Chunks of retired windows, not read, and the active one."""
        return (Area(RETIRED, Chunks(self.retired_tokens), attended=False), Area(layout=Ring()))

    @property
    def retired_tokens(self) -> int:
        """Tokens of a retired window."""
        return self.window_size - self.overlap_size

    def within(self, budget_tokens: int, num_tokens: int) -> "Streaming":
        """A window of so many, the overlap the same share of it."""
        check_int("streaming: its budget in tokens", budget_tokens, 1)
        overlap = self.overlap_size * budget_tokens // self.window_size
        return Streaming(window_size=budget_tokens, overlap_size=overlap, max_retired=self.max_retired)

    @property
    def integer_rule(self) -> IntegerRule:
        """The active window at admission; a full one is retired, all but its overlap."""
        by = (self.window_size, self.overlap_size)
        most = self.max_retired * self.retired_tokens
        turns = Turns(the_window, the_overlap, all_stay, same_capacity, by, within_window, most, self.retired_tokens)
        return IntegerRule(constant, (self.window_size,), as_required, (), None, turns)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the active window."""
        return (Reserve(seq, self.window_size),)

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """At most what the window has room for; a full one is retired first."""
        return within_window(num_tokens, view.num_used(seq), self.window_size, self.overlap_size)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; else retire the window first, and drop the oldest where there are too many."""
        if view.num_used(seq) + num_tokens <= self.window_size:
            return append_plan(seq, num_tokens)
        held, unit = view.num_used(seq, RETIRED), self.retired_tokens
        kept = held - passed_on(held, unit, self.max_retired * unit, unit)
        dropped = (Keep(seq, Rule(recent=kept), RETIRED),) if kept < held else ()
        return (
            *dropped,
            Reserve(seq, kept + unit, RETIRED),
            Move(seq, MAIN, RETIRED, Rule(recent=self.overlap_size)),
            *append_plan(seq, num_tokens),
        )


def the_window(capacity: int, window: int, overlap: int) -> int:
    """Slots in use when the window is retired."""
    return window


def the_overlap(used: int, num_tokens: int, held: int, window: int, overlap: int) -> int:
    """Slots that stay then."""
    return overlap


def within_window(num_tokens: int, used: int, window: int, overlap: int) -> int:
    """Tokens of an append that the next step takes: what the window has room for; a full one is retired first."""
    return min(num_tokens, window - used if used < window else window - overlap)
