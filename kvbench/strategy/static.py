"""Static allocation: the maximum, at once; and what all share that reserve by the longest sequence."""

from dataclasses import dataclass
from typing import Self

from kvbench.checks import check_bound
from kvbench.ledger import UNLIMITED, LedgerView, Limits
from kvbench.plan.ops import Plan, Reserve, append_plan
from kvbench.strategy.base import CapacityExceeded, IntegerRule, Strategy, as_required, constant, derived
from kvbench.workload.request import Session


@dataclass(frozen=True, kw_only=True)
class Longest(Strategy):
    """The base of strategies with a longest sequence, which they reserve by.

    Args:
        max_seq_len: tokens that a sequence can hold, > 0; None: those of the run's longest request, or the model's
            context where requests are not known beforehand.
    Raises:
        ValueError: max_seq_len is not positive.
    """

    max_seq_len: int | None = None

    def __post_init__(self) -> None:
        check_bound("max_seq_len", self.max_seq_len)

    @derived
    def max_tokens(self) -> int:
        """Tokens that a sequence can hold; without limit as long as no run has decided it."""
        return UNLIMITED if self.max_seq_len is None else self.max_seq_len

    @property
    def longest(self) -> int:
        """Tokens that a sequence can hold.

        Raises:
            ValueError: it was left to the run, and that has not begun.
        """
        if self.max_seq_len is None:
            raise ValueError("max_seq_len: null is for the run to decide (Strategy.fitted), and none has")
        return self.max_seq_len

    def fitted(self, limits: Limits) -> Self:
        """The same strategy with a longest sequence. See `Strategy.fitted`."""
        return self if self.max_seq_len is not None else self._with(max_seq_len=limits.to_hold("max_seq_len"))


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
