"""What all sequences of a repetition share: areas, and where their storages come from."""

from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from kvbench.backend.background import Worker, worker_of
from kvbench.backend.storage.base import Piece, Shape, Store
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.chunked import ChunkedStore
from kvbench.backend.storage.memory import Memory, Staging, reads_in_parts
from kvbench.backend.storage.packed import PackedStore
from kvbench.backend.storage.paged import BlockPool, PagedStore
from kvbench.backend.storage.passing import PassingStore
from kvbench.backend.storage.ring import RingStore
from kvbench.backend.storage.slots import SlotStore
from kvbench.backend.storage.window import WindowStore
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

    def drop(self, key: Hashable) -> None:
        """Free a block that has a name, in the pool that it is of."""
        for pool in self._pools.values():
            pool.drop(key)

    def close(self) -> None:
        """Wait for background work, and end the workers; those of others end with them."""
        if self._beside is None:
            self.background.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
