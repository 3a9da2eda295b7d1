"""A budget of slots: what comes beyond it takes the place of what a rule evicts."""

from dataclasses import replace

from kvbench.ledger import LedgerView
from kvbench.plan.ops import NOTHING, Keep, Plan, Reserve, Rule, append_plan, keep_and_append_plan
from kvbench.strategy.base import IntegerRule, Strategy, Turns, as_required, constant, derived, resize_and_append
from kvbench.workload.request import Session


class Bounded(Strategy):
    """Hold a budget of slots, reserved at admission; evict by a rule.

    A decoded token takes an evicted one's place. A longer append gets room for the while, is attended whole and reduced
    after.

    Source: none; who derives from it names its own.
    Departs: none.
    """

    lossless = False

    @property
    def rule(self) -> Rule:
        """What a reduction keeps: the budget."""
        raise NotImplementedError

    @derived
    def capacity(self) -> int:
        """Slots of the budget, > 0."""
        return self.rule.first + self.rule.recent + self.rule.top

    @property
    def integer_rule(self) -> IntegerRule:
        """The budget at admission; more for a while where several tokens come."""
        turns = Turns(the_budget, one_less, at_most, rest_of_budget, (self.capacity,))
        return IntegerRule(constant, (self.capacity,), as_required, (), None, turns)

    @derived
    def _rule_of_step(self) -> Rule:
        """What stays when one token comes: one slot less, the oldest of the recent where some are."""
        rule = self.rule
        return replace(rule, recent=rule.recent - 1) if rule.recent else replace(rule, top=rule.top - 1)

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
        return (Keep(seq, self.rule), Reserve(seq, self.capacity))


def the_budget(capacity: int, budget: int) -> int:
    """Slots in use when a token takes an evicted one's."""
    return budget


def one_less(used: int, num_tokens: int, held: int, budget: int) -> int:
    """Slots that stay then; where several tokens come, all."""
    return budget - 1 if num_tokens == 1 else used


def at_most(used: int, num_single: int, held: int, budget: int) -> int:
    """Slots that stay after attention."""
    return min(used, budget)


def rest_of_budget(capacity: int, kept: int, budget: int) -> int:
    """Capacity then."""
    return budget
