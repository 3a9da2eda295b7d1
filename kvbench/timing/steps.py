"""Attention of decode steps: blocks of a sequence and a KV head each, which read what it holds, or share that."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvbench.timing.rooflines import Peaks, Seconds, flops_at, head_numbers, knee, past_cache, slot_bytes
from kvbench.timing.shapes import AttentionShape

USUAL_NUMBERS = 256
"""Of a query and its result in a head, of which figures are told."""
USUAL_BYTES = 512
"""Of a token's K and V in a KV head, the same."""
GROUP_ROWS = 64
"""Heads of queries that a block takes at most."""
TALL_GROUP = 16
SPLIT_FROM = 2**7.5
"""Tokens of a sequence from which on blocks share it, and a second kernel joins what they found."""
SPLIT_SHARPNESS = 4.0
WALK_KNEE = 4.0
COMPUTE_SHARE = 0.5
"""Of the peak rate that products reach, where they bound: latents that many heads share."""
MOST_SEEN, FEWEST_SEEN, SEEN_BY_ALL = 512.0, 64.0, 2.0**16
"""Tokens of a sequence from which on a step's time is laid straight in what it sees, up to SPREAD times as many: fewer
of many sequences, for memories hold only so much."""
SPREAD = 16.0


class StepFigures(NamedTuple):
    """What a fit says of decode steps' attention on an accelerator; those of one that nobody measured are typical.

    Args:
        floor_s: of a call, at least.
        plain_floor_s: the same where each head of queries is taken by itself, see `regroups`.
        split_s: of the kernel that joins what blocks found, see SPLIT_FROM.
        regroup_s: of bringing groups' queries together and results back, where it takes a copy.
        tall_s: of groups of more than TALL_GROUP heads.
        wave_s: of each further round of blocks, when there are more than `units`.
        units: blocks that run at once.
        knee: between rounds of blocks and bytes.
        share: of the memory's bandwidth.
        cache_share: the same ratio, of bytes that stay in the accelerator's cache.
        cache_bytes: that stay there.
        settle_s: of reading from memory at all, beside its bytes.
        walk_s: of a block over one token that none shares with it.
        split_walk_s: the same where as many blocks as can share it.
        operand_share: of the memory's bandwidth, for queries and results.
        floor_width: share of the floor that grows with a head's width.
        wave_width: the same of a round.
        window_tokens: of a full window, read beside it.
        regroups: 1 where groups are brought together only if there are any and no window, and blocks share sequences
            only then (FlashAttention 2); 0: always.
    """

    floor_s: float = 1.1e-5
    plain_floor_s: float = 9e-6
    split_s: float = 2e-6
    regroup_s: float = 4e-6
    tall_s: float = 1e-6
    wave_s: float = 2.5e-6
    units: float = 100.0
    knee: float = 1.5
    share: float = 0.85
    cache_share: float = 2.0
    cache_bytes: float = 5e7
    settle_s: float = 5e-6
    walk_s: float = 1.8e-8
    split_walk_s: float = 4e-10
    operand_share: float = 0.5
    floor_width: float = 0.15
    wave_width: float = 0.4
    window_tokens: float = 30.0
    regroups: float = 0.0


def decode_s(
    seen_tokens: ArrayLike, batch: ArrayLike, shape: AttentionShape, peaks: Peaks, figures: StepFigures
) -> Seconds:
    """A step called again and again, as tables of kernels are measured: what fits the accelerator's cache stays there.

    Args:
        seen_tokens: by all sequences together.
        batch: sequences.
    """
    seen, number = np.asarray(seen_tokens, np.float64), np.asarray(batch, np.float64)
    return _step_s(seen, number, past_cache(seen * slot_bytes(shape), figures.cache_bytes), shape, peaks, figures)


def decode_terms(
    batch: ArrayLike, shape: AttentionShape, peaks: Peaks, figures: StepFigures
) -> tuple[Seconds, Seconds]:
    """What a step takes whatever it sees, and for each token that it sees, as a model's step finds them: all other
    layers were read since the last one, and nothing of this one is left in the accelerator's cache."""
    number = np.asarray(batch, np.float64)
    low = np.clip(SEEN_BY_ALL / np.maximum(number, 1), FEWEST_SEEN, MOST_SEEN)
    if shape.window:
        low = np.minimum(low, shape.window / SPREAD)
    high, past = low * SPREAD, np.ones(number.shape)
    low_s, high_s = (_step_s(number * each, number, past, shape, peaks, figures) for each in (low, high))
    token_s = (high_s - low_s) / (number * (high - low))
    return low_s - token_s * number * low, token_s


def is_plain(shape: AttentionShape, figures: StepFigures) -> bool:
    """Whether each head of queries is taken by itself, though some may share K and V."""
    return bool(figures.regroups) and (shape.num_heads == shape.num_kv_heads or shape.window > 0)


def _step_s(
    seen: Seconds, number: Seconds, past: Seconds, shape: AttentionShape, peaks: Peaks, figures: StepFigures
) -> Seconds:
    each, blocks = seen / np.maximum(number, 1), number * _blocks(shape, figures)
    if shape.window:  # blocks of keys at both ends are read whole
        each = each + figures.window_tokens * np.minimum(each / shape.window, 1) ** 2
        seen = each * number
    width, wide = head_numbers(shape) / USUAL_NUMBERS, slot_bytes(shape) / shape.num_kv_heads / USUAL_BYTES
    rounds = figures.wave_s * np.maximum(blocks / figures.units - 1, 0) * (1 + figures.wave_width * (width - 1))
    operands = number * shape.num_heads * 2 * head_numbers(shape)
    rounds = rounds + operands / (peaks.memory_bytes_per_s * figures.operand_share)
    moved = seen * slot_bytes(shape)
    read = moved * (past / figures.share + (1 - past) / figures.cache_share) / peaks.memory_bytes_per_s
    read = read + figures.settle_s * past * moved / (moved + figures.cache_bytes)
    products = 2 * seen * shape.num_heads * head_numbers(shape) / (flops_at(shape, peaks) * COMPUTE_SHARE)
    walk_s = np.full(np.shape(blocks), figures.split_walk_s)
    if is_plain(shape, figures):
        walk_s = figures.walk_s * np.maximum(blocks / figures.units, 1)
    bound = knee(np.maximum(read, products), walk_s * wide * each, WALK_KNEE)
    return _floor(each, number, width, shape, figures) + knee(rounds, bound, figures.knee)


def _blocks(shape: AttentionShape, figures: StepFigures) -> float:
    """Blocks of a sequence."""
    if is_plain(shape, figures):
        return float(shape.num_heads)
    return float(shape.num_kv_heads * -(-shape.num_heads // (shape.num_kv_heads * GROUP_ROWS)))


def _floor(each: Seconds, number: Seconds, width: float, shape: AttentionShape, figures: StepFigures) -> Seconds:
    """What a call takes before it reads anything."""
    plain = is_plain(shape, figures)
    floor = (figures.plain_floor_s if plain else figures.floor_s) * (1 + figures.floor_width * (width - 1))
    found = np.full(np.shape(each), floor)
    if not plain:
        found = found + figures.split_s / (1 + (SPLIT_FROM / np.maximum(each, 1.0)) ** SPLIT_SHARPNESS)
        found = found + figures.tall_s * (shape.num_heads > TALL_GROUP * shape.num_kv_heads)
        if figures.regroups and shape.num_kv_heads > 1:
            found = found + figures.regroup_s * (number > 1)
    return found
