"""Static allocation: the maximum, at once."""

from kvbench.ledger import LedgerView
from kvbench.ops import Plan, Reserve, append_plan
from kvbench.strategy.base import (
    CapacityExceeded,
    IntegerRule,
    Strategy,
    as_required,
    constant,
    require_positive,
)
from kvbench.workload.request import Session


class Static(Strategy):
    """Allocate the maximum when a sequence is admitted; never resize.

    Args:
        max_seq_len: tokens that a sequence can hold, > 0.
    Raises:
        ValueError: max_seq_len is not positive.
    Source: the article, StaticKVCache.
    Departs: a sequence that is too long is an outcome, not an exception that stops the benchmark.
    """

    def __init__(self, *, max_seq_len: int) -> None:
        require_positive("max_seq_len", max_seq_len)
        self.max_seq_len = self.max_capacity = max_seq_len

    @property
    def integer_rule(self) -> IntegerRule:
        """The maximum at admission; nothing grows."""
        return IntegerRule(constant, (self.max_seq_len,), as_required, (), self.max_seq_len)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the maximum."""
        return (Reserve(seq, self.max_seq_len),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append; never more than the maximum."""
        required = view.num_used(seq) + num_tokens
        if required > self.max_seq_len:
            raise CapacityExceeded(required, self.max_seq_len)
        return append_plan(seq, num_tokens)
