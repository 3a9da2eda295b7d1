"""SnapKV: the prompt's last tokens vote for what is kept of it."""

from kvbench.area import SIGNALS, Area, Holes, Votes
from kvbench.ledger import LedgerView
from kvbench.ops import NOTHING, Keep, Plan, Reserve, Rule, append_plan
from kvbench.strategy.base import Strategy, require_positive, resize_and_append, rounded_up

GROWTH_TOKENS = 256


class SnapKV(Strategy):
    """Reduce each prompt to the tokens that its last ones look at, and those last ones; keep all that is decoded.

    Every layer, row and KV head keeps tokens of its own. Votes are attention mass, averaged over neighbouring tokens,
    so that a clue is kept with what surrounds it.

    Args:
        budget: tokens kept of a prompt, observation window included, > window.
        window: tokens at the prompt's end that vote and are kept, > 0.
        kernel_size: neighbouring tokens whose votes are averaged, odd.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Li et al. 2024, arXiv:2404.14469, section 4.
    Departs: in a conversation, each turn's prompt votes anew over all that is held; with grouped heads, the votes of a
        KV head are the sum over its query heads.
    """

    lossless = False

    def __init__(self, *, budget: int, window: int, kernel_size: int) -> None:
        require_positive("budget", budget)
        require_positive("window", window)
        require_positive("kernel_size", kernel_size)
        if window >= budget:
            raise ValueError(f"window is less than budget ({budget}), got {window}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is odd, got {kernel_size}")
        self.budget = budget
        self.areas = (Area(layout=Holes(), positions=True, score=Votes(window, kernel_size)),)
        self._rule = Rule(recent=window, top=budget - window, by=SIGNALS[Votes])

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or make room first."""
        required = view.num_used(seq) + num_tokens
        if required <= view.capacity(seq):
            return append_plan(seq, num_tokens)
        return resize_and_append(seq, rounded_up(required, GROWTH_TOKENS), num_tokens)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """After a prompt over the budget: reduce, with room for the answer's first tokens."""
        if num_tokens == 1 or view.num_used(seq) <= self.budget:
            return NOTHING
        return (Keep(seq, self._rule), Reserve(seq, rounded_up(self.budget + 1, GROWTH_TOKENS)))
