"""Random K, V and queries, made before anything is timed."""

import torch
from torch import Tensor

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.geometry import KVGeometry
from kvbench.ops import Append

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
        self.queries = packed(random(geometry.num_heads, QUERY_CHUNK), geometry.num_kv_heads)
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

    def pieces(self, op: Append) -> list[tuple[Append, list[Tensor], list[Tensor]]]:
        """An append with its keys and values; in pieces where it is very long, so that the inputs stay small."""
        if op.num_tokens == 1:
            self._next = (self._next + 1) % NUM_DECODE_TOKENS
            return [(op, *self._tokens[self._next])]
        full, rest = divmod(op.num_tokens, self._piece_tokens)
        sizes = [self._piece_tokens] * full + [rest] * (rest > 0)
        return [
            (
                Append(op.seq, size, op.area),
                self._layers(self._keys.narrow(2, 0, size)),
                self._layers(self._values.narrow(2, 0, size)),
            )
            for size in sizes
        ]
