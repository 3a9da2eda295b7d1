"""No cache: everything is computed again for each token."""

from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve, Truncate
from kvbench.strategy.base import Strategy, resize_and_append


@dataclass(frozen=True, kw_only=True)
class Recompute(Strategy):
    """Hold nothing between steps: each step writes K and V of the whole sequence and attends with all its queries.

    Memory is nothing at rest; the work of a step grows with the square of the length.

    Source: the article, its first analysis (generation without a cache).
    Departs: attention is measured, not the formula n²/(n+100); the projections that make K and V are left out on both
        sides of the comparison, so that the speed-up is that of attention alone.
    """

    recomputes = True
    reference = True

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reserve and append the whole sequence."""
        return resize_and_append(seq, num_tokens, num_tokens)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Drop it again."""
        return (Truncate(seq, view.num_used(seq)), Reserve(seq, 0))
