"""Sizes by which the allocator rounds, chooses a pool and asks the driver.

Source: PyTorch 2.13, c10/core/AllocatorConfig.h: kMinBlockSize, kSmallSize, kSmallBuffer, large_segment_size_ (20 MiB
    unless `large_segment_size_mb` says otherwise; kLargeBuffer before 2.11), kMinLargeAlloc, kRoundLarge. The rules
    are round_size, get_pool and get_allocation_size in c10/cuda/CUDACachingAllocator.cpp.
"""

MIB = 1 << 20
MIN_BLOCK_BYTES = 512
SMALL_BYTES = MIB
"""The largest block of the small pool."""
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
MIN_OWN_SEGMENT_BYTES = 10 * MIB
"""From this size on a block has a segment of its own."""
OWN_SEGMENT_UNIT_BYTES = 2 * MIB


def round_up(num_bytes: int, unit_bytes: int) -> int:
    """The next multiple of a unit."""
    return -(-num_bytes // unit_bytes) * unit_bytes


def block_bytes(num_bytes: int) -> int:
    """Bytes of the block for a request of so many, > 0 (without `roundup_power2_divisions`, as is the default)."""
    return round_up(num_bytes, MIN_BLOCK_BYTES)


def segment_bytes(size: int) -> int:
    """Bytes that the driver is asked for where no cached block holds one of this size."""
    if size <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size < MIN_OWN_SEGMENT_BYTES:
        return LARGE_SEGMENT_BYTES
    return round_up(size, OWN_SEGMENT_UNIT_BYTES)
