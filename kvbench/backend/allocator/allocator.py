"""The allocator: requests in, handles out, and the figures that torch's own has."""

from kvbench.backend.allocator.blocks import Block
from kvbench.backend.allocator.device import Device
from kvbench.backend.allocator.expandable import Expandable
from kvbench.backend.allocator.pool import AllocatorPool, Segments
from kvbench.backend.allocator.sizes import SMALL_BYTES, block_bytes, segment_bytes
from kvbench.ledger import OutOfMemory


class CachingAllocator:
    """Torch's caching allocator for one CUDA stream, without data.

    A request is rounded up to 512 bytes and served by the smallest cached block that holds it, which is split where
    the rest is worth it; else by memory from the driver; and where that has none left, once more after all segments
    that are free as a whole went back. What is freed is joined with its free neighbours and kept.

    Args:
        memory_bytes: what the driver can give, > 0; None sets no limit.
        expandable: whether segments grow (`expandable_segments:True`).
    Attributes:
        device: the memory under it.
        num_cache_hits: requests served without the driver.
        num_retries: times that the cache was emptied because the driver had no memory left (`num_alloc_retries`).
    Raises:
        ValueError: memory_bytes is not positive.
    Source: see `kvbench.backend.allocator`; each name in backquotes is that of torch.cuda.memory_stats.
    Departs: one stream, so that a freed block can be had at once; every option but expandable_segments is at its
        default. A new segment lies above all older ones, where the driver is free to choose: that matters only
        between cached blocks of equal size, the lowest of which is taken. With expandable segments
        set_per_process_memory_fraction counts a whole segment even where less would be mapped; here the limit is that
        of the device, which counts what is mapped.
    """

    def __init__(self, memory_bytes: int | None, expandable: bool) -> None:
        if memory_bytes is not None and (isinstance(memory_bytes, bool) or memory_bytes < 1):
            raise ValueError(f"memory_bytes is a positive number of bytes or None, got {memory_bytes!r}")
        self.device = Device(memory_bytes)
        pool = Expandable if expandable else Segments
        self._small: AllocatorPool = pool(self.device, is_small=True)
        self._large: AllocatorPool = pool(self.device, is_small=False)
        self._live: dict[int, Block] = {}
        self._allocated_bytes = self._requested_bytes = self._split_bytes = 0
        self._most_allocated_bytes = self._most_split_bytes = 0
        self.num_cache_hits = self.num_retries = 0

    def allocate(self, num_bytes: int) -> int:
        """Find memory for a tensor.

        Args:
            num_bytes: its bytes, >= 0.
        Returns:
            A handle: the block's address; 0 for no bytes, which take no memory.
        Raises:
            ValueError: num_bytes is negative.
            OutOfMemory: the driver has no memory left, and the cache none to give back.
        """
        if num_bytes <= 0:
            if num_bytes < 0:
                raise ValueError(f"num_bytes is 0 or more, got {num_bytes}")
            return 0
        size = block_bytes(num_bytes)
        pool = self._pool(size)
        block = pool.take(size)
        if block is None:
            block = self._grown(pool, size)
        else:
            self.num_cache_hits += 1
        self._split_bytes += pool.occupy(block, size)
        block.requested_bytes = num_bytes
        self._live[block.address] = block
        self._requested_bytes += num_bytes
        self._allocated_bytes += block.size
        if self._allocated_bytes > self._most_allocated_bytes:
            self._most_allocated_bytes = self._allocated_bytes
        if self._split_bytes > self._most_split_bytes:
            self._most_split_bytes = self._split_bytes
        return block.address

    def _pool(self, size: int) -> AllocatorPool:
        """Where a live block of this size belongs: one of the small pool is never larger than what it was taken for."""
        return self._small if size <= SMALL_BYTES else self._large

    def _grown(self, pool: AllocatorPool, size: int) -> Block:
        block = pool.grow(size)
        if block is None:
            self.num_retries += 1
            self.empty_cache()
            block = pool.grow(size)
        if block is None:
            raise OutOfMemory(self.reserved_bytes + segment_bytes(size), self.device.memory_bytes)
        return block

    def free(self, handle: int) -> None:
        """Keep a tensor's memory for the next one.

        Raises:
            ValueError: nothing live has that handle.
        """
        if not handle:
            return
        block = self._live.pop(handle, None)
        if block is None:
            raise ValueError(f"handle {handle} is not that of a live block; there are {len(self._live)}")
        self._allocated_bytes -= block.size
        self._requested_bytes -= block.requested_bytes
        self._split_bytes += self._pool(block.size).put(block)
        if self._split_bytes > self._most_split_bytes:
            self._most_split_bytes = self._split_bytes

    def empty_cache(self) -> None:
        """Give the driver every segment that is free as a whole, or every page of an expandable one that is."""
        self._large.release()
        self._small.release()

    @property
    def allocated_bytes(self) -> int:
        """Bytes of live blocks (`allocated_bytes.all.current`)."""
        return self._allocated_bytes

    @property
    def requested_bytes(self) -> int:
        """Bytes that live blocks were asked for (`requested_bytes.all.current`)."""
        return self._requested_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes that the driver gave: live, cached and lost to rounding (`reserved_bytes.all.current`)."""
        return self.device.reserved_bytes

    @property
    def inactive_split_bytes(self) -> int:
        """Bytes of cached blocks whose segment cannot go back, none in expandable ones (`inactive_split_bytes`)."""
        return self._split_bytes

    @property
    def num_segments(self) -> int:
        """Segments from the driver; torch counts no expandable one (`segment.all.current`)."""
        return self._small.num_segments + self._large.num_segments

    @property
    def num_device_allocations(self) -> int:
        """Times that the driver gave memory, the expensive ones: cudaMalloc, or pages mapped (`num_device_alloc`)."""
        return self.device.num_allocations

    @property
    def num_device_frees(self) -> int:
        """Times that it took memory back: cudaFree, or pages unmapped (`num_device_free`)."""
        return self.device.num_frees

    @property
    def external_share(self) -> float:
        """1 - allocated_bytes / reserved_bytes, a share of the reserve now: cached, usable or not; 0 without any."""
        return 1 - self._allocated_bytes / self.reserved_bytes if self.reserved_bytes else 0.0

    def peaks(self) -> dict[str, int]:
        """Peaks since the last reset, by summary column, as `kvbench.backend.device.allocator_peaks` has them."""
        return {
            "allocator_allocated_bytes": self._most_allocated_bytes,
            "allocator_reserved_bytes": self.device.peak_bytes,
            "allocator_split_bytes": self._most_split_bytes,
        }

    def reset_peaks(self) -> None:
        """Begin the peaks anew, at what is held now."""
        self._most_allocated_bytes = self._allocated_bytes
        self._most_split_bytes = self._split_bytes
        self.device.peak_bytes = self.reserved_bytes

    def blocks(self) -> list[Block]:
        """All blocks with memory behind them, by address: live ones and cached ones."""
        blocks = [*self._live.values(), *self._small.cached(), *self._large.cached()]
        return sorted(blocks, key=lambda block: block.address)
