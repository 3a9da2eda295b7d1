"""K, V and queries to probe strategies with, and attention over all of them: what a strategy's is held against."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Needle:
    """Tokens that a later query asks for.

    Args:
        depth: where they stand, as a share of the sequence: 0 its start, 1 its end.
        start: position of the first of them.
        num_tokens: how many in a row, with the same value.
        queries: [num_layers, num_heads, head_dim], which ask for them once the sequence is whole.
    """

    depth: float
    start: int
    num_tokens: int
    queries: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """K, V and queries of one sequence.

    Args:
        keys: [num_layers, num_kv_heads, tokens, head_dim].
        values: as keys.
        queries: [num_layers, num_heads, tokens, head_dim]; neighbouring heads share a KV head.
        needles: what is asked for at the end; none in recorded data.
        about: what it is, for people.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    needles: tuple[Needle, ...]
    about: str

    @property
    def num_layers(self) -> int:
        """Layers, each probed."""
        return self.keys.shape[0]

    @property
    def num_tokens(self) -> int:
        """Tokens."""
        return self.keys.shape[2]


class Answer(NamedTuple):
    """Exact attention of one token's queries.

    Args:
        output: float32 [num_layers, num_kv_heads, heads a KV head, head_dim].
        weights: float32 [num_layers, num_kv_heads, heads a KV head, tokens].
    """

    output: Tensor
    weights: Tensor


class ExactAttention:
    """Exact attention over a sample, in float32; each answer is computed once for all strategies.

    Args:
        sample: K, V and queries.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._known: dict[int, Answer] = {}

    def at(self, position: int) -> Answer:
        """What the token at a position sees: itself and all before it."""
        if position not in self._known:
            self._known[position] = self._answer(self._sample.queries[:, :, position], position + 1)
        return self._known[position]

    def _answer(self, queries: Tensor, num_tokens: int) -> Answer:
        sample = self._sample
        num_layers, num_kv_heads, _, head_dim = sample.keys.shape
        grouped = queries.reshape(num_layers, num_kv_heads, -1, head_dim).float()
        layers = []
        for layer, asks in enumerate(grouped):
            keys, values = (each[layer, :, :num_tokens].float() for each in (sample.keys, sample.values))
            weights = torch.softmax(asks @ keys.transpose(1, 2) * head_dim**-0.5, dim=-1)
            layers.append((weights @ values, weights))
        return Answer(*(torch.stack(parts) for parts in zip(*layers, strict=True)))
