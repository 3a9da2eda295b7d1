"""The last slots of layers with a window, or chunks: a token's slot is its position modulo those that there are."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kvbench.backend.storage.base import Fill, Pair, Part, Piece, Shape
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.memory import Memory, fill
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import Rule

ALONE = (
    "tokens leave layers with a window by the window alone; who evicts does so in areas of the others, such as "
    "Area(layers=('full',)), beside Area('windows', Chunks(1024), layers=('window',), follows=True)"
)


class Stretch(NamedTuple):
    """Slots of one part that lie together: its number, the first slot in it, how many, and the position there."""

    number: int
    start: int
    num_tokens: int
    position: int


class WindowStore:
    """K and V of the last tokens of each layer, in one part or in chunks; never more than the window has.

    Where layers attend to chunks of so many tokens instead, the tokens of the newest one's chunk are held.

    What an append of several tokens overwrites, the first of them may still look at: then the new tokens stay where
    they were given, beside the old ones, until `land` writes the last of them. By then the window is whole, so that
    whatever is reserved meanwhile changes nothing.

    Args:
        area: how it lives, contiguous or in chunks; no token of it is evicted but by the window.
        shape: of its tensors; it says the window.
        memory: where they live.
        casting: how K and V change on their way in and out; None: not at all.
    """

    __slots__ = (
        "_ahead",
        "_casting",
        "_late",
        "_memory",
        "_shape",
        "_unit",
        "area",
        "capacity",
        "num_used",
        "parts",
        "window",
    )

    def __init__(self, area: Area, shape: Shape, memory: Memory, casting: Casting | None = None) -> None:
        assert shape.window is not None
        self._casting = casting
        self.area = area
        self._shape = shape
        self._memory = memory
        self.window = shape.window
        self._unit = area.layout.num_tokens if isinstance(area.layout, Chunks) else self.window
        self.capacity = self.num_used = 0
        self.parts: list[list[list[Tensor]]] = [[] for _ in range(shape.num_layers)]
        self._late: tuple[list[Tensor], list[Tensor], int] | None = None
        self._ahead: tuple[int, int, list[list[Tensor]]] | None = None

    def _size(self, capacity: int) -> int:
        """Slots that there are, of so many."""
        return min(capacity, self.window)

    def _first(self, end: int) -> int:
        """The oldest position that the newest token before an end looks at."""
        if self._shape.is_chunked:
            return (end - 1) // self.window * self.window if end else 0
        return max(end - self.window, 0)

    def _new(self, number: int, num_slots: int) -> Tensor:
        sizes = self._shape.values_of if number else self._shape.of
        return self._memory.empty(sizes(num_slots), self._shape.dtype)

    def reserve(self, capacity: int) -> None:
        """Chunks come or go, else tensor by tensor; beyond the window nothing changes. See `Store.reserve`."""
        before, size, self.capacity = self._size(self.capacity), self._size(capacity), capacity
        if size == before:
            return
        self.land()
        for parts in self.parts:
            if not isinstance(self.area.layout, Chunks):
                self._resize(parts, size)
                continue
            del parts[-(-size // self._unit) :]
            while len(parts) * self._unit < size:
                num_slots = min(self._unit, size - len(parts) * self._unit)
                parts.append([self._new(number, num_slots) for number in range(2)])

    def _resize(self, parts: list[list[Tensor]], size: int) -> None:
        if not size:
            parts.clear()
            return
        olds = parts[0] if parts else []
        for number in range(2):
            new = self._new(number, size)
            if olds and self.num_used:
                new.narrow(2, 0, self.num_used).copy_(olds[number].narrow(2, 0, self.num_used))
            if number == len(olds):
                olds.append(new)
            olds[number] = new
        parts[:] = [olds]

    def resize_ahead(self, capacity: int) -> Callable[[], None]:
        """See `SlotStore.resize_ahead`; a layer that has its whole window keeps it."""
        size, count = self._size(capacity), self.num_used
        if size == self._size(self.capacity):
            self._ahead = capacity, count, []
            return partial(fill, [], 0)
        sizes = self._shape.of(size), self._shape.values_of(size)
        coming = [[self._memory.untouched(each, self._shape.dtype) for each in sizes] for _ in self.parts]
        self._ahead = capacity, count, coming
        olds = [parts[0] if parts else [] for parts in self.parts]
        pairs = [pair for new, old in zip(coming, olds, strict=True) for pair in zip(new, old or new, strict=True)]
        return partial(fill, pairs, count)

    def settle(self) -> list[Tensor]:
        """See `SlotStore.settle`."""
        assert self._ahead is not None
        (self.capacity, start, coming), self._ahead, replaced = self._ahead, None, []
        count = self.num_used - start
        for parts, news in zip(self.parts, coming, strict=False):
            for new, old in zip(news, parts[0] if parts else (), strict=False):
                if count:
                    new.narrow(2, start, count).copy_(old.narrow(2, start, count))
                replaced.append(old)
            parts[:] = [news]
        return replaced

    def _stretches(self, first: int, end: int) -> list[Stretch]:
        """Where the tokens of some positions lie, in order; no more than the window has."""
        found, position = [], first
        while position < end:
            slot = position % self.window
            number, start = divmod(slot, self._unit)
            count = min(end - position, self._unit - start, self.window - slot)
            found.append(Stretch(number, start, count, position))
            position += count
        return found

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """See `Store.append`; and `land`."""
        self.land()
        if self._casting is not None:
            lowered = self._casting.lowered(keys, values)
            keys, values = ([layer.to(self._casting.held) for layer in layers] for layers in lowered)
        start = self.num_used
        self.num_used += num_tokens
        if self._first(self.num_used) > self._first(start + 1):
            self._late = keys, values, start
        else:
            self._write(keys, values, start)

    def land(self) -> None:
        """Write what an append left where it was given; who attends to it has done so."""
        if self._late is not None:
            late, self._late = self._late, None
            self._write(*late)

    def _write(self, keys: list[Tensor], values: list[Tensor], start: int) -> None:
        for number, first, count, position in self._stretches(max(start, self._first(self.num_used)), self.num_used):
            for layer, parts in enumerate(self.parts):
                for target, new in zip(parts[number], (keys[layer], values[layer]), strict=True):
                    target.narrow(2, first, count).copy_(new.narrow(2, position - start, count))

    def receive(self, part: Part) -> None:
        """See `Store.receive`."""
        raise NotImplementedError("nothing moves to layers with a window")  # the ledger lets them have one area

    def read(self, layer: int) -> list[Pair]:
        """Whole parts where the window is full. See `Store.read`."""
        if self._late is None and self.num_used - self._first(self.num_used) == self.window:
            return [(keys, values) for keys, values in self.parts[layer]]
        return [(piece.keys, piece.values) for piece in self.pieces(layer)]

    def pieces(self, layer: int) -> list[Piece]:
        """Oldest first; the last as it was given, until it lands; of what was cast, restored. See `Store.pieces`."""
        pieces = self._pieces(layer)
        if self._casting is None:
            return pieces
        return [Piece(*self._casting.restored(layer, (keys, values)), at) for keys, values, at in pieces]

    def _pieces(self, layer: int) -> list[Piece]:
        # The first of the new tokens is the nearest that looks at the old ones, at all but one of a window.
        end = self.num_used if self._late is None else self._late[2]
        first = self._first(end + (self._late is not None))
        found = []
        for number, start, count, position in self._stretches(first, end):
            keys, values = (tensor.narrow(2, start, count) for tensor in self.parts[layer][number])
            found.append(Piece(keys, values, range(position, position + count)))
        if self._late is not None:
            keys_of, values_of, start = self._late
            found.append(Piece(keys_of[layer], values_of[layer], range(start, self.num_used)))
        return found

    @property
    def is_late(self) -> bool:
        """Whether new tokens are where they were given."""
        return self._late is not None

    def context(self, layer: int) -> Piece:
        """A copy, in one, of what the new queries of a layer look at."""
        pieces = self.pieces(layer)
        first = pieces[0].positions
        assert isinstance(first, range)
        keys = torch.cat([piece.keys for piece in pieces], dim=2)
        values = torch.cat([piece.values for piece in pieces], dim=2)
        return Piece(keys, values, range(first.start, self.num_used))

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """None where it is read in place. See `Store.fills`."""
        return [] if self._casting is None else self._casting.fills(layer, self._pieces(layer), part_tokens)

    def leaving(self, rule: Rule) -> list[Part]:
        """See `Store.leaving`."""
        raise NotImplementedError(ALONE)

    def keep(self, rule: Rule) -> None:
        """See `Store.keep`."""
        raise NotImplementedError(ALONE)

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`; the ledger has seen to it that the window still has what is left."""
        self.land()
        self.num_used -= num_tokens

    def select_rows(self, index: Tensor, shape: Shape) -> None:
        """See `Store.select_rows`."""
        self.land()
        for parts in self.parts:
            for part in parts:
                for number, tensor in enumerate(part):
                    part[number] = self._memory.rows(tensor, index)
        self._shape = shape

    def release(self) -> None:
        """Nothing is shared."""
