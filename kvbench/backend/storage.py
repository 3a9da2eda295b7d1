"""Storage of one sequence's K and V: in one tensor a layer, or in chunks."""

from typing import Protocol

import torch
from torch import Tensor

from kvbench.ops import Area, Chunks

PAGE_BYTES = 4096

Pair = tuple[Tensor, Tensor]
"""K and V: [num_rows, num_kv_heads, tokens, head_dim] each."""


class Store(Protocol):
    """K and V of one sequence, all layers.

    Attributes:
        num_used: slots that hold tokens.
    """

    num_used: int

    def reserve(self, capacity: int) -> None:
        """Make room for so many slots; 0 frees all.

        Raises:
            RuntimeError: the device gives no memory; only `reserve(0)` may follow.
        """
        ...

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int) -> None:
        """Write new tokens behind the live ones.

        Args:
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
            values: as keys.
            num_tokens: new tokens; they fit.
        """
        ...

    def pieces(self, layer: int) -> list[Pair]:
        """The live tokens of one layer in order: views of tensors that lie apart."""
        ...

    def truncate(self, num_tokens: int) -> None:
        """Forget the newest tokens; storage stays as it is."""
        ...


def store_of(
    area: Area, num_layers: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> Store:
    """An empty store.

    Args:
        area: how its slots live.
        num_layers: layers, > 0.
        shape: num_rows, num_kv_heads and head_dim.
        dtype: of every tensor.
        device: where they live.
    """
    match area.layout:
        case Chunks(chunk_tokens):
            return ChunkedStore(num_layers, shape, dtype, device, chunk_tokens)
        case _:
            return ContiguousStore(num_layers, shape, dtype, device)


def _allocate(shape: tuple[int, int, int], num_slots: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    num_rows, num_heads, head_dim = shape
    tensor = torch.empty((num_rows, num_heads, num_slots, head_dim), dtype=dtype, device=device)
    if tensor.device.type == "cpu":
        # The kernel gives pages at first touch: take them here, where memory is asked for, not in later appends.
        tensor.view(torch.uint8).view(-1)[::PAGE_BYTES].zero_()
    return tensor


class ContiguousStore:
    """A tensor each for K and V of a layer."""

    __slots__ = ("_device", "_dtype", "_shape", "capacity", "keys", "num_used", "values")

    def __init__(self, num_layers: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self._shape = shape
        self._dtype = dtype
        self._device = device
        self.capacity = 0
        self.num_used = 0
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers

    def reserve(self, capacity: int) -> None:
        """Tensor by tensor: allocate, copy the live slots, free the old. See `Store.reserve`."""
        for layer in range(len(self.keys)):
            for tensors in (self.keys, self.values):
                tensors[layer] = self._resized(tensors[layer], capacity) if capacity else None
        self.capacity = capacity

    def _resized(self, old: Tensor | None, capacity: int) -> Tensor:
        new = _allocate(self._shape, capacity, self._dtype, self._device)
        if old is not None and self.num_used:
            new.narrow(2, 0, self.num_used).copy_(old.narrow(2, 0, self.num_used))
        return new

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int) -> None:
        """See `Store.append`."""
        start = self.num_used
        end = start + num_tokens
        for layer, buffer in enumerate(self.keys):
            buffer[:, :, start:end] = keys[layer]
            self.values[layer][:, :, start:end] = values[layer]
        self.num_used = end

    def pieces(self, layer: int) -> list[Pair]:
        """One piece. See `Store.pieces`."""
        num_rows, num_heads, head_dim = self._shape
        size, keys = (num_rows, num_heads, self.num_used, head_dim), self.keys[layer]
        # Half the host time of narrow, which is 4 % of a short decode step.
        return [(keys.as_strided(size, keys.stride()), self.values[layer].as_strided(size, keys.stride()))]

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`."""
        self.num_used -= num_tokens


class ChunkedStore:
    """A list of chunks for K and V of a layer."""

    __slots__ = ("_chunk_tokens", "_device", "_dtype", "_shape", "chunks", "num_used")

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        chunk_tokens: int,
    ) -> None:
        self._shape = shape
        self._dtype = dtype
        self._device = device
        self._chunk_tokens = chunk_tokens
        self.num_used = 0
        self.chunks: list[list[Pair]] = [[] for _ in range(num_layers)]

    def reserve(self, capacity: int) -> None:
        """Add chunks, or drop the last ones. See `Store.reserve`."""
        num_chunks = capacity // self._chunk_tokens
        for chunks in self.chunks:
            del chunks[num_chunks:]
            while len(chunks) < num_chunks:
                chunks.append((self._chunk(), self._chunk()))

    def _chunk(self) -> Tensor:
        return _allocate(self._shape, self._chunk_tokens, self._dtype, self._device)

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int) -> None:
        """Piece by piece, where an append crosses from one chunk into the next. See `Store.append`."""
        done = 0
        while done < num_tokens:
            number, start = divmod(self.num_used, self._chunk_tokens)
            count = min(num_tokens - done, self._chunk_tokens - start)
            for layer, chunks in enumerate(self.chunks):
                for chunk, new in zip(chunks[number], (keys[layer], values[layer]), strict=True):
                    chunk[:, :, start : start + count] = new[:, :, done : done + count]
            done += count
            self.num_used += count

    def pieces(self, layer: int) -> list[Pair]:
        """A piece a chunk that holds tokens. See `Store.pieces`."""
        full, rest = divmod(self.num_used, self._chunk_tokens)
        pieces = self.chunks[layer][:full]
        if rest:
            keys, values = self.chunks[layer][full]
            pieces.append((keys.narrow(2, 0, rest), values.narrow(2, 0, rest)))
        return pieces

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`."""
        self.num_used -= num_tokens
