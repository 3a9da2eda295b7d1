"""Storage of one sequence's K and V in contiguous tensors."""

import torch
from torch import Tensor

PAGE_BYTES = 4096


class ContiguousStore:
    """K and V of one sequence: a tensor each a layer, [num_rows, num_kv_heads, num_slots, head_dim].

    Args:
        num_layers: layers, > 0.
        shape: num_rows, num_kv_heads and head_dim.
        dtype: of every tensor.
        device: where they live.
    """

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
        """Make room for so many slots, tensor by tensor: allocate, copy the live slots, free the old.

        Raises:
            RuntimeError: the device gives no memory; only `release` may follow.
        """
        for layer in range(len(self.keys)):
            for tensors in (self.keys, self.values):
                tensors[layer] = self._resized(tensors[layer], capacity) if capacity else None
        self.capacity = capacity

    def _resized(self, old: Tensor | None, capacity: int) -> Tensor:
        num_rows, num_heads, head_dim = self._shape
        new = torch.empty((num_rows, num_heads, capacity, head_dim), dtype=self._dtype, device=self._device)
        if new.device.type == "cpu":
            # The kernel gives pages at first touch: take them here, where memory is asked for, not in later appends.
            new.view(torch.uint8).view(-1)[::PAGE_BYTES].zero_()
        if old is not None and self.num_used:
            new.narrow(2, 0, self.num_used).copy_(old.narrow(2, 0, self.num_used))
        return new

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int) -> None:
        """Write new tokens behind the live ones.

        Args:
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
            values: as keys.
            num_tokens: new tokens; they fit.
        """
        start = self.num_used
        end = start + num_tokens
        for layer, buffer in enumerate(self.keys):
            buffer[:, :, start:end] = keys[layer]
            self.values[layer][:, :, start:end] = values[layer]
        self.num_used = end

    def live(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of one layer that hold tokens: views, [num_rows, num_kv_heads, num_used, head_dim]."""
        num_rows, num_heads, head_dim = self._shape
        size, keys = (num_rows, num_heads, self.num_used, head_dim), self.keys[layer]
        # Half the host time of narrow, which is 4 % of a short decode step.
        return keys.as_strided(size, keys.stride()), self.values[layer].as_strided(size, keys.stride())

    def truncate(self, num_tokens: int) -> None:
        """Forget the newest tokens; storage stays as it is."""
        self.num_used -= num_tokens

    def release(self) -> None:
        """Free all tensors."""
        self.num_used = 0
        self.reserve(0)
