"""A sequence's storage: a chain of areas, oldest tokens first, and the operations on it."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from kvbench.backend.storage.ahead import UnderWay, let_go, move_ahead, resize_ahead
from kvbench.backend.storage.areas import Areas
from kvbench.backend.storage.base import Pair, Piece, Store, positions_of
from kvbench.backend.storage.paged import PagedStore
from kvbench.backend.storage.passing import PassingStore
from kvbench.backend.storage.slots import SlotStore
from kvbench.backend.storage.window import WindowStore
from kvbench.ledger import OutOfMemory
from kvbench.plan.area import DEVICE
from kvbench.plan.ops import (
    MAIN,
    Append,
    Fork,
    Keep,
    Move,
    Operation,
    Publish,
    Reserve,
    Reuse,
    Settle,
    Truncate,
    areas_of,
)


class SequenceStore:
    """One sequence: a store an area.

    Args:
        shared: what it shares with the others.
    """

    __slots__ = ("_attended", "_is_staged", "_shared", "area_names", "num_seen", "score", "stores", "under_way")

    def __init__(self, shared: Areas) -> None:
        self._shared = shared
        self.num_seen = 0
        self.score = next((area.score for area in shared.areas if area.score is not None), None)
        self.under_way: list[UnderWay] = []
        self.stores: dict[str, Store] = {}
        self._attended = [area.name for area in shared.areas if area.attended]
        self._is_staged = any(area.is_staged for area in shared.areas)
        self.area_names = {area.name for area in shared.areas}

    def _store(self, name: str) -> Store:
        """An area's store; made when it is first needed."""
        store = self.stores.get(name)
        if store is None:
            area = next(area for area in self._shared.areas if area.name == name)
            store = self.stores[name] = self._shared.store(area)
        return store

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, area: str = MAIN) -> None:
        """Write new tokens; see `Store.append`."""
        self.stores[area].append(keys, values, num_tokens, self.num_seen)
        self.num_seen += num_tokens

    def append_later(self) -> int | None:
        """Count a new token that the caller writes before anything reads it, where all that is held is blocks.

        Returns:
            Its slot of the pool; None, and nothing is counted, where not all that is held is blocks on the device.
        """
        store = self.only_blocks if len(self.stores) == 1 else None
        if store is None:
            return None
        self.num_seen += 1
        return store.take_slot(self.num_seen - 1)

    def carry_out(self, op: Operation, keys: list[Tensor], values: list[Tensor]) -> None:
        """Carry out an operation on this sequence alone, if it is of areas of its own; only an append reads K and V."""
        if not areas_of(op) <= self.area_names:
            return
        match op:
            case Append():
                self.append(keys, values, op.num_tokens, op.area)
            case Reserve():
                self._shared.begin()
                store = self._store(op.area)
                if op.background:
                    assert isinstance(store, SlotStore | WindowStore)  # the ledger lets no other grow beside the steps
                    self.under_way.append(resize_ahead(op, store, self._shared.background))
                else:
                    store.reserve(op.num_tokens)
            case Keep():
                self._store(op.area).keep(op.rule)
            case Move():
                source, target = self._store(op.src), self._store(op.dst)
                if op.background:
                    self.under_way.append(move_ahead(op, self.stores, self._shared.background))
                    return
                parts = source.leaving(op.rule)
                while parts:  # each is let go of before the rest closes ranks
                    target.receive(parts.pop(0))
                source.keep(op.rule)
            case Truncate():
                self._store(MAIN if MAIN in self.area_names else next(iter(self.area_names))).truncate(op.num_tokens)
                self.num_seen -= op.num_tokens
            case Settle():
                self._settle()
            case Publish() | Reuse():
                store = self._store(op.area)
                assert isinstance(store, PagedStore)  # the ledger lets no others have names
                if isinstance(op, Publish):
                    store.publish(op.key, op.num_tokens)
                else:
                    before = store.num_used
                    store.reuse(op.key)
                    self.num_seen += store.num_used - before

    def select_rows(self, index: Tensor) -> None:
        """Hold chosen rows of what there is, tensor by tensor; it is the only sequence, and nothing is under way.

        Args:
            index: rows, int64 [new num_rows].
        """
        self._shared.select_rows(index, list(self.stores.values()))

    def _settle(self) -> None:
        """Finish what is under way. What it takes the place of is let go of by the worker, right behind."""
        for work in self.under_way:
            work.handle.result()
        replaced = [tensor for work in self.under_way for tensor in work.finish()]
        self.under_way = []
        if replaced:
            self._shared.background.submit(partial(let_go, replaced))

    def fork(self, op: Fork, new: "SequenceStore") -> None:
        """Give another sequence the first tokens."""
        source, target = self._store(MAIN), new._store(MAIN)
        assert isinstance(source, PagedStore)
        assert isinstance(target, PagedStore)  # the ledger lets no others share
        source.fork(target, op.num_tokens)
        new.num_seen = op.num_tokens

    @property
    def num_held(self) -> int:
        """Tokens in all areas."""
        return sum(store.num_used for store in self.stores.values())

    def _live(self, names: list[str]) -> list[Store]:
        return [store for name in names if (store := self.stores.get(name)) is not None and store.num_used]

    def read(self, layer: int) -> list[Pair] | Iterator[Pair]:
        """K and V that attention reads, in any order; an iterator where they are staged, each read before the next."""
        if not self._is_staged and len(self._attended) == 1:
            return self.stores[self._attended[0]].read(layer)
        live = self._live(self._attended)
        if not (self._is_staged and any(store.area.is_staged for store in live)):
            return [pair for store in live for pair in store.read(layer)]
        return ((piece.keys, piece.values) for _, piece in self.pieces(layer))

    @property
    def device(self) -> torch.device:
        """Where attention is computed."""
        return self._shared.shape.device

    @property
    def only_blocks(self) -> PagedStore | None:
        """The one store that attention reads, where it is of blocks of a pool on the device; else None."""
        store = self.stores.get(self._attended[0]) if len(self._attended) == 1 else None
        return store if isinstance(store, PagedStore) and store.area.tier == DEVICE else None

    @property
    def is_read_in_place(self) -> bool:
        """Whether all that attention reads lies on the device, as it is, until the sequence's next step."""
        return not self._is_staged or self.only_blocks is not None

    def pieces(self, layer: int) -> Iterator[tuple[Store, Piece]]:
        """What attention reads, with positions; each piece is read before the next is asked for."""
        for store in self._live(self._attended):
            found = self._shared.staged(store, layer) if store.area.is_staged else store.pieces(layer)
            for piece in found:
                yield store, piece

    @property
    def ends_with_newest(self) -> Store | None:
        """The one store that attention reads, where it is read in place, and no window moves over it; else None."""
        stores = self._live(self._attended)
        is_one = len(stores) == 1 and not stores[0].area.is_staged and self.window is None
        return stores[0] if is_one else None

    @property
    def window(self) -> WindowStore | None:
        """The store of layers with a window; None in others."""
        store = next(iter(self.stores.values()), None) if self._shared.shape.window is not None else None
        return store if isinstance(store, WindowStore) else None

    def land(self) -> None:
        """Attention has seen the newest tokens: layers with a window let go of what has left it."""
        for store in self.stores.values():
            if isinstance(store, WindowStore | PassingStore):
                store.land()

    def full_context(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """All tokens that are held, attended or not, in the order of the sequence.

        Returns:
            K and V, [num_rows, num_kv_heads, tokens, head_dim], and positions, int64 [num_rows, num_kv_heads, tokens]:
            new tensors on the device.
        """
        shape = self._shared.shape
        keys, values, positions = [], [], []
        for store in self._live([area.name for area in self._shared.areas]):
            for piece in store.pieces(layer):
                keys.append(piece.keys.to(shape.device))
                values.append(piece.values.to(shape.device))
                positions.append(positions_of(piece, shape))
        joined = torch.cat(positions, dim=2)
        order = joined.argsort(dim=2)
        index = order.unsqueeze(-1).expand(-1, -1, -1, shape.head_dim)
        return torch.cat(keys, 2).gather(2, index), torch.cat(values, 2).gather(2, index), joined.gather(2, order)

    @property
    def is_growing(self) -> bool:
        """Whether a resize is under way in the background."""
        return any(work.is_resize for work in self.under_way)

    def failure(self, seq: int, slot_bytes: int) -> Exception | None:
        """Wait for background work, and discover what failed, before it is settled. See `UnderWay.failure`."""
        for work in self.under_way:
            error = work.failure(seq, slot_bytes)
            if error is not None:
                work.is_reported = True
                return error
        return None

    def release(self, seq: int, slot_bytes: int) -> Exception | None:
        """Wait for background work, which ends early where it can, give shared blocks back, and let everything go.

        Returns:
            What failed, where nobody was told; what there was no memory for was not needed. To raise it here would keep
            what a sequence shares for as long as somebody looks at the error.
        """
        for work in self.under_way:
            work.given_up.set()
        failures = []
        for work in self.under_way:
            error = work.failure(seq, slot_bytes)
            if error is None:
                work.handle.result()  # a device's own stream waits: what is freed may be written to until then
            elif not (work.is_reported or isinstance(error, OutOfMemory)):
                failures.append(error)
            work.give_up()
        self.under_way = []
        for store in self.stores.values():
            store.release()
        self.stores.clear()
        return failures[0] if failures else None
