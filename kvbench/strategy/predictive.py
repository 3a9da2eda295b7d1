"""Predictive growth: grow ahead of need, from the lengths of past appends."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int, check_one_of
from kvbench.ledger import LedgerView
from kvbench.plan.ops import NOTHING, Plan, Reserve, append_plan
from kvbench.strategy.base import derived, resize_and_append, rounded_up
from kvbench.strategy.dynamic import Dynamic
from kvbench.tried import Tried
from kvbench.workload.request import Session

STABLE_VARIANCE = 0.1
CAUTIOUS_RATIO = 1.2
MARGIN = 1.1
FIRST_MARGIN_TOKENS = 100
LEAST_GROWTH = 1.3
RULES = ("append", "total")


def predicted_append(lengths: Sequence[int], num_used: int) -> int:
    """The length of the next append, from those before it.

    The last length times the mean ratio of neighbours (at most 1.2 where the ratios' variance is 0.1 or more), plus
    10 %; after a single append, the tokens held plus 100.

    Args:
        lengths: tokens of the last appends, oldest first, at least one.
        num_used: tokens held, before the last of those appends.
    Returns:
        Tokens.
    Source: the article, PredictiveKVCache.
    """
    if len(lengths) == 1:
        return num_used + FIRST_MARGIN_TOKENS
    total = squares = 0.0
    for i in range(1, len(lengths)):
        ratio = lengths[i] / lengths[i - 1]
        total += ratio
        squares += ratio * ratio
    mean = total / (len(lengths) - 1)
    stable = squares / (len(lengths) - 1) - mean * mean < STABLE_VARIANCE
    return int(lengths[-1] * (mean if stable else min(mean, CAUTIOUS_RATIO)) * MARGIN)


@dataclass(frozen=True, kw_only=True)
class Predictive(Dynamic):
    """Grow as Dynamic, guided by a prediction of the next append.

    Args:
        history_window: appends remembered a sequence, > 0.
        rule: "append" grows ahead when the predicted append exceeds the total capacity, as the article does, and so
            seldom acts; "total" grows when it must, and then far enough for the predicted next append as well, so that
            one resize serves two; the prediction never asks for more than the budget has room for.
        initial_capacity: as in Dynamic.
        growth_factor: as in Dynamic.
        max_capacity: as in Dynamic.
        round_to: as in Dynamic.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, PredictiveKVCache.
    Departs: rule "total" predicts the total, never resizes twice in one append, and never more often than Dynamic;
        rule "append" departs in nothing.
    """

    decides_by = "each sequence's past appends"

    history_window: Annotated[int, Tried(choices=(3, 5, 10, 20, 50))] = 10
    rule: str = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("history_window", self.history_window, 1)
        check_one_of("rule", self.rule, RULES)

    @derived
    def _lengths(self) -> dict[int, deque[int]]:
        """Of each sequence, its last appends."""
        return {}

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the initial capacity, with an empty history."""
        self._lengths[seq] = deque(maxlen=self.history_window)
        return super().on_admit(seq, session, view)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append, after growing as the rule says."""
        lengths = (*self._lengths[seq], num_tokens)[-self.history_window :]
        predicted = predicted_append(lengths, view.num_used(seq))
        if self.rule == "append":
            return self._article_plan(seq, num_tokens, predicted, view)
        return self._total_plan(seq, num_tokens, predicted, view)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Remember the append, now that it was made."""
        self._lengths[seq].append(num_tokens)
        return NOTHING

    def _article_plan(self, seq: int, num_tokens: int, predicted: int, view: LedgerView) -> Plan:
        capacity, required = view.capacity(seq), view.num_used(seq) + num_tokens
        ahead = self._ahead(capacity, predicted) if predicted > capacity else capacity
        if ahead == capacity:
            return super().on_append(seq, num_tokens, view)
        if required <= ahead:
            return resize_and_append(seq, ahead, num_tokens)
        return (Reserve(seq, ahead), *resize_and_append(seq, self._grown(ahead, required), num_tokens))

    def _total_plan(self, seq: int, num_tokens: int, predicted: int, view: LedgerView) -> Plan:
        capacity, required = view.capacity(seq), view.num_used(seq) + num_tokens
        if required <= capacity:
            return append_plan(seq, num_tokens)
        needed = self._grown(capacity, required)
        wished = min(rounded_up(required + predicted, self.round_to), self.max_tokens, view.room(seq))
        return resize_and_append(seq, max(needed, wished), num_tokens)

    def _ahead(self, capacity: int, predicted: int) -> int:
        """Capacity after growing ahead: the prediction, at least 1.3 times and dynamic's own growth, never over."""
        target = max(predicted, int(capacity * LEAST_GROWTH), int(capacity * self.growth_factor))
        return min(rounded_up(target, self.round_to), self.max_tokens)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release, and forget the history."""
        self._lengths.pop(seq, None)
        return super().on_finish(seq, view)
