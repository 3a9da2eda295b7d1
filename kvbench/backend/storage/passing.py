"""Blocks of layers with a window: taken as tokens come, and given back when the window has left them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from kvbench.backend.storage.base import Fill, Piece, Shape
from kvbench.backend.storage.paged import BlockPool, PagedStore
from kvbench.plan.area import Area


class PassingStore(PagedStore):
    """A table of the blocks that a window, or the newest chunk, is in; their pool is other layers' too.

    What an append of several tokens leaves behind, the first of them may still look at: then the new tokens stay where
    they were given, until `land` writes those that are still looked at.

    Args:
        area: how it lives; its layout is blocks.
        shape: of its tensors; it says the window.
        pool: where its blocks come from.
    """

    __slots__ = ("_late", "_window")

    def __init__(self, area: Area, shape: Shape, pool: BlockPool) -> None:
        super().__init__(area, shape, pool)
        assert shape.window is not None
        self._window = shape.window
        self._late: tuple[list[Tensor], list[Tensor], int, int] | None = None

    def reserve(self, capacity: int) -> None:
        """Blocks come with the tokens; 0 gives all back. See `Store.reserve`."""
        if not capacity:
            self._late = None
            super().reserve(0)

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """See `Store.append`; and `land`."""
        self.land()
        if num_tokens > 1 and position + num_tokens > self._window:
            self._late = keys, values, num_tokens, position
            self.num_used += num_tokens
        else:
            self._write(keys, values, num_tokens, position)

    def land(self) -> None:
        """Write what an append left where it was given; who attends to it has done so."""
        if self._late is not None:
            late, self._late = self._late, None
            self.num_used -= late[2]
            self._write(*late)

    def _write(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        end, size = position + num_tokens, self._block_tokens
        oldest = (end - 1) // self._window * self._window if self._shape.is_chunked else max(end - self._window, 0)
        base = oldest // size * size
        while self.table and self.first_position < base:
            self._pool.give_back(self.table.pop(0))
            self.first_position += size
            self.num_used = max(self.num_used - size, 0)
            self._index, self._num_indexed = None, 0
        skipped = max(base - position, 0)
        while len(self.table) * size < end - base:
            self.table.append(self._pool.take())
        kept = num_tokens - skipped
        keys, values = ([each.narrow(2, skipped, kept) for each in of_layers] for of_layers in (keys, values))
        super().append(keys, values, kept, position + skipped)

    @contextmanager
    def _without_late(self) -> Iterator[None]:
        count = 0 if self._late is None else self._late[2]
        self.num_used -= count
        yield
        self.num_used += count

    def pieces(self, layer: int) -> list[Piece]:
        """Those in blocks, then the new ones as they were given, until they land. See `Store.pieces`."""
        with self._without_late():
            found = super().pieces(layer)
        if self._late is not None:
            keys, values, count, start = self._late
            found.append(Piece(keys[layer], values[layer], range(start, start + count)))
        return found

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """As `PagedStore.fills`; new tokens are copied from where they were given. See `Store.fills`."""
        with self._without_late():
            found = super().fills(layer, part_tokens)
        if self._late is not None:
            keys, values, count, start = self._late
            for first in range(0, count, part_tokens):
                size = min(part_tokens, count - first)
                cut = keys[layer].narrow(2, first, size), values[layer].narrow(2, first, size)
                found.append(_copy(*cut, range(start + first, start + first + size)))
        return found

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`; the ledger has seen to it that the window still has what is left."""
        self.land()
        super().truncate(num_tokens)


def _copy(new_keys: Tensor, new_values: Tensor, positions: range) -> Fill:
    def fill(keys: Tensor, values: Tensor) -> Piece:
        keys, values = keys.narrow(2, 0, len(positions)), values.narrow(2, 0, len(positions))
        keys.copy_(new_keys)
        values.copy_(new_values)
        return Piece(keys, values, positions)

    return fill
