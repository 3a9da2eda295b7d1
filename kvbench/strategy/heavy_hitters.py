"""Heavy hitters: the tokens that attention looked at most, and recent ones."""

from kvbench.area import SIGNALS, Area, Holes, Mass
from kvbench.ledger import LedgerView
from kvbench.ops import NOTHING, Keep, Plan, Reserve, Rule, append_plan, keep_and_append_plan
from kvbench.strategy.base import Strategy, require_positive, require_whole, resize_and_append
from kvbench.workload.request import Request


class HeavyHitters(Strategy):
    """Keep the tokens with the largest accumulated attention mass, and a recent window; evict the rest.

    Every layer, row and KV head keeps tokens of its own. A decoded token takes an evicted one's place. A longer append
    is attended whole and reduced after.

    Args:
        num_heavy: tokens kept by mass, > 0.
        num_recent: tokens kept at the end, >= 0.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Zhang et al. 2023, arXiv:2306.14048, section 4 (H2O); budgets are split in half there.
    Departs: with grouped heads, the mass of a KV head is the sum over its query heads.
    """

    lossless = False

    def __init__(self, *, num_heavy: int, num_recent: int) -> None:
        require_positive("num_heavy", num_heavy)
        require_whole("num_recent", num_recent)
        self.capacity = num_heavy + num_recent
        self.areas = (Area(layout=Holes(), positions=True, score=Mass()),)
        self._rule = Rule(recent=num_recent, top=num_heavy, by=SIGNALS[Mass])
        self._rule_of_step = Rule(recent=max(num_recent - 1, 0), top=num_heavy - (num_recent == 0), by=SIGNALS[Mass])

    def on_admit(self, seq: int, request: Request, view: LedgerView) -> Plan:
        """Reserve the budget."""
        return (Reserve(seq, self.capacity),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; a single token takes the place of the least looked at, more get room for the while."""
        required = view.num_used(seq) + num_tokens
        if required <= self.capacity:
            return append_plan(seq, num_tokens)
        if num_tokens == 1:
            return keep_and_append_plan(seq, self._rule_of_step, 1)
        return resize_and_append(seq, required, num_tokens)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reduce to the budget what was let in whole."""
        if view.capacity(seq) <= self.capacity:
            return NOTHING
        return (Keep(seq, self._rule), Reserve(seq, self.capacity))
