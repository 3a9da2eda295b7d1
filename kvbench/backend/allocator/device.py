"""The device under the allocator: memory that is claimed and given back, and addresses."""

from kvbench.backend.allocator.sizes import OWN_SEGMENT_UNIT_BYTES, round_up


class Device:
    """Memory, as the driver hands it out.

    Args:
        memory_bytes: what there is; None sets no limit.
    Attributes:
        reserved_bytes: what is claimed now.
        peak_bytes: the most that was, since it was last set.
        num_allocations: claims that were granted.
        num_frees: returns.
    """

    def __init__(self, memory_bytes: int | None) -> None:
        self.memory_bytes = memory_bytes
        self.reserved_bytes = self.peak_bytes = 0
        self.num_allocations = self.num_frees = 0
        self._next_address = OWN_SEGMENT_UNIT_BYTES

    def claim(self, num_bytes: int) -> bool:
        """Claim memory; False where there is not so much left."""
        reserved = self.reserved_bytes + num_bytes
        if self.memory_bytes is not None and reserved > self.memory_bytes:
            return False
        self.reserved_bytes = reserved
        self.peak_bytes = max(self.peak_bytes, reserved)
        self.num_allocations += 1
        return True

    def give_back(self, num_bytes: int) -> None:
        """Return memory that was claimed."""
        self.reserved_bytes -= num_bytes
        self.num_frees += 1

    def place(self, num_bytes: int) -> int:
        """The address of a new segment: above all that came before, never one used already."""
        address = self._next_address
        self._next_address += round_up(num_bytes, OWN_SEGMENT_UNIT_BYTES)
        return address
