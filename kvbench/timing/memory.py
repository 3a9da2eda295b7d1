"""Bytes that a kernel moves: through memory, or within a cache where they are few; and kernels that do nothing else."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvbench.timing.rooflines import Seconds, past_cache


class TrafficFigures(NamedTuple):
    """What a fit says of norms, activation functions, rotary embeddings and additions; typical ones stand in.

    Args:
        floor_s: of a kernel, at least.
        share: of the memory's bandwidth.
        cache_share: the same ratio, of bytes that stay in the accelerator's cache, where the kernel before left them.
        cache_bytes: that stay there.
    """

    floor_s: float = 2e-6
    share: float = 0.75
    cache_share: float = 1.5
    cache_bytes: float = 3e7


def read_s(num_bytes: Seconds, bytes_per_s: float, share: float, cache_share: float, cache_bytes: float) -> Seconds:
    """How long bytes take that are moved again and again, so that few of them stay in a cache.

    Args:
        num_bytes: of a kernel.
        bytes_per_s: peak bandwidth of the memory.
        share: of that, which kernels reach.
        cache_share: the same ratio, where bytes stay in the cache.
        cache_bytes: that stay there.
    """
    past = past_cache(num_bytes, cache_bytes)
    found: Seconds = num_bytes / bytes_per_s * (past / share + (1 - past) / cache_share)
    return found


def traffic_s(num_bytes: ArrayLike, bytes_per_s: float, figures: TrafficFigures) -> Seconds:
    """A kernel that only moves bytes."""
    moved = np.asarray(num_bytes, np.float64)
    told = (figures.share, figures.cache_share, figures.cache_bytes)
    found: Seconds = figures.floor_s + read_s(moved, bytes_per_s, *told)
    return found
