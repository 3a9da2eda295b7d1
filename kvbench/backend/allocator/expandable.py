"""Expandable segments: one stretch of addresses a pool, with memory put behind it page by page."""

from bisect import bisect_left, insort

from kvbench.backend.allocator.blocks import CACHED, LIVE, UNMAPPED, Block
from kvbench.backend.allocator.device import Device
from kvbench.backend.allocator.pool import AllocatorPool
from kvbench.backend.allocator.sizes import LARGE_SEGMENT_BYTES, MIN_BLOCK_BYTES, SMALL_SEGMENT_BYTES, round_up

UNLIMITED_SPACE_BYTES = 1 << 50
SPACE_DIVISOR = 8
"""A segment has addresses for the device's memory and an eighth more."""


class Expandable(AllocatorPool):
    """A segment that grows at its end, and in gaps that were given back; blocks in it are split down to 512 bytes.

    Source: CUDACachingAllocator.cpp: Note [Expandable Segments], get_free_block, find_expandable_block, map_block,
        try_allocate_expandable_block, unmap_block.
    """

    def __init__(self, device: Device, is_small: bool) -> None:
        super().__init__(device, is_small)
        self._least_rest = MIN_BLOCK_BYTES
        self._page_bytes = SMALL_SEGMENT_BYTES if is_small else LARGE_SEGMENT_BYTES
        memory = device.memory_bytes
        self._space_bytes = (
            UNLIMITED_SPACE_BYTES if memory is None else round_up(memory + memory // SPACE_DIVISOR, self._page_bytes)
        )
        self._unmapped: list[tuple[int, Block]] = []

    def take(self, size: int) -> Block | None:
        """Take out a cached block: one that could grow into addresses behind it counts with all of them."""
        entries, place = self._cached.entries, self._cached.first(size)
        if place >= len(entries):
            return None
        while place + 1 < len(entries) and _reach(entries[place + 1][2]) < _reach(entries[place][2]):
            place += 1
        return entries.pop(place)[2]

    def occupy(self, block: Block, size: int) -> int:
        """As in any pool; but torch counts no split bytes here, for empty pages can always be given back."""
        super().occupy(block, size)
        return 0

    def put(self, block: Block) -> int:
        """As in any pool; but torch counts no split bytes here."""
        super().put(block)
        return 0

    def grow(self, size: int) -> Block | None:
        """Put pages behind the lowest addresses where a block fits, with the free memory beside them."""
        block = self._lowest(size)
        while block is not None and (block.state == UNMAPPED or block.size < size):
            gap, lacking = (block, size) if block.state == UNMAPPED else (block.after, size - block.size)
            block = gap if gap is not None and self._map(gap, min(gap.size, lacking)) else None
        if block is not None:
            self._cached.remove(block)
        return block

    def _lowest(self, size: int) -> Block | None:
        """The first of the free and empty blocks in a row that have so many addresses; None where none ever can."""
        for _, gap in self._unmapped:
            before = gap.before
            start = before if before is not None and before.state == CACHED else gap
            if _holds(start, size):
                return start
        if size > self._space_bytes:
            return None
        address = self._device.place(self._space_bytes)
        space = Block(address, self._space_bytes, address, UNMAPPED)
        insort(self._unmapped, (address, space))
        return space

    def _map(self, gap: Block, num_bytes: int) -> bool:
        """Put pages behind the first bytes of a gap, which is cached then; False where there is no memory."""
        mapped_bytes = round_up(num_bytes, self._page_bytes)
        if not self._device.claim(mapped_bytes):
            return False
        self._forget(gap)
        if mapped_bytes < gap.size:
            rest = gap.divide(mapped_bytes)
            insort(self._unmapped, (rest.address, rest))
        gap.state = CACHED
        self._join(gap)
        self._cached.add(gap)
        return True

    def release(self) -> None:
        """Take away all pages on which nothing is live; a segment without any goes too."""
        for block in self.cached():
            self._unmap(block)

    def _unmap(self, block: Block) -> None:
        page, base, end = self._page_bytes, block.base, block.address + block.size
        first, last = base + round_up(block.address - base, page), base + (end - base) // page * page
        if first >= last:
            return
        self._cached.remove(block)
        if first > block.address:
            front, block = block, block.divide(first - block.address)
            self._cached.add(front)
        if last < end:
            self._cached.add(block.divide(last - first))
        block.state = UNMAPPED
        self._join(block)
        self._device.give_back(last - first)
        if block.is_split:
            insort(self._unmapped, (block.address, block))

    def _forget(self, block: Block) -> None:
        if block.state == UNMAPPED:
            del self._unmapped[bisect_left(self._unmapped, (block.address,))]
        else:
            self._cached.remove(block)


def _reach(block: Block) -> int:
    """Bytes that a cached block has, with the empty addresses behind it."""
    after = block.after
    return block.size + (after.size if after is not None and after.state == UNMAPPED else 0)


def _holds(block: Block | None, size: int) -> bool:
    """Whether so many bytes are not live from this block on."""
    num_bytes = 0
    while num_bytes < size and block is not None and block.state != LIVE:
        num_bytes += block.size
        block = block.after
    return num_bytes >= size
