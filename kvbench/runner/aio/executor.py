"""One strategy, one ledger and one backend for several caches, used from several threads."""

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from threading import Event, Lock

import torch
from torch import Tensor

from kvbench.backend.measured import Measured
from kvbench.ledger import BackgroundError, Ledger, OutOfMemory
from kvbench.plan.area import Blocks, Chunks, Contiguous
from kvbench.plan.ops import NOTHING, Append, Operation, Plan, Release, Reserve, Settle
from kvbench.strategy.base import Strategy, rounded_up
from kvbench.workload.request import Request, Session

Layers = list[Tensor]
"""K or V, a layer each: [num_rows, num_kv_heads, num_tokens, head_dim]."""

NOTHING_WRITTEN: Layers = []
TENSORS_AT_ONCE = 1024
"""Of chunks that are reserved in one piece: a tenth of a second, at 0.1 ms each."""


class GivenUp(Exception):
    """What was asked for is not wanted any more."""


class Executor:
    """Decides and books under a lock, one call after another; copies outside of it.

    What hands out or frees what all share (blocks of a pool, staging buffers, bytes of a budget) is carried out with
    its booking: the next to book finds it there.

    Args:
        strategy: what decides for every cache.
        ledger: what counts; it holds nothing yet.
        backend: what carries out.
    """

    def __init__(self, strategy: Strategy, ledger: Ledger, backend: Measured) -> None:
        self._strategy = strategy
        self._ledger = ledger
        self._backend = backend
        self._view = ledger.view
        self._names = [area.name for area in strategy.areas]
        self._units = {
            area.name: area.layout.num_tokens for area in strategy.areas if isinstance(area.layout, Blocks | Chunks)
        }
        self.is_open = True
        self._lock = Lock()
        self._failed: set[int] = set()
        self._has_pool = any(isinstance(area.layout, Blocks) for area in strategy.areas)
        backend.begin_repetition(strategy.areas)
        strategy.on_begin()

    def has_failed(self, seq: int) -> bool:
        """Whether a call was left half done, or background work has failed: the sequence can only be released."""
        return seq in self._failed

    def admit(self, seq: int, num_tokens: int) -> None:
        """Open a sequence; all that is known of its length is its first update.

        Raises:
            OutOfMemory: there is no room; nothing is held.
        """
        with self._lock:
            self._ledger.open(seq)
            self._backend.open(seq)
        try:
            self._do(seq, lambda: self._strategy.on_admit(seq, Session(0, (Request(num_tokens),)), self._view))
        except BaseException:
            self.release(seq)
            raise

    def append(self, seq: int, keys: Layers, values: Layers) -> None:
        """Append, in as many steps as the strategy takes, each with what follows it."""
        total, done = keys[0].shape[2], 0
        try:
            while done < total:
                left = total - done
                with self._lock:
                    count = self._strategy.at_once(seq, left, self._view)
                self._step(seq, *([tensor.narrow(2, done, count) for tensor in tensors] for tensors in (keys, values)))
                done += count
        except BaseException:
            if done:
                self._failed.add(seq)
            raise

    def _step(self, seq: int, keys: Layers, values: Layers) -> None:
        count = keys[0].shape[2]
        plan: Plan = NOTHING
        while not any(isinstance(op, Append) for op in plan):
            plan = self._do(seq, lambda: self._planned(seq, count), keys, values)
        try:
            while self._do(seq, lambda: self._after(seq, count)) == (Settle(seq),):
                pass
        except OutOfMemory:  # it waits for the next step's
            if self.has_failed(seq):
                raise
        except BaseException:
            self._failed.add(seq)
            raise

    def make_room(self, seq: int, num_tokens: int, given_up: Event) -> None:
        """Do now, and beside other work where it can be, what an append of so many tokens would wait for.

        Chunks and blocks come some at a time, and those that came are given back where the rest is refused.

        Raises:
            GivenUp: the event was set before all had come.
        """
        before = {area: self._view.allocated(seq, area) for area in self._units}
        is_whole = False

        def plan() -> Plan:
            nonlocal is_whole
            wanted = self._room(seq, num_tokens)
            parts = [self._part(op) for op in wanted]
            num_whole = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(wanted, parts, strict=True)))
            is_whole = num_whole == len(wanted)
            return tuple(parts[: num_whole + 1])

        try:
            while self._do(seq, plan) == (Settle(seq),) or not is_whole:
                if given_up.is_set():
                    raise GivenUp("nobody waits for it any more")
        except Exception:
            if not self.has_failed(seq):
                self._do(seq, lambda: self._given_back(seq, before))
            raise

    def _room(self, seq: int, num_tokens: int) -> Plan:
        """What an append of so many tokens would wait for; nothing, where a resize that is under way has room."""
        if any(
            self._view.next_capacity(seq, area) >= self._view.num_used(seq, area) + num_tokens for area in self._names
        ):
            return NOTHING
        planned = self._planned(seq, self._strategy.at_once(seq, num_tokens, self._view))
        return tuple(self._beside(op) for op in takewhile(lambda op: not isinstance(op, Append), planned))

    def _part(self, op: Operation) -> Operation:
        """As much of a reserve as takes no longer than somebody can wait; another operation as it is."""
        if not isinstance(op, Reserve) or op.area not in self._units:
            return op
        most = max(1, TENSORS_AT_ONCE // (2 * self._ledger.geometry.num_layers)) * self._units[op.area]
        return replace(op, num_tokens=min(op.num_tokens, self._view.allocated(op.seq, op.area) + most))

    def _given_back(self, seq: int, before: dict[str, int]) -> Plan:
        """What takes areas back to what they were, as far as they are empty."""
        plan = []
        for area, unit in self._units.items():
            allocated, used = self._view.allocated(seq, area), self._view.num_used(seq, area)
            in_use = used + allocated - self._view.capacity(seq, area)
            least = max(before[area], rounded_up(in_use, unit))
            plan += [Reserve(seq, least, area)] if least < allocated else []
        return tuple(plan)

    def read(self, seq: int) -> list[tuple[Tensor, Tensor]]:
        """K and V of all tokens, in order, a pair a layer: new tensors."""
        sequence, geometry, backend = self._backend.sequence(seq), self._ledger.geometry, self._backend
        if sequence.num_held:
            return [sequence.full_context(layer)[:2] for layer in range(geometry.num_layers)]
        size = (backend.num_rows, geometry.num_kv_heads, 0, geometry.head_dim)
        none = torch.empty(size, dtype=getattr(torch, geometry.dtype), device=backend.device)
        return [(none, none)] * geometry.num_layers

    def release(self, seq: int) -> None:
        """Free what a sequence holds, once its background work has ended.

        Raises:
            BackgroundError: that work had failed; all is freed nevertheless.
        """
        try:
            self._do(seq, lambda: self._strategy.on_finish(seq, self._view))
        finally:
            self._failed.discard(seq)

    def close(self) -> None:
        """Free all that is held."""
        self.is_open = False
        for seq in list(self._ledger.accounts):
            try:
                self.release(seq)
            except BackgroundError:  # nobody waits for it any more
                continue
        self._backend.end_repetition()

    def _planned(self, seq: int, num_tokens: int) -> Plan:
        return self._unhindered(seq, self._strategy.on_append(seq, num_tokens, self._view))

    def _after(self, seq: int, num_tokens: int) -> Plan:
        return self._unhindered(seq, self._strategy.on_attended(seq, num_tokens, self._view))

    def _unhindered(self, seq: int, plan: Plan) -> Plan:
        """A plan; but only Settle, where it must wait for a prefetch that the strategy knows nothing of."""
        if not plan or isinstance(plan[0], Settle) or all(isinstance(op, Append) for op in plan):
            return plan
        is_busy = any(self._view.is_busy(seq, area) for area in self._names)
        return (Settle(seq),) if is_busy else plan

    def _beside(self, op: Operation) -> Operation:
        """A resize that can run in the background does."""
        if not isinstance(op, Reserve) or not isinstance(self._ledger.costs[op.area].area.layout, Contiguous):
            return op
        capacity = self._view.capacity(op.seq, op.area)
        grows = capacity < op.num_tokens <= self._view.room_beside(op.seq, capacity, op.area)
        return replace(op, background=op.background or (grows and not self._view.is_busy(op.seq, op.area)))

    def _do(
        self,
        seq: int,
        decide: Callable[[], Plan],
        keys: Layers = NOTHING_WRITTEN,
        values: Layers = NOTHING_WRITTEN,
    ) -> Plan:
        """Book what is decided, and carry it out. What it settles is waited for outside of the lock.

        Returns:
            The plan.
        """
        with self._lock:
            plan = decide()
            settles = bool(plan) and isinstance(plan[0], Settle)
            if not settles:
                then = self._booked(seq, plan, keys, values)
        if settles:
            try:
                self._backend.check(plan)
            except BaseException:
                self._failed.add(seq)
                raise
            with self._lock:
                plan = decide()  # what others have booked meanwhile may have changed it
                then = self._booked(seq, plan, keys, values)
        self._carry_out(seq, then, keys, values)
        return plan

    def _booked(self, seq: int, plan: Plan, keys: Layers, values: Layers) -> Plan:
        """Book a plan; what is left to be carried out of it."""
        at_once, then = self._divided(plan)
        self._ledger.book(plan)
        self._carry_out(seq, at_once, keys, values)
        return then

    def _divided(self, plan: Plan) -> tuple[Plan, Plan]:
        """What is carried out with the booking, and what after it."""
        if not (self._has_pool or not self._ledger.has_begun or any(isinstance(op, Release) for op in plan)):
            return NOTHING, plan
        first = next((number for number, op in enumerate(plan) if isinstance(op, Append)), len(plan))
        if all(isinstance(op, Append) for op in plan[first:]):
            return plan[:first], plan[first:]
        return plan, NOTHING

    def _carry_out(self, seq: int, plan: Plan, keys: Layers, values: Layers) -> None:
        done = 0
        try:
            for op in plan:
                count = op.num_tokens if isinstance(op, Append) else 0
                cut = [[tensor.narrow(2, done, count) for tensor in tensors] for tensors in (keys, values)]
                self._backend.carry_out(op, *cut)
                done += count
        except BaseException:
            self._failed.add(seq)
            raise
