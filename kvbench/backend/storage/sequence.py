"""A sequence's storage: a chain of areas, oldest tokens first, and the operations on it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kvbench.backend.background import Worker, worker_of
from kvbench.backend.storage.ahead import UnderWay, let_go, move_ahead, resize_ahead
from kvbench.backend.storage.base import Pair, Piece, Shape, Store, positions_of
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.chunked import ChunkedStore
from kvbench.backend.storage.memory import Memory, Staging, reads_in_parts
from kvbench.backend.storage.packed import PackedStore
from kvbench.backend.storage.paged import BlockPool, PagedStore
from kvbench.backend.storage.passing import PassingStore
from kvbench.backend.storage.ring import RingStore
from kvbench.backend.storage.slots import SlotStore
from kvbench.backend.storage.window import WindowStore
from kvbench.ledger import OutOfMemory
from kvbench.plan.area import (
    DEVICE,
    STAGING_TOKENS,
    Area,
    Blocks,
    Cast,
    Chunks,
    Contiguous,
    Packed,
    Ring,
    num_staging_buffers,
)
from kvbench.plan.ops import MAIN, Append, Fork, Keep, Move, Operation, Reserve, Settle, Truncate, areas_of

AT_ONCE_TOKENS = 8 * STAGING_TOKENS
"""Tokens of a layer that an accelerator gathers or restores at once, of what lies on itself."""


class Areas:
    """What all sequences of a repetition share: the areas, their memories, pools, staging buffers and workers.

    Pools and staging buffers come with the first reserve, as the ledger books them.

    Args:
        areas: how each sequence lives, oldest tokens first.
        shape: of their tensors.
        folder: where a disk tier's files go; None takes the system's folder for temporary ones.
        beside: those of other layers, read and stepped with these one after the other; staging buffers and workers are
            theirs.
        staged: shapes of all that is read through its staging buffers; () for its own.
        num_sharing: groups of layers alike that blocks of one pool are for: those beside these.
        num_buffers: of those; None: as many as its own areas take.
    """

    def __init__(
        self,
        areas: tuple[Area, ...],
        shape: Shape,
        folder: Path | None = None,
        beside: "Areas | None" = None,
        staged: tuple[Shape, ...] = (),
        num_sharing: int = 1,
        num_buffers: int | None = None,
    ) -> None:
        self._staged = staged
        self._num_sharing = num_sharing
        self._num_buffers = num_staging_buffers(areas) if num_buffers is None else num_buffers
        self.areas = areas
        self.shape = shape
        self._memories = {area.tier: Memory(area.tier, shape.device, folder) for area in areas}
        self._castings = {
            area.name: Casting(area.format, shape.num_layers, shape.num_heads, shape.dtype)
            for area in areas
            if isinstance(area.format, Cast)
        }
        is_one = beside is not None and beside._num_sharing > 1
        self._pools: dict[str, BlockPool] = beside._pools if beside is not None and is_one else {}
        self._staging: Staging | None = None
        self._beside = beside
        self.background: Worker = worker_of(shape.device, steps_back=True) if beside is None else beside.background
        self._reader: Worker | None = None
        self._has_begun = False

    def begin(self) -> None:
        """Allocate what is held from the first reserve on."""
        if self._has_begun:
            return
        for own in self._castings.values():
            own.begin(Memory(DEVICE, self.shape.device))
        for area in self.areas:
            if isinstance(area.layout, Blocks) and area.name not in self._pools:
                memory, casting = self._memories[area.tier], self._castings.get(area.name)
                layout = replace(area.blocks, pool_tokens=area.blocks.pool * self._num_sharing)
                self._pools[area.name] = BlockPool(replace(area, layout=layout), self._shape_in(area), memory, casting)
        if self._beside is None:
            self._stage()
        else:
            self._beside.begin()
        self._has_begun = True

    def _stage(self) -> None:
        if self._num_buffers:
            memory = self._memories.get(DEVICE) or Memory(DEVICE, self.shape.device)
            self._staging = Staging(self._num_buffers, self._staged or (self.shape,), memory)

    @property
    def staging(self) -> Staging | None:
        """The staging buffers, once there are any."""
        return self._staging if self._beside is None else self._beside.staging

    def select_rows(self, index: Tensor, stores: list[Store]) -> None:
        """Hold chosen rows of what the only sequence holds; staging buffers are made anew where their number changes.

        Args:
            index: rows, int64 [new num_rows].
            stores: the sequence's.
        """
        before, self.shape = self.shape.num_rows, replace(self.shape, num_rows=len(index))
        self._staged = tuple(replace(shape, num_rows=len(index)) for shape in self._staged)
        if self._staging is not None and before != len(index):
            self._staging = None
            self._stage()
        for store in stores:
            store.select_rows(index, self._shape_in(store.area))

    def _shape_in(self, area: Area) -> Shape:
        """As an area's tensors are."""
        casting = self._castings.get(area.name)
        return self.shape if casting is None else replace(self.shape, dtype=casting.held)

    @property
    def reader(self) -> Worker:
        """Brings the next part of a staged area; background work is done by another worker, and never waited for."""
        if self._beside is not None:
            return self._beside.reader
        if self._reader is None:
            self._reader = worker_of(self.shape.device, steps_back=False)
        return self._reader

    def store(self, area: Area) -> Store:
        """An empty store of an area."""
        shape, memory, casting = self._shape_in(area), self._memories[area.tier], self._castings.get(area.name)
        match area.layout:
            case Blocks(frees_windows=frees):
                self.begin()
                kind = PassingStore if frees and shape.window is not None else PagedStore
                return kind(area, shape, self._pools[area.name])
            case Contiguous() | Chunks() if shape.window is not None:
                return WindowStore(area, shape, memory, casting)
            case Chunks() if isinstance(area.format, Packed):
                return PackedStore(area, shape, memory)
            case Chunks():
                return ChunkedStore(area, shape, memory, casting)
            case Ring():
                return RingStore(area, shape, memory, casting)
            case _:
                return SlotStore(area, shape, memory, casting)

    def staged(self, store: Store, layer: int) -> Iterator[Piece]:
        """A staged area's tokens, part by part on the device."""
        if store.area.tier == DEVICE and not reads_in_parts(self.shape.device):
            # As a temporary of attention's: a part of the booked buffers' size would be a call, and its merging, each.
            num_tokens = min(-(-store.num_used // STAGING_TOKENS) * STAGING_TOKENS, AT_ONCE_TOKENS)
            own = Staging(1, (self.shape,), self._memories[DEVICE], num_tokens)
            return own.pieces(store.fills(layer, num_tokens), None, self.shape)
        staging = self.staging
        assert staging is not None  # it came with the first reserve
        reader = self.reader if store.area.read_ahead else None
        return staging.pieces(store.fills(layer, STAGING_TOKENS), reader, self.shape)

    def close(self) -> None:
        """Wait for background work, and end the workers; those of others end with them."""
        if self._beside is None:
            self.background.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


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
