"""Growth within a bound: what another strategy reserves on the device at once, reserved little by little."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeGuard

from kvbench.ledger import LedgerView
from kvbench.plan.area import Blocks, held_in
from kvbench.plan.ops import MAIN, Append, Operation, Plan, Reserve
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


class Grown(Strategy):
    """Let one strategy decide how far the area main grows, up to the size at which another reserves it at once.

    Once the area has that size, it is the other's alone. Slots for a while, such as those of a prompt that is attended
    whole, are the other's as well.

    Args:
        bounded: reserves the area main at admission, always as large.
        growth: decides how capacity grows, and what dtype is held; what else it plans is not asked for.
        bound: slots that bounded reserves, > 0.
    Source: none.
    Departs: none.
    """

    def __init__(self, *, bounded: Strategy, growth: Strategy, bound: int) -> None:
        self.areas = held_in(bounded.areas, growth.areas[-1].format)
        self.lossless = bounded.lossless and growth.lossless
        self.reference = bounded.reference or growth.reference
        self.num_first = bounded.num_first
        self._bounded = bounded
        self._growth = growth
        self._bound = bound
        self._gives_back = isinstance(self.areas[-1].layout, Blocks)
        self.pooled_tokens = bound

    @property
    def attends_all(self) -> bool:
        """As the bounded strategy."""
        return self._bounded.attends_all

    def on_begin(self) -> None:
        """A new repetition for both."""
        self._bounded.on_begin()
        self._growth.on_begin()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve as much of the area main as growth begins with."""
        own = [op for op in self._bounded.on_admit(seq, session, view) if not _reserves_main(op)]
        return (*own, *self._within(self._growth.on_admit(seq, session, view), 0))

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """As the bounded strategy."""
        return self._bounded.at_once(seq, num_tokens, view)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """The bounded strategy's plan; before its append, what growth reserves for it."""
        plan = self._bounded.on_append(seq, num_tokens, view)
        place = next((i for i, op in enumerate(plan) if type(op) is Append and op.area == MAIN), None)
        if place is None or (view.capacity(seq) >= self._bound and not (place and self._gives_back)):
            return plan
        before = plan[:place]
        if any(_reserves_main(op) for op in before):
            return plan
        later = view.after(before) if before else view
        append = plan[place]
        assert isinstance(append, Append)
        grown = self._within(self._growth.on_append(seq, append.num_tokens, later), later.capacity(seq))
        return (*before, *grown, *plan[place:]) if grown else plan

    def _within(self, plan: Iterable[Operation], capacity: int) -> list[Reserve]:
        """What a plan reserves, each within the bound and more than there is."""
        reserved = [replace(op, num_tokens=min(op.num_tokens, self._bound)) for op in plan if _reserves_main(op)]
        return [op for op in reserved if op.num_tokens > capacity]

    def on_fork(self, seq: int, parent: int, num_tokens: int, view: LedgerView) -> Plan:
        """As growth, while the area main holds all that the parent has."""
        if view.num_used(parent) < view.num_seen(parent):
            return ()
        return self._growth.on_fork(seq, parent, num_tokens, view)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the bounded strategy; growth remembers the append."""
        self._growth.on_attended(seq, num_tokens, view)
        return self._bounded.on_attended(seq, num_tokens, view)

    def on_pressure(self, seq: int, need_bytes: int, view: LedgerView) -> Plan:
        """As the bounded strategy."""
        return self._bounded.on_pressure(seq, need_bytes, view)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release; both forget the sequence."""
        self._growth.on_finish(seq, view)
        return self._bounded.on_finish(seq, view)

    def on_complete(self, session: Session) -> None:
        """Both learn."""
        self._bounded.on_complete(session)
        self._growth.on_complete(session)


def _reserves_main(op: Operation) -> TypeGuard[Reserve]:
    return isinstance(op, Reserve) and op.area == MAIN
