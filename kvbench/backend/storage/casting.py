"""K and V on their way to a dtype of eight bits, and back."""

import torch
from torch import Tensor

from kvbench.backend.storage.base import Fill, Pair, Part, Piece
from kvbench.backend.storage.memory import Memory
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import CAST_DTYPES, Cast

TORCH = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2, "int8": torch.int8}


def check_held(geometry: KVGeometry) -> None:
    """Refuse a model whose cache is in a dtype that nothing is cast to.

    Raises:
        ValueError: it is.
    """
    held = geometry.held_dtypes
    if held - {geometry.dtype, *CAST_DTYPES} or len(held) > 1:
        raise ValueError(
            f"{geometry.called} is held in {' and '.join(sorted(held))}, which is counted and priced, and not carried "
            f"out: use backend=modelled, or hold it in {', '.join((geometry.dtype, *CAST_DTYPES))}"
        )


class Casting:
    """What all sequences' K and V of one area are divided by, and rounded to.

    Scales come with the first reserve, as the ledger books them; calibrated ones get their values from the first
    tokens that are written to the area, whichever sequence's they are.

    Args:
        form: the area's.
        num_layers: layers that hold K and V.
        num_heads: KV heads.
        dtype: of K and V as they come.
    """

    def __init__(self, form: Cast, num_layers: int, num_heads: int, dtype: torch.dtype) -> None:
        self.held = TORCH[form.dtype]
        self._form = form
        self._num_layers = num_layers
        self._num_scales = form.num_scales(num_heads)
        self._dtype = dtype
        self._is_whole = not self.held.is_floating_point
        self._most = torch.iinfo(self.held).max if self._is_whole else torch.finfo(self.held).max
        self._scales: list[list[Tensor]] = []
        self._is_calibrated = not isinstance(form.scale, str)

    def begin(self, memory: Memory) -> None:
        """Allocate the scales, of K and of V."""
        if not self._num_scales or self._scales:
            return
        size = (1, self._num_scales, 1, 1)
        self._scales = [[memory.empty(size, torch.float32) for _ in range(self._num_layers)] for _ in range(2)]
        if isinstance(self._form.scale, int | float):
            for scale in (*self._scales[0], *self._scales[1]):
                scale.fill_(self._form.scale)

    def lowered(self, keys: list[Tensor], values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """New tokens as they are to be written, where writing them casts: scaled, and within the dtype's range.

        Args:
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
            values: as keys.
        """
        if not self._is_calibrated:
            self._calibrate(keys, values)
        if not self._scales:
            return [self._within(layer) for layer in keys], [self._within(layer) for layer in values]
        scaled = (
            [self._within(layer / scale) for layer, scale in zip(layers, scales, strict=True)]
            for layers, scales in zip((keys, values), self._scales, strict=True)
        )
        return next(scaled), next(scaled)

    def _within(self, tensor: Tensor) -> Tensor:
        return (tensor.round() if self._is_whole else tensor).clamp(-self._most, self._most)

    def _calibrate(self, keys: list[Tensor], values: list[Tensor]) -> None:
        over = (0, 2, 3) if self._form.scale == "head" else (0, 1, 2, 3)
        for layers, scales in zip((keys, values), self._scales, strict=True):
            for layer, scale in zip(layers, scales, strict=True):
                found = layer.abs().amax(dim=over, keepdim=True).float() / self._most
                scale.copy_(found.where(found > 0, 1.0))
        self._is_calibrated = True

    def restore(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Take the scales out of what was cast back to K and V, in place."""
        if self._scales:
            keys.mul_(self._scales[0][layer])
            values.mul_(self._scales[1][layer])

    def restored(self, layer: int, pair: Pair) -> Pair:
        """K and V as they are read, in new tensors."""
        device = self._scales[0][layer].device if self._scales else pair[0].device
        keys, values = (each.to(device, self._dtype) for each in pair)
        self.restore(layer, keys, values)
        return keys, values

    def restored_parts(self, parts: list[Part]) -> list[Part]:
        """Tokens on their way to another area, in new tensors."""
        found = []
        for part in parts:
            pairs = [self.restored(layer, pair) for layer, pair in enumerate(zip(part.keys, part.values, strict=True))]
            found.append(part._replace(keys=[keys for keys, _ in pairs], values=[values for _, values in pairs]))
        return found

    def fills(self, layer: int, pieces: list[Piece], part_tokens: int) -> list[Fill]:
        """What casts pieces that lie together back to where they are read, part by part. See `Store.fills`."""
        return [
            self._fill(layer, piece, start, min(part_tokens, piece.keys.shape[2] - start))
            for piece in pieces
            for start in range(0, piece.keys.shape[2], part_tokens)
        ]

    def _fill(self, layer: int, piece: Piece, start: int, count: int) -> Fill:
        def fill(keys: Tensor, values: Tensor) -> Piece:
            keys, values = keys.narrow(2, 0, count), values.narrow(2, 0, count)
            keys.copy_(piece.keys.narrow(2, start, count))
            values.copy_(piece.values.narrow(2, start, count))
            self.restore(layer, keys, values)
            at = piece.positions
            return Piece(
                keys, values, at[start : start + count] if isinstance(at, range) else at.narrow(2, start, count)
            )

        return fill
