"""A pool: cached blocks of small or of large requests, in segments that the driver gave one by one."""

from abc import ABC, abstractmethod

from kvbench.backend.allocator.blocks import CACHED, LIVE, Block, BySize
from kvbench.backend.allocator.device import Device
from kvbench.backend.allocator.sizes import MIN_BLOCK_BYTES, SMALL_BYTES, segment_bytes


class AllocatorPool(ABC):
    """Cached blocks, and how they are split and joined.

    Args:
        device: gives and takes memory.
        is_small: whether it is that of requests up to 1 MiB.
    Attributes:
        num_segments: segments that it holds.
    Source: CUDACachingAllocator.cpp: should_split, alloc_found_block, free_block, try_merge_blocks.
    """

    def __init__(self, device: Device, is_small: bool) -> None:
        self.num_segments = 0
        self._device = device
        self._least_rest = MIN_BLOCK_BYTES if is_small else SMALL_BYTES + 1
        self._cached = BySize()

    def take(self, size: int) -> Block | None:
        """Take out the smallest cached block that holds so many bytes, of equal ones that at the lowest address."""
        entries, place = self._cached.entries, self._cached.first(size)
        return entries.pop(place)[2] if place < len(entries) else None

    def occupy(self, block: Block, size: int) -> int:
        """Make a block that was taken out live; the rest is cached where it is large enough to be worth a split.

        Returns:
            By how much bytes in inactive parts of split segments change.
        """
        was_split = block.is_split
        if block.size - size >= self._least_rest:
            rest = block.divide(size)
            self._cached.add(rest)
            change = -size if was_split else rest.size
        else:
            change = -block.size if was_split else 0
        block.state = LIVE
        return change

    def put(self, block: Block) -> int:
        """Cache a live block, joined with its cached neighbours.

        Returns:
            By how much bytes in inactive parts of split segments change.
        """
        block.state = CACHED
        joined = self._join(block)
        self._cached.add(block)
        return (block.size if block.is_split else 0) - joined

    def _join(self, block: Block) -> int:
        """Take in neighbours of the block's own state; how many bytes they had."""
        joined = 0
        for other in (block.before, block.after):
            if other is not None and other.state == block.state:
                self._forget(other)
                block.absorb(other)
                joined += other.size
        return joined

    def _forget(self, block: Block) -> None:
        self._cached.remove(block)

    def cached(self) -> list[Block]:
        """The blocks that are free and have memory behind them."""
        return [block for _, _, block in self._cached.entries]

    @abstractmethod
    def grow(self, size: int) -> Block | None:
        """A block of at least so many bytes, of memory from the driver; None where that has none."""

    @abstractmethod
    def release(self) -> None:
        """Give the driver all that can be given back."""


class Segments(AllocatorPool):
    """Every segment is an allocation of its own, and goes back when all of it is free.

    Source: CUDACachingAllocator.cpp: alloc_block, release_blocks.
    """

    def grow(self, size: int) -> Block | None:
        """One more segment, as a block."""
        num_bytes = segment_bytes(size)
        if not self._device.claim(num_bytes):
            return None
        self.num_segments += 1
        address = self._device.place(num_bytes)
        return Block(address, num_bytes, address, CACHED)

    def release(self) -> None:
        """Give back the segments of which no part is live."""
        for block in self.cached():
            if not block.is_split:
                self._cached.remove(block)
                self._device.give_back(block.size)
                self.num_segments -= 1
