"""Heavy hitters: the tokens that attention looked at most, and recent ones."""

from kvbench.checks import check_int
from kvbench.plan.area import SIGNALS, Area, Holes, Mass
from kvbench.plan.ops import Rule
from kvbench.strategy.bounded import Bounded


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

    def __init__(self, *, num_heavy: int, num_recent: int) -> None:
        check_int("num_heavy", num_heavy, 1)
        check_int("num_recent", num_recent, 0)
        by = SIGNALS[Mass]
        super().__init__(
            capacity=num_heavy + num_recent,
            rule=Rule(recent=num_recent, top=num_heavy, by=by),
            rule_of_step=Rule(recent=max(num_recent - 1, 0), top=num_heavy - (num_recent == 0), by=by),
        )
        self.areas = (Area(layout=Holes(), positions=True, score=Mass()),)

    def within(self, budget_tokens: int, num_tokens: int) -> "HeavyHitters":
        """Half of them by mass, the others recent."""
        check_int("heavy_hitters: its budget in tokens", budget_tokens, 1)
        num_recent = budget_tokens // 2
        return HeavyHitters(num_heavy=budget_tokens - num_recent, num_recent=num_recent)
