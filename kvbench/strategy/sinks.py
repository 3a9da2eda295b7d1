"""Attention sinks: the first tokens and a recent window."""

from kvbench.area import Area, Ring
from kvbench.ledger import LedgerView
from kvbench.ops import NOTHING, Keep, Plan, Reserve, Rule, append_plan, keep_and_append_plan
from kvbench.strategy.base import Strategy, require_positive, require_whole, resize_and_append
from kvbench.workload.request import Request


class Sinks(Strategy):
    """Keep attention sinks and a recent window in a ring; evict the rest.

    Memory is constant in the sequence's length; the middle is forgotten. A decoded token takes the oldest one's slot,
    so that nothing moves. A longer append is attended whole and reduced after.

    Args:
        num_sinks: tokens kept at the start, >= 0.
        window: tokens kept at the end, > 0.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Xiao et al. 2023, arXiv:2309.17453, section 3 (StreamingLLM).
    Departs: positions are not re-rotated; a prompt longer than the window is attended whole before it is reduced.
    """

    lossless = False

    def __init__(self, *, num_sinks: int, window: int) -> None:
        require_whole("num_sinks", num_sinks)
        require_positive("window", window)
        self.num_sinks = num_sinks
        self.window = window
        self.capacity = num_sinks + window
        self.areas = (Area(layout=Ring(num_sinks)),)
        self._rule = Rule(first=num_sinks, recent=window)
        self._rule_of_step = Rule(first=num_sinks, recent=window - 1)

    def on_admit(self, seq: int, request: Request, view: LedgerView) -> Plan:
        """Reserve sinks and window."""
        return (Reserve(seq, self.capacity),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; a single token takes the oldest one's slot, more get room for the while."""
        required = view.num_used(seq) + num_tokens
        if required <= self.capacity:
            return append_plan(seq, num_tokens)
        if num_tokens == 1:
            return keep_and_append_plan(seq, self._rule_of_step, 1)
        return resize_and_append(seq, required, num_tokens)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reduce to sinks and window what was let in whole."""
        if view.capacity(seq) <= self.capacity:
            return NOTHING
        return (Keep(seq, self._rule), Reserve(seq, self.capacity))
