"""Static allocation: the maximum, at once."""

from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve, append_plan
from kvbench.strategy.base import (
    CapacityExceeded,
    IntegerRule,
    as_required,
    constant,
)
from kvbench.strategy.longest import Longest
from kvbench.workload.request import Session


@dataclass(frozen=True, kw_only=True)
class Static(Longest):
    """Allocate the maximum when a sequence is admitted; never resize.

    Args:
        max_seq_len: tokens that a sequence can hold, > 0; None: those of the run's longest request, or the model's
            context where requests are not known beforehand.
    Raises:
        ValueError: max_seq_len is not positive.
    Source: the article, StaticKVCache.
    Departs: a sequence that is too long is an outcome, not an exception that stops the benchmark.
    """

    @property
    def integer_rule(self) -> IntegerRule:
        """The maximum at admission; nothing grows."""
        return IntegerRule(constant, (self.max_tokens,), as_required, (), self.max_tokens)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the maximum."""
        return (Reserve(seq, self.longest),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append; never more than the maximum."""
        required = view.num_used(seq) + num_tokens
        if required > self.longest:
            raise CapacityExceeded(required, self.longest)
        return append_plan(seq, num_tokens)
