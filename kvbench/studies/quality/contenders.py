"""Who is compared: strategies, each with its budgets, and transformers' own caches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvbench.strategy.base import Strategy

KVBENCH, TRANSFORMERS = "kvbench", "transformers"
LOSSLESS_PEERS = ("dynamic", "static")


PRIMED = {"fp8": 64}
"""Tokens that transformers' caches are fed at once where others get one by one: fp8 keeps its first update's scale."""


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        label: of the strategy or cache.
        holder: a strategy as configured, or the name of one of transformers' caches.
        budget_tokens: that attention may read; None: no such budget.
    """

    label: str
    holder: Strategy | str
    budget_tokens: int | None = None

    @property
    def kind(self) -> str:
        """Whose it is."""
        return TRANSFORMERS if isinstance(self.holder, str) else KVBENCH

    @property
    def lossless(self) -> bool:
        """Whether attention reads every token, unchanged."""
        return self.holder in LOSSLESS_PEERS if isinstance(self.holder, str) else self.holder.lossless

    @property
    def reference(self) -> bool:
        """Whether it is there to compare with, and never chosen."""
        return not isinstance(self.holder, str) and self.holder.reference

    @property
    def title(self) -> str:
        """The label and the budget."""
        return self.label if self.budget_tokens is None else f"{self.label} within {self.budget_tokens:,}"

    def holder_of(self, num_tokens: int) -> Strategy | str:
        """What holds a sequence of so many tokens: the strategy, within its budget.

        Raises:
            ValueError: the budget is less than it can do with.
        """
        if isinstance(self.holder, str) or self.budget_tokens is None:
            return self.holder
        return self.holder.within(self.budget_tokens, num_tokens)


def contenders(
    strategies: Mapping[str, Strategy], peers: Iterable[str], budgets: Sequence[float], num_tokens: int
) -> tuple[list[Contender], list[str]]:
    """All rows, in order, and why some are not.

    Args:
        strategies: by label.
        peers: names of transformers' caches.
        budgets: shares of the tokens.
        num_tokens: of the text.
    Returns:
        The contenders, and a sentence for each budget that a strategy cannot do with.
    """
    found: list[Contender] = []
    refused = []
    for label, strategy in strategies.items():
        for share in budgets:
            budget_tokens = max(round(share * num_tokens), 1)
            try:
                is_bounded = strategy.within(budget_tokens, num_tokens) is not None
            except ValueError as error:
                refused.append(f"{label} is left out within {budget_tokens:,} tokens: {error}.")
                continue
            contender = Contender(label, strategy, budget_tokens if is_bounded else None)
            if contender not in found:
                found.append(contender)
    return found + [Contender(f"{TRANSFORMERS} {name}", name) for name in dict.fromkeys(peers)], refused
