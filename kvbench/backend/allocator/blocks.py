"""Blocks, chained within their segment, and a pool's cached ones in the order in which they are found."""

from bisect import bisect_left, insort

LIVE, CACHED, UNMAPPED = range(3)
"""In use; free, and kept for the next request; address space of an expandable segment, with no memory behind it."""


class Block:
    """A stretch of a segment.

    Attributes:
        address: where it begins.
        size: bytes.
        base: where its segment begins.
        state: LIVE, CACHED or UNMAPPED.
        requested_bytes: what a live one was asked for.
        before, after: its neighbours in the segment; None at an end.
    """

    __slots__ = ("address", "after", "base", "before", "requested_bytes", "size", "state")

    def __init__(self, address: int, size: int, base: int, state: int) -> None:
        self.address = address
        self.size = size
        self.base = base
        self.state = state
        self.requested_bytes = 0
        self.before: Block | None = None
        self.after: Block | None = None

    @property
    def is_split(self) -> bool:
        """Whether it is only a part of its segment."""
        return self.before is not None or self.after is not None

    def divide(self, size: int) -> "Block":
        """Keep the first bytes; the rest, of the same state, comes after it."""
        rest = Block(self.address + size, self.size - size, self.base, self.state)
        rest.before, rest.after = self, self.after
        if self.after is not None:
            self.after.before = rest
        self.after = rest
        self.size = size
        return rest

    def absorb(self, other: "Block") -> None:
        """Take a neighbour in."""
        if other is self.before:
            self.address = other.address
            self.before = other.before
            if other.before is not None:
                other.before.after = self
        else:
            self.after = other.after
            if other.after is not None:
                other.after.before = self
        self.size += other.size


class BySize:
    """Blocks by size, those of equal size by address: a request is served by the first that holds it."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, Block]] = []

    def add(self, block: Block) -> None:
        """Put a block in."""
        insort(self.entries, (block.size, block.address, block))

    def remove(self, block: Block) -> None:
        """Take a block out."""
        del self.entries[bisect_left(self.entries, (block.size, block.address))]

    def first(self, size: int) -> int:
        """The place of the first block of at least this size; the number of blocks where there is none."""
        return bisect_left(self.entries, (size,))
