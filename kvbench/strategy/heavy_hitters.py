"""Heavy hitters: the tokens that attention looked at most, and recent ones."""

from dataclasses import dataclass

from kvbench.checks import check_int
from kvbench.plan.area import SIGNALS, Area, Holes, Mass
from kvbench.plan.ops import Rule
from kvbench.strategy.base import derived
from kvbench.strategy.bounded import Bounded


@dataclass(frozen=True, kw_only=True)
class HeavyHitters(Bounded):
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

    num_heavy: int = 512
    num_recent: int = 512

    areas = (Area(layout=Holes(), positions=True, score=Mass()),)

    def __post_init__(self) -> None:
        check_int("num_heavy", self.num_heavy, 1)
        check_int("num_recent", self.num_recent, 0)

    @derived
    def rule(self) -> Rule:
        """The heavy and the recent."""
        return Rule(recent=self.num_recent, top=self.num_heavy, by=SIGNALS[Mass])

    def within(self, budget_tokens: int, num_tokens: int) -> "HeavyHitters":
        """Half of them by mass, the others recent."""
        check_int("heavy_hitters: its budget in tokens", budget_tokens, 1)
        num_recent = budget_tokens // 2
        return HeavyHitters(num_heavy=budget_tokens - num_recent, num_recent=num_recent)
