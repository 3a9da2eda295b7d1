"""K and V rounded to few bits, packed into bytes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kvbench.backend.storage.base import Piece, Shape
from kvbench.backend.storage.chunked import ChunkedStore, Cut
from kvbench.backend.storage.memory import Memory, reads_in_parts
from kvbench.backend.storage.transfer import carry
from kvbench.plan.area import Area, Packed

BYTE_BITS = 8
TOKENS, CHANNELS = 3, 4
"""Axes that a group may run along, of a tensor whose tokens and channels are both cut into groups."""


def quantized(values: Tensor, bits: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round to 2**bits levels between the least and the greatest of each group.

    Args:
        values: with the elements of a group along an axis.
        bits: 8, 4 or 2.
        axis: which.
    Returns:
        Codes, uint8 as values; scale and minimum, in the values' dtype, with one element along the axis. A code stands
        for code x scale + minimum.
    """
    least, greatest = values.aminmax(dim=axis, keepdim=True)
    scale = ((greatest.float() - least.float()) / (2**bits - 1)).to(values.dtype)
    steps = (values.float() - least.float()) / torch.where(scale == 0, 1, scale).float()
    return steps.round_().clamp_(0, 2**bits - 1).to(torch.uint8), scale, least


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes of few bits, several to a byte: the last axis in equal parts, the first part in the lowest bits."""
    parts = codes.chunk(BYTE_BITS // bits, dim=-1)
    together = parts[0].clone()
    for place, part in enumerate(parts[1:], start=1):
        together |= part << (place * bits)
    return together


def unpack(together: Tensor, bits: int, codes: Tensor) -> None:
    """Write a packed tensor's codes where they are wanted, in whatever dtype; what is kept meanwhile is small."""
    last = BYTE_BITS // bits - 1
    for place, part in enumerate(codes.chunk(last + 1, dim=-1)):
        found = together >> (place * bits) if place else together
        part.copy_(found & (2**bits - 1) if place < last else found)


def unpacked(together: Tensor, bits: int) -> Tensor:
    """The codes of a packed tensor, uint8, in as few launches as there are."""
    last = BYTE_BITS // bits - 1
    if not last:
        return together
    codes = together.new_empty(*together.shape[:-1], together.shape[-1] * (last + 1))
    for place, part in enumerate(codes.chunk(last + 1, dim=-1)):
        if not place:
            torch.bitwise_and(together, 2**bits - 1, out=part)
            continue
        torch.bitwise_right_shift(together, place * bits, out=part)
        if place < last:
            part.bitwise_and_(2**bits - 1)
    return codes


class PackedStore(ChunkedStore):
    """Chunks of codes, with a scale and a minimum a group; tokens come in whole groups.

    Args:
        area: how it lives; its format is packed, its layout chunks of whole groups.
        shape: of K and V as they come.
        memory: where the tensors live.
    """

    __slots__ = ("_format", "_of_token")

    def __init__(self, area: Area, shape: Shape, memory: Memory) -> None:
        super().__init__(area, shape, memory)
        assert isinstance(area.format, Packed)
        self._format = area.format
        self._of_token = min(area.format.group, shape.head_dim)

    def _new_chunk(self) -> list[Tensor]:
        """Codes, scales and minima of K, then of V."""
        shape, tokens, bits = self._shape, self._chunk_tokens, self._format.bits
        rows, heads = shape.num_rows, shape.num_heads
        codes = (rows, heads, tokens, shape.head_dim * bits // BYTE_BITS)
        by_token = (rows, heads, tokens, shape.head_dim // self._of_token, 1)
        by_channel = (rows, heads, tokens // self._format.group, 1, shape.head_dim)
        by_key = by_channel if self._format.keys_per == "channel" else by_token
        sizes = [(codes, torch.uint8), (by_key, shape.dtype), (by_key, shape.dtype)]
        sizes += [(codes, torch.uint8), (by_token, shape.dtype), (by_token, shape.dtype)]
        return [self._memory.empty(size, dtype) for size, dtype in sizes]

    def _put(self, chunk: Sequence[Tensor], keys: Tensor, values: Tensor, start: int, done: int, count: int) -> bool:
        """Round and pack whole groups. See `ChunkedStore._put`."""
        for tensors, new, per in ((chunk[:3], keys, self._format.keys_per), (chunk[3:], values, "token")):
            taken = new.narrow(2, done, count)
            axis, unit = self._axis(per)
            codes, *scales = quantized(self._grouped(taken, per), self._format.bits, axis)
            tensors[0].narrow(2, start, count).copy_(packed(codes.view(taken.shape), self._format.bits))
            for target, scale in zip(tensors[1:], scales, strict=True):
                target.narrow(2, start // unit, count // unit).copy_(scale)
        return False

    def _axis(self, per: str) -> tuple[int, int]:
        """Along which axis a group runs, and over how many tokens."""
        return (TOKENS, self._format.group) if per == "channel" else (CHANNELS, 1)

    def _grouped(self, tensor: Tensor, per: str) -> Tensor:
        """A view [rows, heads, tokens, channels] with an axis more, along which a group runs."""
        axis, unit = (2, self._format.group) if per == "channel" else (3, self._of_token)
        grouped: Tensor = tensor.unflatten(axis, (-1, unit))
        return grouped

    def _piece(self, layer: int, cut: Cut) -> Piece:
        """Live slots in new tensors of the model's dtype."""
        size = self._shape.of(cut[2])
        keys, values = (torch.empty(size, dtype=self._shape.dtype, device=self._memory.device) for _ in range(2))
        self._bring(layer, [cut], keys, values)
        return Piece(keys, values, self._positions(layer, cut))

    def _bring(self, layer: int, cuts: list[Cut], keys: Tensor, values: Tensor) -> None:
        """Restore live slots where they are read; see `ChunkedStore`."""
        done = 0
        for own in ([cut] for cut in cuts) if reads_in_parts(keys.device) else (cuts,):
            count = sum(cut[2] for cut in own)
            self._restore(layer, own, keys.narrow(2, done, count), values.narrow(2, done, count))
            done += count

    def _restore(self, layer: int, cuts: list[Cut], keys: Tensor, values: Tensor) -> None:
        """Restore the slots of chunks that lie behind each other, together."""
        group, count = self._format.group, keys.shape[2]
        before = cuts[0][1] % group
        num_whole = -(-(before + count) // group) * group
        for first, target, per in ((0, keys, self._format.keys_per), (3, values, "token")):
            codes, scale, least = self._joined(layer, cuts, slice(first, first + 3), per)
            is_whole = num_whole == count
            whole = target if is_whole else target.new_empty(self._shape.of(num_whole))
            grouped = self._grouped(whole, per)
            if reads_in_parts(whole.device):
                unpack(codes, self._format.bits, whole)
                grouped.mul_(scale).add_(least)
            else:  # one launch; a processor takes twice as long for it
                restored = self._grouped(unpacked(codes, self._format.bits), per)
                torch.addcmul(least, restored, scale, out=grouped)
            if not is_whole:  # part of a group was evicted
                target.copy_(whole.narrow(2, before, count))

    def _joined(self, layer: int, cuts: list[Cut], which: slice, per: str) -> list[Tensor]:
        """Codes, scales and minima of whole groups that lie behind each other, where attention runs."""
        group, unit = self._format.group, self._axis(per)[1]
        parts: list[tuple[Tensor, ...]] = []
        for number, start, count, _ in cuts:
            first, last = start // group * group, -(-(start + count) // group) * group
            codes, *scales = self.chunks[layer][number][which]
            spans = [scale.narrow(2, first // unit, (last - first) // unit) for scale in scales]
            parts.append((codes.narrow(2, first, last - first), *spans))
        joined = [each[0] if len(cuts) == 1 else torch.cat(each, dim=2) for each in zip(*parts, strict=True)]
        if self._is_near:
            return joined
        near = [torch.empty_like(each, device=self._shape.device) for each in joined]
        for target, each in zip(near, joined, strict=True):
            carry(target, each)
        return near
