"""Dynamic growth: a larger buffer by a factor, when an append does not fit."""

from dataclasses import dataclass
from typing import Annotated, Self

from kvbench.checks import check_bound, check_int, check_number
from kvbench.ledger import UNLIMITED, LedgerView, Limits
from kvbench.plan.ops import Plan, Reserve, append_plan
from kvbench.strategy.base import (
    CapacityExceeded,
    IntegerRule,
    Strategy,
    constant,
    derived,
    resize_and_append,
    rounded_up,
)
from kvbench.tried import Tried
from kvbench.workload.request import Session


def grown_capacity(capacity: int, required: int, growth_factor: float, round_to: int, max_capacity: int) -> int:
    """How far to grow: by the factor, at least to what is required, rounded up, at most to the maximum.

    Args:
        capacity: slots now.
        required: slots that the append needs, at most max_capacity.
        growth_factor: > 1.
        round_to: the result is a multiple of this, unless the maximum cuts it.
        max_capacity: slots at most.
    Returns:
        The new capacity in slots.
    Source: the article, DynamicKVCache.
    """
    grown = max(int(capacity * growth_factor), required)
    return min(rounded_up(grown, round_to), max_capacity)


@dataclass(frozen=True, kw_only=True)
class Dynamic(Strategy):
    """Start small and grow by a factor; live data is copied at each growth.

    Memory is at most the factor times what is used; the copies cost a constant a token on average.

    Args:
        initial_capacity: slots reserved when a sequence is admitted, > 0.
        growth_factor: new capacity over old, > 1.
        max_capacity: slots at most, >= initial_capacity; None: the model's context, where it is known, and no
            less than the run's longest request.
        round_to: capacities are multiples of this, > 0.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, DynamicKVCache.
    Departs: it allocates once heads, size and dtype are known; a sequence that is too long is an outcome.
    """

    initial_capacity: Annotated[int, Tried(choices=(128, 256, 512, 1024, 2048, 4096))] = 512
    growth_factor: Annotated[float, Tried(1.1, 3.0)] = 1.5
    max_capacity: int | None = None
    round_to: int = 1

    def __post_init__(self) -> None:
        check_int("initial_capacity", self.initial_capacity, 1)
        check_number("growth_factor", self.growth_factor, 1, 100, above=True, below=True)
        check_bound("max_capacity", self.max_capacity)
        check_int("round_to", self.round_to, 1)
        if self.initial_capacity > self.max_tokens:
            raise ValueError(
                f"initial_capacity is at most max_capacity ({self.max_tokens}), got {self.initial_capacity}"
            )

    @derived
    def max_tokens(self) -> int:
        """The maximum; without limit as long as no run has decided it."""
        return UNLIMITED if self.max_capacity is None else self.max_capacity

    def fitted(self, limits: Limits) -> Self:
        """The same strategy with a maximum, where the run knows one. See `Strategy.fitted`."""
        most = limits.to_grow(UNLIMITED)
        if self.max_capacity is not None or most == UNLIMITED:
            return self
        return self._with(max_capacity=max(most, self.initial_capacity))

    @property
    def first_capacity(self) -> int:
        """Slots reserved at admission."""
        return min(rounded_up(self.initial_capacity, self.round_to), self.max_tokens)

    @property
    def integer_rule(self) -> IntegerRule:
        """The initial capacity at admission, and `grown_capacity`."""
        grown_by = (self.growth_factor, self.round_to, self.max_tokens)
        return IntegerRule(constant, (self.first_capacity,), grown_capacity, grown_by, self.max_tokens)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the initial capacity."""
        return (Reserve(seq, self.first_capacity),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or grow first."""
        required = view.num_used(seq) + num_tokens
        if required <= view.capacity(seq):
            return append_plan(seq, num_tokens)
        return resize_and_append(seq, self._grown(view.capacity(seq), required), num_tokens)

    def _grown(self, capacity: int, required: int) -> int:
        if required > self.max_tokens:
            raise CapacityExceeded(required, self.max_tokens)
        return grown_capacity(capacity, required, self.growth_factor, self.round_to, self.max_tokens)
