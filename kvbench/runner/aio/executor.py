"""One strategy, one ledger and one backend for several caches, used from several threads."""

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from threading import Event, Lock
from typing import Any

import torch
from torch import Tensor

from kvbench.backend.base import Booking
from kvbench.backend.measured import MeasuredBackend
from kvbench.ledger import BackgroundError, Ledger, LedgerView
from kvbench.plan.area import Blocks, Chunks, Contiguous
from kvbench.plan.ops import NOTHING, Append, Operation, Plan, Release, Reserve, Settle
from kvbench.runner.drive import Driver, settles
from kvbench.strategy.base import Strategy, rounded_up
from kvbench.workload.request import Request, Session

Layers = list[Tensor]
"""K or V, a layer each: [num_rows, num_kv_heads, num_tokens, head_dim]."""

NOTHING_WRITTEN: tuple[Layers, Layers] = ([], [])
TENSORS_AT_ONCE = 1024
"""Of chunks that are reserved in one piece: a tenth of a second, at 0.1 ms each."""


class GivenUp(Exception):
    """What was asked for is not wanted any more."""


class Executor(Driver):
    """Decides and books under a lock, one call after another; copies outside of it, before a booking is returned.

    What hands out or frees what all share (blocks of a pool, staging buffers, bytes of a budget) is carried out with
    its booking: the next to book finds it there. What a plan settles is waited for outside of the lock, and so is first
    what a prefetch is still doing, of which the strategy knows nothing.

    Args:
        strategy: what decides for every cache.
        ledger: what counts; it holds nothing yet.
        backend: what carries out.
    """

    def __init__(self, strategy: Strategy, ledger: Ledger, backend: MeasuredBackend) -> None:
        self._backend = backend
        self._names = [area.name for area in strategy.areas]
        self._units = {
            area.name: area.layout.num_tokens for area in strategy.areas if isinstance(area.layout, Blocks | Chunks)
        }
        self.is_open = True
        self._lock = Lock()
        self._failed: set[int] = set()
        self._given: dict[int, tuple[Layers, Layers]] = {}
        self._has_pool = any(isinstance(area.layout, Blocks) for area in strategy.areas)
        backend.begin_repetition(strategy.areas)
        super().__init__(strategy, ledger, backend)

    def has_failed(self, seq: int) -> bool:
        """Whether a call was left half done, or background work has failed: the sequence can only be released."""
        return seq in self._failed

    def begin(self, seq: int, num_tokens: int) -> None:
        """Open and admit a sequence; all that is known of its length is its first update.

        Raises:
            OutOfMemory: there is no room; nothing is held.
        """
        with self._lock:
            self.open(seq)
        try:
            self.admit(seq, Session(0, (Request(num_tokens),)))
        except BaseException:
            self.release(seq)
            raise

    def write(self, seq: int, keys: Layers, values: Layers) -> None:
        """Append, in as many steps as the strategy takes, each with what follows it."""
        done = 0
        try:
            for count in self.steps(seq, keys[0].shape[2]):
                self._given[seq] = (
                    [each.narrow(2, done, count) for each in keys],
                    [each.narrow(2, done, count) for each in values],
                )
                self.append(seq, count)
                done += count
                self.attended(seq, count)
        except BaseException:
            if done:
                self._failed.add(seq)
            raise
        finally:
            self._given.pop(seq, None)

    def at_once(self, seq: int, num_tokens: int) -> int:
        """See `Driver.at_once`."""
        with self._lock:
            return super().at_once(seq, num_tokens)

    def append(self, seq: int, num_written: int) -> Booking:
        """See `Driver.append`."""
        return self._do(seq, self.strategy.on_append, num_written) or self.book(seq, NOTHING)

    def make_room(self, seq: int, num_tokens: int, given_up: Event) -> None:
        """Do now, and beside other work where it can be, what an append of so many tokens would wait for.

        Chunks and blocks come some at a time, and those that came are given back where the rest is refused.

        Raises:
            GivenUp: the event was set before all had come.
        """
        before = {area: self.view.allocated(seq, area) for area in self._units}
        is_whole = False

        def plan(seq: int, _: object, view: LedgerView) -> Plan:
            nonlocal is_whole
            wanted = self._room(seq, num_tokens)
            parts = [self._part(op) for op in wanted]
            num_whole = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(wanted, parts, strict=True)))
            is_whole = num_whole == len(wanted) and wanted != (Settle(seq),)
            return tuple(parts[: num_whole + 1])

        try:
            self._do(seq, plan)
            while not is_whole:
                if given_up.is_set():
                    raise GivenUp("nobody waits for it any more")
                self._do(seq, plan)
        except Exception:
            if not self.has_failed(seq):
                self._do(seq, lambda seq, _, view: self._given_back(seq, before))
            raise

    def _room(self, seq: int, num_tokens: int) -> Plan:
        """What an append of so many tokens would wait for; nothing, where a resize that is under way has room."""
        if any(
            self.view.next_capacity(seq, area) >= self.view.num_used(seq, area) + num_tokens for area in self._names
        ):
            return NOTHING
        planned = self.strategy.on_append(seq, super().at_once(seq, num_tokens), self.view)
        return tuple(self._beside(op) for op in takewhile(lambda op: not isinstance(op, Append), planned))

    def _part(self, op: Operation) -> Operation:
        """As much of a reserve as takes no longer than somebody can wait; another operation as it is."""
        if not isinstance(op, Reserve) or op.area not in self._units:
            return op
        most = max(1, TENSORS_AT_ONCE // (2 * self.ledger.geometry.num_layers)) * self._units[op.area]
        return replace(op, num_tokens=min(op.num_tokens, self.view.allocated(op.seq, op.area) + most))

    def _given_back(self, seq: int, before: dict[str, int]) -> Plan:
        """What takes areas back to what they were, as far as they are empty."""
        plan = []
        for area, unit in self._units.items():
            allocated, used = self.view.allocated(seq, area), self.view.num_used(seq, area)
            in_use = used + allocated - self.view.capacity(seq, area)
            least = max(before[area], rounded_up(in_use, unit))
            plan += [Reserve(seq, least, area)] if least < allocated else []
        return tuple(plan)

    def read(self, seq: int) -> list[tuple[Tensor, Tensor]]:
        """K and V of all tokens, in order, a pair a layer: new tensors."""
        sequence, geometry, backend = self._backend.sequence(seq), self.ledger.geometry, self._backend
        if sequence.num_held:
            return [sequence.full_context(layer)[:2] for layer in range(geometry.num_layers)]
        size = (backend.num_rows, geometry.plain.num_kv_heads, 0, geometry.plain.head_dim)
        none = torch.empty(size, dtype=getattr(torch, geometry.dtype), device=backend.device)
        return [(none, none)] * geometry.num_layers

    def release(self, seq: int) -> None:
        """Free what a sequence holds, once its background work has ended.

        Raises:
            BackgroundError: that work had failed; all is freed nevertheless.
        """
        try:
            self.finish(seq)
        finally:
            self._failed.discard(seq)

    def close(self) -> None:
        """Free all that is held."""
        self.is_open = False
        for seq in list(self.ledger.accounts):
            try:
                self.release(seq)
            except BackgroundError:  # nobody waits for it any more
                continue
        self._backend.end_repetition()

    def _unhindered(self, seq: int, plan: Plan) -> Plan:
        """A plan; but only Settle, where it must wait for a prefetch that the strategy knows nothing of."""
        if settles(plan) or all(isinstance(op, Append) for op in plan) or isinstance(plan[-1], Release):
            return plan
        is_busy = any(self.view.is_busy(seq, area) for area in self._names)
        return (Settle(seq),) if is_busy else plan

    def _beside(self, op: Operation) -> Operation:
        """A resize that can run in the background does."""
        if not isinstance(op, Reserve) or not isinstance(self.ledger.costs[op.area].area.layout, Contiguous):
            return op
        capacity = self.view.capacity(op.seq, op.area)
        grows = capacity < op.num_tokens <= self.view.room_beside(op.seq, capacity, op.area)
        return replace(op, background=op.background or (grows and not self.view.is_busy(op.seq, op.area)))

    def _do(self, seq: int, hook: Callable[[int, Any, LedgerView], Plan], what: object = None) -> Booking | None:
        """Ask, book the answer, and carry it out; None where nothing is planned."""
        has_waited = False
        while True:
            with self._lock:  # what others have booked since it was asked last may have changed it
                asked = hook(seq, what, self.view)
                if not asked:
                    return None
                plan = self._unhindered(seq, asked)
                is_ready = has_waited or not settles(plan)
                if is_ready:
                    booking, then = self._booked(seq, plan)
            if is_ready:
                self._carry_out(seq, then)
                if plan is asked:
                    return booking
            else:
                self._wait(seq, plan)
            has_waited = not is_ready

    def _wait(self, seq: int, plan: Plan) -> None:
        try:
            self._backend.check(plan)
        except BaseException:
            self._failed.add(seq)
            raise

    def _booked(self, seq: int, plan: Plan) -> tuple[Booking, Plan]:
        """Book a plan; what is left to be carried out of it."""
        at_once, then = self._divided(plan)
        booking = self.book(seq, plan)
        self._carry_out(seq, at_once)
        return booking, then

    def _divided(self, plan: Plan) -> tuple[Plan, Plan]:
        """What is carried out with the booking, and what after it."""
        if not (self._has_pool or not self.ledger.has_begun or any(isinstance(op, Release) for op in plan)):
            return NOTHING, plan
        first = next((number for number, op in enumerate(plan) if isinstance(op, Append)), len(plan))
        if all(isinstance(op, Append) for op in plan[first:]):
            return plan[:first], plan[first:]
        return plan, NOTHING

    def _carry_out(self, seq: int, plan: Plan) -> None:
        done, given = 0, self._given.get(seq, NOTHING_WRITTEN)
        try:
            for op in plan:
                count = op.num_tokens if isinstance(op, Append) else 0
                self._backend.carry_out(op, *([each.narrow(2, done, count) for each in tensors] for tensors in given))
                done += count
        except BaseException:
            self._failed.add(seq)
            raise
