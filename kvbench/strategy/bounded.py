"""A budget of slots: what comes beyond it takes the place of what a rule evicts."""

from kvbench.ledger import LedgerView
from kvbench.plan.ops import NOTHING, Keep, Plan, Reserve, Rule, append_plan, keep_and_append_plan
from kvbench.strategy.base import Strategy, resize_and_append
from kvbench.workload.request import Session


class Bounded(Strategy):
    """Hold a budget of slots, reserved at admission; evict by a rule.

    A decoded token takes an evicted one's place. A longer append gets room for the while, is attended whole and reduced
    after.

    Args:
        capacity: slots of the budget, > 0.
        rule: what a reduction keeps: capacity slots.
        rule_of_step: what stays when one token comes: one slot less.
    Source: none; who derives from it names its own.
    Departs: none.
    """

    lossless = False

    def __init__(self, *, capacity: int, rule: Rule, rule_of_step: Rule) -> None:
        self.capacity = capacity
        self._rule = rule
        self._rule_of_step = rule_of_step

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the budget."""
        return (Reserve(seq, self.capacity),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; a single token takes an evicted one's slot, more get room for the while."""
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
