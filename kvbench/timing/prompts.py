"""Attention of prompts: blocks that each take some rows of queries and walk over the keys that those see."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvbench.timing.rooflines import Peaks, Seconds, flops_at, head_numbers, knee, past_cache, slot_bytes
from kvbench.timing.shapes import AttentionShape

TILE_ROWS = 64
"""Of queries that a block takes."""
USUAL_NUMBERS = 256
"""Of a query and its result in a head, of which figures are told."""
WRITTEN_AT_ONCE = 512
"""Numbers of a token's K that a block writes to the cache at once."""
TILE_WIDTH_POWER = 0.5
"""With which a block's cost beside its products grows in a head's width."""
MEMORY_KNEE = 3.0
TIRING_S = 2e-3
"""From which on kernels slow down: power and clocks."""


class PromptFigures(NamedTuple):
    """What a fit says of prompts' attention on an accelerator; those of one that nobody measured are typical.

    Args:
        floor_s: of a call, at least.
        share: of the peak rate that products reach.
        width_power: with which products' time grows in a head's width.
        tile_s: of a block beside its products, with all units at work.
        walk_s: of a block over one key: a call takes at least the longest block's walk.
        knee: between all blocks' work and the longest one's walk.
        memory_share: of the memory's bandwidth.
        cache_share: the same ratio, of bytes that stay in the accelerator's cache.
        cache_bytes: that stay there.
        write_s: of writing a token to the KV cache beside its bytes, if it is of at least WRITTEN_AT_ONCE numbers.
        window_tiles: tiles of rows that a block reads beyond its window.
        tiring: power of the slowing beyond TIRING_S.
        packs: 1 where a block's rows are of all heads of a group; 0: of one head.
    """

    floor_s: float = 1.1e-5
    share: float = 0.65
    width_power: float = 0.75
    tile_s: float = 2e-8
    walk_s: float = 1.4e-8
    knee: float = 2.0
    memory_share: float = 0.8
    cache_share: float = 4.0
    cache_bytes: float = 4e7
    write_s: float = 4e-9
    window_tiles: float = 1.0
    tiring: float = 0.02
    packs: float = 1.0


class PromptWork(NamedTuple):
    """What prompts' new tokens ask of an accelerator, in seconds of it, all of them together.

    Args:
        work_s: of all blocks, with every unit at work. Of several calls' chunks they add up.
        walk_s: of the longest block. Of several the greatest counts.
        num_tokens: new ones. They add up.
        num_bytes: read and written. They add up.
    """

    work_s: Seconds
    walk_s: Seconds
    num_tokens: Seconds
    num_bytes: Seconds


def prefill_s(
    new_tokens: ArrayLike,
    context_tokens: ArrayLike,
    prompts: ArrayLike,
    shape: AttentionShape,
    peaks: Peaks,
    figures: PromptFigures,
) -> Seconds:
    """One call for so many prompts, each of as many new tokens after as many others."""
    return call_s(chunks_of(new_tokens, context_tokens, prompts, shape, peaks, figures), shape, peaks, figures)


def chunks_of(
    new_tokens: ArrayLike,
    context_tokens: ArrayLike,
    prompts: ArrayLike,
    shape: AttentionShape,
    peaks: Peaks,
    figures: PromptFigures,
) -> PromptWork:
    """What so many prompts' new tokens ask."""
    new, before, number = (np.asarray(each, np.float64) for each in (new_tokens, context_tokens, prompts))
    heads = shape.num_kv_heads if figures.packs else shape.num_heads
    rows = max(TILE_ROWS * heads / shape.num_heads, 1.0)
    tiles = np.ceil(new / rows)
    keys, longest = tiles * before + rows * tiles * (tiles + 1) / 2, before + new
    seen = longest
    if shape.window:
        most = shape.window + figures.window_tiles * rows
        growing = np.clip((most - before) / rows - 0.5, 0, tiles)
        keys = growing * before + rows * growing * (growing + 1) / 2 + (tiles - growing) * most
        longest, seen = np.minimum(longest, most), np.minimum(before, shape.window) + new
    wide = head_numbers(shape) / USUAL_NUMBERS
    width = wide**figures.width_power
    flops = 2 * TILE_ROWS * keys * heads * USUAL_NUMBERS * width
    work = flops / (flops_at(shape, peaks) * figures.share) + figures.tile_s * wide**TILE_WIDTH_POWER * tiles * heads
    num_bytes = new * shape.num_heads * 2 * head_numbers(shape) + seen * slot_bytes(shape)
    return PromptWork(number * work, figures.walk_s * width * longest, number * new, number * num_bytes)


def call_s(chunks: PromptWork, shape: AttentionShape, peaks: Peaks, figures: PromptFigures) -> Seconds:
    """One call for all that chunks ask, the writing of their K and V to the cache with it."""
    past = past_cache(chunks.num_bytes, figures.cache_bytes)
    byte_s = (past / figures.memory_share + (1 - past) / figures.cache_share) / peaks.memory_bytes_per_s
    numbers = shape.num_kv_heads * (shape.key_dim + shape.value_dim)
    written_s = (2.0 * numbers + slot_bytes(shape)) * byte_s
    written_s = written_s + figures.write_s * min(numbers / 2 / WRITTEN_AT_ONCE, 1.0)
    busy = knee(knee(chunks.work_s, chunks.walk_s, figures.knee), chunks.num_bytes * byte_s, MEMORY_KNEE)
    slowed: Seconds = busy * (1 + busy / TIRING_S) ** figures.tiring
    return figures.floor_s + chunks.num_tokens * written_s + slowed
