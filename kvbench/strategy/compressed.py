"""Compression by norms: the article's ranking of tokens."""

import math
from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int, check_share
from kvbench.ledger import LedgerView
from kvbench.plan.area import NORM, Area
from kvbench.plan.ops import NOTHING, Keep, Plan, Reserve, Rule
from kvbench.strategy.base import (
    IntegerRule,
    Strategy,
    Turns,
    all_stay,
    append_in_units,
    constant,
    derived,
    in_units,
    rounded_up,
    same_capacity,
)
from kvbench.tried import Tried
from kvbench.workload.request import Session

GROWTH_TOKENS = 64
"""Slots by which capacity grows and shrinks: between two passes at the default interval, none or one resize."""


def num_kept(num_tokens: int, kept_fraction: float) -> int:
    """Tokens kept of so many: the fraction of them, rounded up, so that of one token one is kept."""
    return math.ceil(num_tokens * kept_fraction)


@dataclass(frozen=True, kw_only=True)
class Compressed(Strategy):
    """Keep a fraction of all tokens, those whose K and V are longest, in order.

    A token's importance is (|k| + |v|) / 2, averaged over heads. Each append of two tokens or more is reduced to the
    fraction after it was attended; single tokens stay until the next pass over the whole cache, every `interval`
    tokens.

    Args:
        kept_fraction: tokens kept over tokens seen, above 0, at most 1.
        interval: tokens seen between passes over the whole cache, > 0.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, CompressedKVCache.
    Departs: it ranks tokens (the article indexes the batch), reduces after attention, keeps single tokens until a pass
        over the whole cache, and has no maximum.
    """

    lossless = False
    areas = (Area(positions=True),)

    kept_fraction: Annotated[float, Tried(0.1, 0.9)] = 0.5
    interval: Annotated[int, Tried(choices=(16, 64, 256))] = 64

    def __post_init__(self) -> None:
        check_share("kept_fraction", self.kept_fraction)
        check_int("interval", self.interval, 1)

    @derived
    def _next_pass(self) -> dict[int, int]:
        """Of each sequence, tokens seen at which the next pass is due."""
        return {}

    @derived
    def _planned(self) -> dict[int, int]:
        """Of each sequence, tokens altered when a reduction was planned."""
        return {}

    def within(self, budget_tokens: int, num_tokens: int) -> "Compressed":
        """The fraction that leaves so many of all tokens after a pass; up to `interval` more are held between two."""
        check_int("compressed: its budget in tokens", budget_tokens, 1)
        fraction = min(budget_tokens / num_tokens, 1.0)
        if num_kept(num_tokens, fraction) > budget_tokens:  # the quotient was rounded up
            fraction = math.nextafter(fraction, 0.0)
        return Compressed(kept_fraction=fraction, interval=self.interval)

    @property
    def integer_rule(self) -> IntegerRule:
        """Capacity by units; an append is reduced to the fraction, and in each interval all that is held."""
        turns = Turns(
            same_capacity,
            all_stay,
            left_of_all,
            room_for_the_next,
            (self.kept_fraction,),
            of_append=left_of_append,
            interval=self.interval,
            by_norm=True,
        )
        return IntegerRule(constant, (0,), in_units, (GROWTH_TOKENS,), None, turns)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Nothing is held yet."""
        self._next_pass[seq] = self.interval
        return NOTHING

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or make room first."""
        return append_in_units(seq, num_tokens, GROWTH_TOKENS, view)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reduce the append; when it is time, the whole cache."""
        num_used, num_seen = view.num_used(seq), view.num_seen(seq)
        if self._planned.pop(seq, -1) == view.num_altered(seq):  # there was no memory to do it in
            self._next_pass[seq] = num_seen
        plan: Plan = ()
        left, first = num_used, num_used - num_tokens
        if num_tokens > 1:
            left = left_of_append(num_used, num_tokens, self.kept_fraction)
            plan = (Keep(seq, Rule(first=first, top=left - first, by=NORM)),) if left < num_used else ()
        if num_seen >= self._next_pass[seq]:
            self._next_pass[seq] = num_seen + self.interval
            kept = left_of_all(left, 0, num_seen, self.kept_fraction)
            plan = (*plan, Keep(seq, Rule(top=kept, by=NORM))) if kept < left else plan
            left = kept
        if plan:
            self._planned[seq] = view.num_altered(seq)
        capacity = room_for_the_next(view.capacity(seq), left, self.kept_fraction)
        return (*plan, Reserve(seq, capacity)) if plan and capacity < view.capacity(seq) else plan

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release, and forget when the next pass was due."""
        self._next_pass.pop(seq, None)
        self._planned.pop(seq, None)
        return super().on_finish(seq, view)


def left_of_append(used: int, num_tokens: int, kept_fraction: float) -> int:
    """Slots that stay after several tokens came: the fraction of those."""
    return used - num_tokens + num_kept(num_tokens, kept_fraction)


def left_of_all(used: int, num_single: int, held: int, kept_fraction: float) -> int:
    """Slots that stay after a pass: the fraction of all tokens seen."""
    return min(used, num_kept(held, kept_fraction))


def room_for_the_next(capacity: int, kept: int, kept_fraction: float) -> int:
    """Capacity then, with room for the next token."""
    return min(capacity, rounded_up(kept + 1, GROWTH_TOKENS))
