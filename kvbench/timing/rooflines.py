"""What kernels' times are made of, whichever they are: bytes past a cache, and knees between two bounds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.model.dtypes import DTYPE_BYTES, KV_BITS
from kvbench.timing.shapes import AttentionShape

Seconds = NDArray[np.float64]

CACHE_SHARPNESS = 6.0
"""How sharply what is read again and again stops to fit a cache: a power of its bytes over the cache's."""
LEAST_S = 1e-30


class Peaks(NamedTuple):
    """Of an accelerator's data sheet, which figures are shares of.

    Args:
        memory_bytes_per_s: of its memory.
        flops_per_s: of dense products of 16-bit numbers.
    """

    memory_bytes_per_s: float
    flops_per_s: float


def past_cache(num_bytes: Seconds, cache_bytes: float) -> Seconds:
    """The share of bytes that are read from memory, when they were read just before and a cache keeps as many."""
    found: Seconds = 1 / (1 + (cache_bytes / np.maximum(num_bytes, 1.0)) ** CACHE_SHARPNESS)
    return found


def knee(first: Seconds, second: Seconds, power: float) -> Seconds:
    """The greater of two times, and more where they are near."""
    greater = np.maximum(np.maximum(first, second), LEAST_S)
    found: Seconds = greater * ((first / greater) ** power + (second / greater) ** power) ** (1 / power)
    return found


def flops_at(shape: AttentionShape, peaks: Peaks) -> float:
    """The peak rate for a layer's attention, in what it computes in."""
    return peaks.flops_per_s * min(1.0, 2 / DTYPE_BYTES.get(shape.dtype, 2))


def slot_bytes(shape: AttentionShape) -> float:
    """Bytes of a token's K and V in a layer."""
    return float(shape.num_kv_heads * (shape.key_dim + shape.value_dim) * KV_BITS[shape.kv_dtype] / 8)


def head_numbers(shape: AttentionShape) -> int:
    """Numbers of a query and of its result in a head; latents' results are told as wide as their keys."""
    return shape.key_dim + (shape.value_dim or shape.key_dim)
