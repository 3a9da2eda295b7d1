"""Compression by norms: the article's ranking of tokens."""

import math
from dataclasses import dataclass

from kvbench.checks import check_int, check_share
from kvbench.ledger import LedgerView
from kvbench.plan.area import NORM, Area
from kvbench.plan.ops import NOTHING, Keep, Plan, Reserve, Rule
from kvbench.strategy.base import Strategy, append_in_units, derived, rounded_up
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
    decides_by = "when its last pass over all that it holds was"

    kept_fraction: float = 0.5
    interval: int = 64

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
        left = num_used
        if num_tokens > 1:
            rule = Rule(first=num_used - num_tokens, top=num_kept(num_tokens, self.kept_fraction), by=NORM)
            left = rule.num_kept(num_used)
            plan = (Keep(seq, rule),) if left < num_used else ()
        if num_seen >= self._next_pass[seq]:
            self._next_pass[seq] = num_seen + self.interval
            rule = Rule(top=num_kept(num_seen, self.kept_fraction), by=NORM)
            if rule.num_kept(left) < left:
                left = rule.num_kept(left)
                plan = (*plan, Keep(seq, rule))
        if plan:
            self._planned[seq] = view.num_altered(seq)
        capacity = rounded_up(left + 1, GROWTH_TOKENS)
        return (*plan, Reserve(seq, capacity)) if plan and capacity < view.capacity(seq) else plan

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release, and forget when the next pass was due."""
        self._next_pass.pop(seq, None)
        self._planned.pop(seq, None)
        return super().on_finish(seq, view)
