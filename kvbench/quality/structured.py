"""K, V and queries with the structure that lossy strategies rely on, made from a seed.

Logits of attention are sums of independent parts, each along directions of its own, so that each part can be set in
units of the logit: recency, sinks, heavy hitters and needles add up.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kvbench.model.geometry import KVGeometry
from kvbench.quality.sample import Needle, Sample

LEAST_HEAD_DIM = 8
LEAST_ORDINARY = 4
"""Dimensions of a head that ordinary keys keep to themselves."""
PLANTED_NORM = 0.5
"""Norm of a planted part of a key over that of an ordinary key: what is looked at most is not what is longest."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """How strong each part of the structure is.

    At 1,000 tokens and 128 channels, sinks get about a third of a query's attention, and the last 64 tokens as much.

    Args:
        heavy_share: share of a head's key channels that are heavy (at least one): large, and nearly the same in every
            token, so that a scale a channel loses little and a scale a token loses the other channels.
        heavy_magnitude: their magnitude; the other channels have a standard deviation of 1.
        heavy_spread: their standard deviation over tokens, as a share of the magnitude.
        num_sinks: first tokens that every query looks at.
        sink_logit: what they add to the logit.
        sink_value: magnitude of their values; those of the others have 1.
        correlation: of what neighbouring tokens are about; what a query looks for fades by it with each token of
            distance.
        local_logit: what a query's own token adds to the logit; one at distance d adds correlation ** d of it.
        value_share: share of the values' variance that drifts with correlation too; the rest is each token's own.
        hitter_share: share of tokens, each head's own, that every query looks at.
        hitter_logit: what they add to the logit.
        query_noise: standard deviation of a query head's own part, about that of the logit too.
        depths: where needles stand, as shares of the sequence.
        needle_tokens: tokens of a needle, in a row, with the same value; their keys are as long as any.
        needle_logit: what a needle adds to the logit of the query that asks for it.
    Source: heavy channels: Liu et al. 2024, arXiv:2402.02750, section 3; sinks and their small values: Xiao et al.
        2023, arXiv:2309.17453, and Gu et al. 2024, arXiv:2410.10781; heavy hitters: Zhang et al. 2023,
        arXiv:2306.14048, section 3; keys that are looked at much are short: Devoto et al. 2024, arXiv:2406.11430.
    Departs: magnitudes are set, not fitted to a model; positions act through the drift alone.
    """

    heavy_share: float = 1 / 32
    heavy_magnitude: float = 10.0
    heavy_spread: float = 0.05
    num_sinks: int = 4
    sink_logit: float = 6.5
    sink_value: float = 0.1
    correlation: float = 0.95
    local_logit: float = 6.0
    value_share: float = 0.5
    hitter_share: float = 0.02
    hitter_logit: float = 4.0
    query_noise: float = 0.5
    depths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    needle_tokens: int = 4
    needle_logit: float = 12.0

    def __post_init__(self) -> None:
        if not all(0 <= depth <= 1 for depth in self.depths) or list(self.depths) != sorted(self.depths):
            raise ValueError(f"depths are numbers from 0 to 1, in order, got {self.depths}")


STRUCTURE = Structure()


def structured(geometry: KVGeometry, num_tokens: int, seed: int, structure: Structure = STRUCTURE) -> Sample:
    """Make K, V and queries of one layer, in the geometry's dtype.

    Args:
        geometry: heads, head_dim and dtype.
        num_tokens: tokens, > 0. Needles are planted where there is room for all of them, in tokens and in channels.
        seed: the same seed gives the same sample.
        structure: how strong each part is.
    Raises:
        ValueError: the heads are too small to hold a structure.
    """
    if geometry.plain.head_dim < LEAST_HEAD_DIM:
        raise ValueError(
            f"structured K and V need a head_dim of at least {LEAST_HEAD_DIM}, got {geometry.plain.head_dim}"
        )
    made = _Layer(geometry, num_tokens, torch.Generator().manual_seed(seed), structure)
    dtype = getattr(torch, geometry.dtype)
    keys, values, queries = (tensor.to(dtype).unsqueeze(0) for tensor in (made.keys, made.values, made.queries))
    needles = tuple(
        Needle(depth, start, structure.needle_tokens, asks.to(dtype).unsqueeze(0))
        for depth, start, asks in zip(structure.depths, made.needle_starts, made.needle_queries, strict=False)
    )
    return Sample(keys, values, queries, needles, f"K and V made with structure, seed {seed}")


def needle_starts(num_tokens: int, structure: Structure) -> list[int]:
    """First position of each needle, after the sinks; none where they have not all room."""
    size = structure.needle_tokens
    starts = [max(round(depth * (num_tokens - size)), structure.num_sinks) for depth in structure.depths]
    ends = [structure.num_sinks, *(start + size for start in starts)]
    has_room = all(end <= start for end, start in zip(ends, [*starts, num_tokens], strict=True))
    return starts if has_room else []


class _Layer:
    """One layer's K, V and queries, float32 [heads, tokens, head_dim].

    Args:
        geometry: heads and head_dim.
        num_tokens: tokens.
        generator: of all that is random.
        structure: how strong each part is.
    """

    def __init__(self, geometry: KVGeometry, num_tokens: int, generator: torch.Generator, structure: Structure) -> None:
        self._structure = structure
        self._generator = generator
        self._num_kv_heads, self._head_dim = geometry.plain.num_kv_heads, geometry.plain.head_dim
        self._group_size = geometry.plain.heads_per_kv_head
        num_heavy = max(round(structure.heavy_share * self._head_dim), 1)
        self.needle_starts = needle_starts(num_tokens, structure)
        self._size = self._head_dim - num_heavy - 2 - len(self.needle_starts)
        if self._size < LEAST_ORDINARY:
            self._size += len(self.needle_starts)
            self.needle_starts = []
        self._choose_directions(num_heavy)
        self.keys = self._drift(self._ordinary(num_tokens))
        self.queries = self._asking(self.keys)
        self.needle_queries = [self._asking_for(needle) for needle in self._needles]
        self.values = self._values(num_tokens)
        self._plant()

    def _random(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._generator)

    def _choose_directions(self, num_heavy: int) -> None:
        """Each head's heavy channels, and directions beside them that nothing ordinary has a part in."""
        channels = torch.rand(self._num_kv_heads, self._head_dim, generator=self._generator).argsort(dim=1)
        self._heavy = channels[:, :num_heavy]
        num_directions = 2 + len(self.needle_starts)
        apart = self._without_heavy(self._random(self._num_kv_heads, num_directions, self._head_dim))
        self._directions = torch.linalg.qr(apart.transpose(1, 2)).Q.transpose(1, 2)
        self._sink, self._hitter, *self._needles = self._directions.split(1, dim=1)

    def _without_heavy(self, made: Tensor) -> Tensor:
        """Without heavy channels, in place."""
        return made.scatter_(2, self._heavy.unsqueeze(1).expand(-1, made.shape[1], -1), 0.0)

    def _ordinary(self, num_tokens: int) -> Tensor:
        """Random keys without heavy channels, and with no part along the directions."""
        made = self._without_heavy(self._random(self._num_kv_heads, num_tokens, self._head_dim))
        made -= (made @ self._directions.transpose(1, 2)) @ self._directions
        return made

    def _drift(self, made: Tensor) -> Tensor:
        """Make neighbours resemble each other, in place; the variance stays."""
        keep = self._structure.correlation
        made[:, 1:] *= math.sqrt(1 - keep**2)
        for token in range(1, made.shape[1]):
            made[:, token].add_(made[:, token - 1], alpha=keep)
        return made

    @property
    def _planted_norm(self) -> float:
        return PLANTED_NORM * math.sqrt(self._size)

    @property
    def _shortened(self) -> float:
        """What keeps a key as long as it was when a part is planted beside what it has."""
        return 1 / math.sqrt(1 + PLANTED_NORM**2)

    def _asking(self, drift: Tensor) -> Tensor:
        """Each token's queries: for what is like it, for sinks and for heavy hitters."""
        structure = self._structure
        made = drift * (structure.local_logit / self._size)
        made += self._sink * (structure.sink_logit / self._planted_norm)
        made += self._hitter * (structure.hitter_logit / self._planted_norm)
        made *= math.sqrt(self._head_dim)
        made = made.repeat_interleave(self._group_size, dim=0)
        return made.add_(self._random(*made.shape), alpha=structure.query_noise)

    def _asking_for(self, needle: Tensor) -> Tensor:
        """Queries for a needle, sinks and heavy hitters, and for nothing recent: [num_heads, head_dim]."""
        norm = self._planted_norm * self._shortened
        asking = needle * (self._structure.needle_logit * math.sqrt(self._head_dim) / norm)
        asking = asking.repeat_interleave(self._group_size, dim=0)
        return (self._asking(torch.zeros_like(needle)) + asking).squeeze(1)

    def _values(self, num_tokens: int) -> Tensor:
        structure = self._structure
        made = self._drift(self._random(self._num_kv_heads, num_tokens, self._head_dim))
        made *= math.sqrt(structure.value_share)
        made.add_(self._random(*made.shape), alpha=math.sqrt(1 - structure.value_share))
        made[:, : structure.num_sinks] *= structure.sink_value
        return made

    def _plant(self) -> None:
        """Turn ordinary keys into those of sinks, heavy hitters and needles, and fill the heavy channels."""
        structure = self._structure
        is_hitter = torch.rand(*self.keys.shape[:2], 1, generator=self._generator) < structure.hitter_share
        self.keys += is_hitter * self._hitter * self._planted_norm
        self.keys[:, : structure.num_sinks] = self._sink * self._planted_norm
        for start, needle in zip(self.needle_starts, self._needles, strict=True):
            end = start + structure.needle_tokens
            self.keys[:, start:end] += needle * self._planted_norm
            self.keys[:, start:end] *= self._shortened
            self.values[:, start:end] = self._random(self._num_kv_heads, 1, self._head_dim)
        size = (self._num_kv_heads, self.keys.shape[1], self._heavy.shape[1])
        filled = self._random(*size).mul_(structure.heavy_spread).add_(1.0).mul_(structure.heavy_magnitude)
        filled *= self._random(size[0], 1, size[2]).sign()
        self.keys.scatter_(2, self._heavy.unsqueeze(1).expand(size), filled)
