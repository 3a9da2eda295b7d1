"""Concatenation: the baseline that everybody uses."""

from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan
from kvbench.strategy.base import IntegerRule, Strategy, as_required, constant, resize_and_append


@dataclass(frozen=True, kw_only=True)
class Concat(Strategy):
    """Allocate anew at every append, exactly what is needed, and copy everything.

    No slot is ever wasted; every append is a resize, so that the bytes copied grow with the square of the length.

    Source: Hugging Face transformers, DynamicCache (torch.cat in every update).
    Departs: none.
    """

    @property
    def integer_rule(self) -> IntegerRule:
        """Nothing at admission; what is required, at every append."""
        return IntegerRule(constant, (0,), as_required, (), None)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reserve what is held plus the new tokens."""
        capacity = as_required(view.capacity(seq), view.num_used(seq) + num_tokens)
        return resize_and_append(seq, capacity, num_tokens)
