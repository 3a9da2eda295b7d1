"""Random K, V and queries, made before anything is timed."""

import torch
from torch import Tensor

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.geometry import KVGeometry

NUM_DECODE_TOKENS = 64
MAX_PIECE_TOKENS = 4096


class Inputs:
    """What steps append and ask with. Every layer gets the same tokens; their values do not matter to the time.

    Args:
        geometry: the shape of a token.
        num_rows: rows of a batch.
        max_append_tokens: tokens of the largest append.
        device: where the tensors live.
        seed: of the random values.
    """

    def __init__(
        self, geometry: KVGeometry, num_rows: int, max_append_tokens: int, device: torch.device, seed: int
    ) -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        dtype = getattr(torch, geometry.dtype)

        def random(num_heads: int, num_tokens: int) -> Tensor:
            shape = (num_rows, num_heads, num_tokens, geometry.head_dim)
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)

        self._num_layers = geometry.num_layers
        self._piece_tokens = min(max(max_append_tokens, 1), MAX_PIECE_TOKENS)
        self._keys = random(geometry.num_kv_heads, self._piece_tokens)
        self._values = random(geometry.num_kv_heads, self._piece_tokens)
        self.queries = random(geometry.num_heads, QUERY_CHUNK)
        self._tokens = [
            (self._layers(random(geometry.num_kv_heads, 1)), self._layers(random(geometry.num_kv_heads, 1)))
            for _ in range(NUM_DECODE_TOKENS)
        ]
        self.decode_queries = [
            packed(random(geometry.num_heads, 1), geometry.num_kv_heads) for _ in range(NUM_DECODE_TOKENS)
        ]
        self._next = 0

    def _layers(self, tensor: Tensor) -> list[Tensor]:
        return [tensor] * self._num_layers

    def pieces(self, num_tokens: int) -> list[tuple[list[Tensor], list[Tensor], int]]:
        """Keys, values and number of tokens of each piece of an append; one piece unless it is very long."""
        if num_tokens == 1:
            self._next = (self._next + 1) % NUM_DECODE_TOKENS
            keys, values = self._tokens[self._next]
            return [(keys, values, 1)]
        sizes = [self._piece_tokens] * (num_tokens // self._piece_tokens)
        if num_tokens % self._piece_tokens:
            sizes.append(num_tokens % self._piece_tokens)
        return [
            (self._layers(self._keys.narrow(2, 0, size)), self._layers(self._values.narrow(2, 0, size)), size)
            for size in sizes
        ]
