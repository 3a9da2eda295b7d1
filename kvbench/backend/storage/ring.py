"""Slots that are reused from the oldest on, behind pinned ones that stay."""

import torch
from torch import Tensor

from kvbench.backend.storage.base import Fill, Pair, Part, Piece, Shape
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.memory import Memory
from kvbench.plan.area import Area, Ring
from kvbench.plan.ops import Rule


class RingStore:
    """A tensor each for K and V of a layer: pinned slots, then slots that wrap around.

    Args:
        area: how it lives; its layout is a ring.
        shape: of its tensors.
        memory: where they live.
        casting: how K and V change on their way in and out; None: not at all.
    """

    __slots__ = (
        "_casting",
        "_memory",
        "_oldest",
        "_pinned",
        "_shape",
        "_start",
        "area",
        "capacity",
        "keys",
        "num_used",
        "values",
    )

    def __init__(self, area: Area, shape: Shape, memory: Memory, casting: Casting | None = None) -> None:
        self.area = area
        self._shape = shape
        self._casting = casting
        self._memory = memory
        assert isinstance(area.layout, Ring)
        self._pinned = area.layout.num_pinned
        self.capacity = self.num_used = 0
        self._start = self._pinned
        self._oldest = 0
        self.keys = [torch.empty(0, device=memory.device)] * shape.num_layers
        self.values = self.keys if shape.is_latent else list(self.keys)

    def reserve(self, capacity: int) -> None:
        """Tensor by tensor: allocate, copy the live slots in order, free the old. See `Store.reserve`."""
        stretches = self._stretches()
        for layer in range(self._shape.num_layers):
            for tensors, size in self._tensors(capacity):
                tensors[layer] = self._resized(tensors[layer], size, stretches)
        self.capacity = capacity
        self._start = self._pinned

    def _tensors(self, capacity: int) -> list[tuple[list[Tensor], tuple[int, int, int, int]]]:
        """Those of K and V, or of latents, and their sizes for so many slots."""
        shape = self._shape
        return [(self.keys, shape.of(capacity)), (self.values, shape.values_of(capacity))][: 2 - shape.is_latent]

    def _resized(self, old: Tensor, size: tuple[int, ...], stretches: list[tuple[int, int]]) -> Tensor:
        if not size[2]:
            return old.new_empty(0)
        new = self._memory.empty(size, self._shape.dtype)
        done = 0
        for start, count in stretches:
            new.narrow(2, done, count).copy_(old.narrow(2, start, count))
            done += count
        return new

    def _stretches(self) -> list[tuple[int, int]]:
        """Where the live slots lie, in order: start and count of each stretch."""
        pinned = min(self._pinned, self.num_used)
        others = self.num_used - pinned
        first = max(min(others, self.capacity - self._start), 0)
        found = [(0, pinned), (self._start, first), (self._pinned, others - first)]
        if pinned == self._start and first:
            found[:2] = [(0, pinned + first)]
        return [(start, count) for start, count in found if count]

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """In one stretch, or two where it wraps. See `Store.append`."""
        if self._casting is not None:
            keys, values = self._casting.lowered(keys, values)
        behind = self.num_used - self._pinned
        if behind < 0:
            end = self.num_used
        else:
            end = self._start + behind
            if end >= self.capacity:
                end -= self.capacity - self._pinned
        if behind <= 0:
            self._oldest = position - min(behind, 0)
        until = min(end + num_tokens, self.capacity)
        if until - end == num_tokens:
            for layer, buffer in enumerate(self.keys):
                buffer[:, :, end:until] = keys[layer]
                self.values[layer][:, :, end:until] = values[layer]
        else:
            self._write(keys, values, end, 0, until - end)
            self._write(keys, values, self._pinned, until - end, num_tokens - until + end)
        self.num_used += num_tokens

    def _write(self, keys: list[Tensor], values: list[Tensor], start: int, done: int, count: int) -> None:
        for tensors, new in ((self.keys, keys), (self.values, values)):
            for tensor, source in zip(tensors, new, strict=True):
                tensor.narrow(2, start, count).copy_(source.narrow(2, done, count))

    def receive(self, part: Part) -> None:
        """See `Store.receive`."""
        self.append(part.keys, part.values, part.num_tokens, part.first_position)

    def read(self, layer: int) -> list[Pair]:
        """One pair where the ring is full, whatever its order; of what was cast, restored. See `Store.read`."""
        pairs = self._read(layer)
        return pairs if self._casting is None else [self._casting.restored(layer, pair) for pair in pairs]

    def _read(self, layer: int) -> list[Pair]:
        keys, values = self.keys[layer], self.values[layer]
        if self.num_used == self.capacity:
            return [(keys, values)] if self.capacity else []
        return [(keys.narrow(2, start, n), values.narrow(2, start, n)) for start, n in self._stretches()]

    def pieces(self, layer: int) -> list[Piece]:
        """Pinned slots, then the others, oldest first; of what was cast, restored. See `Store.pieces`."""
        pieces = self._pieces(layer)
        if self._casting is None:
            return pieces
        return [Piece(*self._casting.restored(layer, (keys, values)), at) for keys, values, at in pieces]

    def _pieces(self, layer: int) -> list[Piece]:
        keys, values = self.keys[layer], self.values[layer]
        return [
            Piece(keys.narrow(2, first, len(at)), values.narrow(2, first, len(at)), at) for first, at in self._ordered()
        ]

    def _ordered(self) -> list[tuple[int, range]]:
        """Each stretch whose positions are consecutive: its first slot, and those positions."""
        pinned = min(self._pinned, self.num_used)
        found, done = [], 0
        for start, count in self._stretches():
            cuts = [(start, min(count, max(pinned - done, 0)))]
            cuts.append((start + cuts[0][1], count - cuts[0][1]))
            for first, num in cuts:
                if num:
                    position = done if done < pinned else self._oldest + done - pinned
                    found.append((first, range(position, position + num)))
                done += num
        return found

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """None where it is read in place. See `Store.fills`."""
        return [] if self._casting is None else self._casting.fills(layer, self._pieces(layer), part_tokens)

    def leaving(self, rule: Rule) -> list[Part]:
        """Views of the oldest slots that are not pinned. See `Store.leaving`."""
        left = self.num_used - rule.num_kept(self.num_used)
        parts = []
        for start, positions in self._ordered():
            if not left or start < self._pinned:
                continue
            count = min(left, len(positions))
            keys = [tensor.narrow(2, start, count) for tensor in self.keys]
            values = [tensor.narrow(2, start, count) for tensor in self.values]
            parts.append(Part(count, keys, values, positions[:count]))
            left -= count
        return parts if self._casting is None else self._casting.restored_parts(parts)

    def keep(self, rule: Rule) -> None:
        """Let go of the oldest slots that are not pinned; nothing moves. See `Store.keep`."""
        num_evicted = self.num_used - rule.num_kept(self.num_used)
        self._start += num_evicted
        if self._start >= self.capacity > self._pinned:
            self._start -= self.capacity - self._pinned
        self._oldest += num_evicted
        self.num_used -= num_evicted

    def select_rows(self, index: Tensor, shape: Shape) -> None:
        """See `Store.select_rows`."""
        for tensors, _ in self._tensors(self.capacity):
            for layer, tensor in enumerate(tensors):
                if self.capacity:
                    tensors[layer] = self._memory.rows(tensor, index)
        self._shape = shape

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`."""
        self.num_used -= num_tokens

    def release(self) -> None:
        """Nothing is shared."""
