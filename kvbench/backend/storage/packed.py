"""K and V rounded to few bits, packed into bytes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kvbench.area import Area, Packed
from kvbench.backend.storage.base import Piece, Shape
from kvbench.backend.storage.chunked import ChunkedStore
from kvbench.backend.storage.memory import Memory

BYTE_BITS = 8


def quantized(values: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round to 2**bits levels between the least and the greatest of each group.

    Args:
        values: [..., group]; the last axis is a group.
        bits: 8, 4 or 2.
    Returns:
        Codes, uint8 as values; scale and minimum, [..., 1], in the values' dtype. A code stands for code x scale +
        minimum.
    """
    least, greatest = values.aminmax(dim=-1, keepdim=True)
    scale = (greatest.float() - least.float()) / (2**bits - 1)
    scale = scale.to(values.dtype)
    steps = (values.float() - least.float()) / torch.where(scale == 0, 1, scale).float()
    return steps.round_().clamp_(0, 2**bits - 1).to(torch.uint8), scale, least


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes of few bits, several to a byte along the last axis, the first in the lowest bits."""
    per_byte = BYTE_BITS // bits
    if per_byte == 1:
        return codes
    apart = codes.view(*codes.shape[:-1], -1, per_byte)
    packed_bytes = apart[..., 0].clone()
    for place in range(1, per_byte):
        packed_bytes |= apart[..., place] << (place * bits)
    return packed_bytes


def unpacked(packed_bytes: Tensor, bits: int) -> Tensor:
    """The codes again."""
    per_byte = BYTE_BITS // bits
    if per_byte == 1:
        return packed_bytes
    shifts = torch.arange(0, BYTE_BITS, bits, dtype=torch.uint8, device=packed_bytes.device)
    return ((packed_bytes.unsqueeze(-1) >> shifts) & (2**bits - 1)).flatten(-2)


class PackedStore(ChunkedStore):
    """Chunks of codes, with a scale and a minimum a group; tokens come and go in whole groups.

    Args:
        area: how it lives; its format is packed, its layout chunks of whole groups.
        shape: of K and V as they come.
        memory: where the tensors live.
    """

    __slots__ = ("_format", "_of_token")

    def __init__(self, area: Area, shape: Shape, memory: Memory) -> None:
        super().__init__(area, shape, memory)
        self._format: Packed = area.format
        self._of_token = min(area.format.group, shape.head_dim)

    def _new_chunk(self) -> Sequence[Tensor]:
        """Codes, scales and minima of K, then of V."""
        shape, tokens, bits = self._shape, self._chunk_tokens, self._format.bits
        codes = (*shape.of(tokens)[:3], shape.head_dim * bits // BYTE_BITS)
        by_token = (*shape.of(tokens)[:3], shape.head_dim // self._of_token, 1)
        by_channel = (*shape.of(tokens // self._format.group)[:3], shape.head_dim, 1)
        by_key = by_channel if self._format.keys_per == "channel" else by_token
        sizes = [(codes, torch.uint8), (by_key, shape.dtype), (by_key, shape.dtype)]
        sizes += [(codes, torch.uint8), (by_token, shape.dtype), (by_token, shape.dtype)]
        return [self._memory.empty(size, dtype) for size, dtype in sizes]

    def _put(self, chunk: Sequence[Tensor], keys: Tensor, values: Tensor, start: int, done: int, count: int) -> None:
        """Round and pack whole groups. See `ChunkedStore._put`."""
        for tensors, new, per in (
            (chunk[:3], keys, self._format.keys_per),
            (chunk[3:], values, "token"),
        ):
            taken = new.narrow(2, done, count)
            codes, *scales = quantized(self._grouped(taken, per), self._format.bits)
            tensors[0].narrow(2, start, count).copy_(packed(self._apart(codes, per, count), self._format.bits))
            unit = self._format.group if per == "channel" else 1
            for target, scale in zip(tensors[1:], scales, strict=True):
                target.narrow(2, start // unit, count // unit).copy_(scale)

    def _grouped(self, tensor: Tensor, per: str) -> Tensor:
        """[rows, heads, tokens, dim] with a group along the last axis."""
        rows, heads, count, dim = tensor.shape
        if per == "channel":
            return tensor.reshape(rows, heads, count // self._format.group, self._format.group, dim).transpose(3, 4)
        return tensor.reshape(rows, heads, count, dim // self._of_token, self._of_token)

    def _apart(self, grouped: Tensor, per: str, count: int) -> Tensor:
        """The inverse of `_grouped`."""
        if per == "channel":
            grouped = grouped.transpose(3, 4)
        return grouped.reshape(self._shape.of(count))

    def _piece(self, layer: int, cut: tuple[int, int, int, int]) -> Piece:
        """Live slots in new tensors of the model's dtype."""
        number, start, count, _ = cut
        chunk = self.chunks[layer][number]
        keys = self._restored(chunk[:3], start, count, self._format.keys_per)
        values = self._restored(chunk[3:], start, count, "token")
        return Piece(keys, values, self._positions(layer, cut))

    def _restored(self, tensors: Sequence[Tensor], start: int, count: int, per: str) -> Tensor:
        group = self._format.group if per == "channel" else 1
        # A chunk that has lost part of a group to eviction begins inside one.
        first, last = start // group, math.ceil((start + count) / group)
        codes = unpacked(tensors[0].narrow(2, first * group, (last - first) * group), self._format.bits)
        grouped = self._grouped(codes, per).to(self._shape.dtype)
        scale, least = (tensor.narrow(2, first, last - first) for tensor in tensors[1:])
        restored = self._apart(grouped.mul_(scale).add_(least), per, (last - first) * group)
        return restored.narrow(2, start - first * group, count)
