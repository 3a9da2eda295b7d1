"""Growth ahead: dynamic's resizes, begun before they are needed and carried out beside the steps."""

from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_share
from kvbench.ledger import LedgerView
from kvbench.plan.ops import NOTHING, Plan, Reserve, Settle, append_plan
from kvbench.strategy.dynamic import Dynamic
from kvbench.tried import Tried


@dataclass(frozen=True, kw_only=True)
class Ahead(Dynamic):
    """Grow as dynamic does, but allocate and copy beside the steps, from a share of the capacity on.

    Both buffers are held in full until the new one takes the old one's place, at the append that needs it: that memory
    is the price of steps that do not wait. Where a budget has no room for both, it grows in the step, as dynamic. All
    is decided by counts, nothing by the clock: a resize that is needed before it is done is waited for.

    Args:
        initial_capacity: slots reserved when a sequence is admitted, > 0.
        growth_factor: new capacity over old, > 1.
        max_capacity: as in Dynamic.
        round_to: capacities are multiples of this, > 0.
        start_at: share of the capacity in use from which on the next resize runs, above 0 and at most 1.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, AsyncKVCache.
    Departs: there, appends are queued beside the steps, for several caches (kvbench.runner.aio does that); here each
        append is in its step, and only what makes a step wait, the resize, runs beside it.
    """

    decides_by = "background work, which is under way or not"

    start_at: Annotated[float, Tried(0.5, 0.95)] = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("start_at", self.start_at)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; settle, or grow in the step, where it does not; then begin the next resize in time."""
        capacity = view.capacity(seq)
        required = view.num_used(seq) + num_tokens
        if required <= capacity:
            if required < capacity * self.start_at or view.is_busy(seq):
                return append_plan(seq, num_tokens)
            return (*append_plan(seq, num_tokens), *self._ahead(seq, capacity, required, view))
        plan = NOTHING
        if view.is_busy(seq):
            plan, capacity = (Settle(seq),), view.next_capacity(seq)
        if required > capacity:
            capacity = self._grown(capacity, required)
            plan += (Reserve(seq, capacity),)
        return (*plan, *append_plan(seq, num_tokens), *self._ahead(seq, capacity, required, view))

    def _ahead(self, seq: int, capacity: int, required: int, view: LedgerView) -> Plan:
        """Begin the next resize where it is time, and there is room for both buffers.

        Args:
            seq: the sequence, with no resize under way.
            capacity: its slots once the plan so far is carried out.
            required: those in use then.
            view: of the ledger.
        """
        if required < capacity * self.start_at or capacity >= self.max_tokens:
            return NOTHING
        grown = self._grown(capacity, capacity + 1)
        if grown > view.room_beside(seq, capacity):
            return NOTHING
        return (Reserve(seq, grown, background=True),)
