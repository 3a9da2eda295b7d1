"""Names of blocks: which blocks have which, and which of them no sequence holds."""

from collections.abc import Hashable
from typing import NamedTuple


class Named(NamedTuple):
    """What is known of a block that has a name.

    Args:
        key: the name.
        area: of the sequence that published it.
        num_tokens: of that sequence, up to the block's end.
        before: the name of the block before it in that sequence; None: there is none.
        maker: that sequence, by how many were opened before it.
    """

    key: Hashable
    area: str
    num_tokens: int
    before: Hashable
    maker: int


class Use(NamedTuple):
    """Who has held a block that has a name.

    Args:
        num_found: how often it was taken over.
        latest: the sequence of the largest number that has held it.
    """

    num_found: int
    latest: int


class Idle(NamedTuple):
    """A block that no sequence holds, and its use."""

    named: Named
    use: Use


class Names:
    """Blocks that have a name, by their numbers.

    Attributes:
        blocks: each one's name.
        copies: blocks of one name, the first published first.
        idle: those that no sequence holds, the first let go of first; the value counts them.
        num_let_go: how many were ever let go of.
        num_idle: how many of `idle` are of each area.
        uses: of each block that has a name.
    """

    def __init__(self) -> None:
        self.blocks: dict[int, Named] = {}
        self.copies: dict[Hashable, tuple[int, ...]] = {}
        self.idle: dict[int, int] = {}
        self.num_let_go = 0
        self.num_idle: dict[str, int] = {}
        self.uses: dict[int, Use] = {}

    def copy(self) -> "Names":
        """A copy that can be changed alone."""
        other = Names()
        other.blocks, other.copies, other.idle = dict(self.blocks), dict(self.copies), dict(self.idle)
        other.num_let_go, other.num_idle = self.num_let_go, dict(self.num_idle)
        other.uses = dict(self.uses)
        return other


class DraftNames:
    """Names as they would be after what was booked so far; `commit` makes them the ledger's.

    Args:
        names: the ledger's.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._blocks: dict[int, Named | None] = {}
        self._copies: dict[Hashable, tuple[int, ...]] = {}
        self._idle: dict[int, int | None] = {}
        self._num_let_go = names.num_let_go
        self._uses: dict[int, Use] = {}

    def of(self, block: int) -> Named | None:
        """A block's name; None: it has none."""
        return self._blocks[block] if block in self._blocks else self._names.blocks.get(block)

    def copies(self, key: Hashable) -> tuple[int, ...]:
        """Blocks of a name, the first published first."""
        return self._copies[key] if key in self._copies else self._names.copies.get(key, ())

    def first_idle(self, key: Hashable) -> int | None:
        """The block of a name that was let go of first, of those that no sequence holds; None: there is none."""
        since = {block: count for block in self.copies(key) if (count := self._count(block)) is not None}
        return min(since, key=since.__getitem__) if since else None

    def _count(self, block: int) -> int | None:
        return self._idle[block] if block in self._idle else self._names.idle.get(block)

    def give(self, block: int, named: Named, seq: int) -> None:
        """Give a block of a sequence a name."""
        self._blocks[block], self._uses[block] = named, Use(0, seq)
        self._copies[named.key] = (*self.copies(named.key), block)

    def let_go(self, block: int) -> None:
        """The last sequence that held a block has let go of it."""
        self._num_let_go += 1
        self._idle.pop(block, None)  # so that the last one let go of stands last
        self._idle[block] = self._num_let_go

    def find(self, block: int, seq: int, is_idle: bool) -> None:
        """A sequence takes a block over, which no other holds if it is idle."""
        if is_idle:
            self._idle[block] = None
        num_found, latest = self._uses[block] if block in self._uses else self._names.uses[block]
        self._uses[block] = Use(num_found + 1, max(latest, seq))

    def forget(self, block: int) -> None:
        """A block that no sequence holds is freed."""
        named = self.of(block)
        assert named is not None
        self._blocks[block] = self._idle[block] = None
        self._copies[named.key] = tuple(other for other in self.copies(named.key) if other != block)

    def commit(self) -> None:
        """Make what was booked the ledger's."""
        names = self._names
        for block, named in self._blocks.items():
            if named is not None:
                names.blocks[block] = named
        for block, count in self._idle.items():
            self._note(block, names.idle.pop(block, None), -1)
            if count is not None:
                names.idle[block] = count
                self._note(block, count, 1)
        names.uses |= self._uses
        for block, named in self._blocks.items():
            if named is None:
                names.blocks.pop(block, None)
                names.uses.pop(block, None)
        for key, copies in self._copies.items():
            if copies:
                names.copies[key] = copies
            else:
                names.copies.pop(key, None)
        names.num_let_go = self._num_let_go

    def _note(self, block: int, count: int | None, more: int) -> None:
        """Count one more or less that no sequence holds; None: it was none."""
        names = self._names
        if count is not None:
            area = names.blocks[block].area
            names.num_idle[area] = names.num_idle.get(area, 0) + more
