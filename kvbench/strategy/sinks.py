"""Attention sinks: the first tokens and a recent window."""

from kvbench.checks import check_int
from kvbench.plan.area import Area, Ring
from kvbench.plan.ops import Rule
from kvbench.strategy.bounded import Bounded


class Sinks(Bounded):
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

    def __init__(self, *, num_sinks: int, window: int) -> None:
        check_int("num_sinks", num_sinks, 0)
        check_int("window", window, 1)
        self.num_sinks = self.num_first = num_sinks
        self.window = window
        super().__init__(
            capacity=num_sinks + window,
            rule=Rule(first=num_sinks, recent=window),
            rule_of_step=Rule(first=num_sinks, recent=window - 1),
        )
        self.areas = (Area(layout=Ring(num_sinks)),)

    def within(self, budget_tokens: int, num_tokens: int) -> "Sinks":
        """As many sinks, and a window of the rest."""
        check_int("sinks: its budget in tokens", budget_tokens, self.num_sinks + 1)
        return Sinks(num_sinks=self.num_sinks, window=budget_tokens - self.num_sinks)
