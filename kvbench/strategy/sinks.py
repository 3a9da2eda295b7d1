"""Attention sinks: the first tokens and a recent window."""

from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int
from kvbench.plan.area import Area, Ring
from kvbench.plan.ops import Rule
from kvbench.strategy.base import derived
from kvbench.strategy.bounded import Bounded
from kvbench.tried import Tried


@dataclass(frozen=True, kw_only=True)
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

    num_sinks: Annotated[int, Tried(choices=(0, 1, 4, 16))] = 4
    window: Annotated[int, Tried(choices=(252, 508, 1020, 2044, 4092, 8188))] = 1020

    def __post_init__(self) -> None:
        check_int("num_sinks", self.num_sinks, 0)
        check_int("window", self.window, 1)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """A ring that pins the sinks."""
        return (Area(layout=Ring(self.num_sinks)),)

    @derived
    def num_first(self) -> int:
        """The sinks."""
        return self.num_sinks

    @derived
    def rule(self) -> Rule:
        """The sinks and the window."""
        return Rule(first=self.num_sinks, recent=self.window)

    def within(self, budget_tokens: int, num_tokens: int) -> "Sinks":
        """As many sinks, and a window of the rest."""
        check_int("sinks: its budget in tokens", budget_tokens, self.num_sinks + 1)
        return Sinks(num_sinks=self.num_sinks, window=budget_tokens - self.num_sinks)
