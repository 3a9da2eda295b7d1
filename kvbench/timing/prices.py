"""What work costs on an accelerator, in whole picoseconds: many steps at once cost exactly what they cost one by one.

Plain functions of integers and of tables of integers. The modelled backend calls them; the fleet simulation compiles
them as they stand.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PS_PER_S = 10**12
PS_PER_NS = 1_000
MOST_PS = 2**60
"""A price, at most: 13 days."""
UNBOUNDED = 2**62
MOST_SIGHTS = 8
"""Windows and chunks of different lengths that a model's layers have, at most."""
SIZES = 2**14
"""Tokens, or sequences, of an iteration that have a price of their own; beyond, each more adds as much."""
NODES = 128
"""Lengths, of new tokens as of those before them, that have a price a pair of their own: up to 16 each number, beyond
eight from one power of two to the next."""
PARTS = 8
UNIT_PARTS = 64
"""Of a unit, see `Sight.weight`, where areas take another share of a slot's bytes each."""
SCALE = 256
"""Of a price a pair, in parts of a picosecond."""
LINEAR, SEQUENCES, DECODE_FIXED, DECODE_UNIT, MIXED_FIXED, MIXED_UNIT, STEP, PREFILL = range(8)
"""Rows of a table of prices: see `Prices`."""
STEP_ROWS = ((DECODE_FIXED, DECODE_UNIT), (MIXED_FIXED, MIXED_UNIT))
"""Those of decode steps: alone, and beside prompts."""


class Sight(NamedTuple):
    """What a query sees of a sequence in the layers that see as much, and what that takes.

    Args:
        reach: tokens, the query's own included: all (UNBOUNDED), a window's, or a chunk's.
        is_chunk: 1 where it sees those of its own chunk only, 0 where it sees the last ones.
        weight: units that a slot counts as where decode steps read it: as many as it takes longer than in other layers.
        read_ps: of the cache alone, attention of one query over one slot: its bytes or its operations, whichever take
            longer, in picoseconds.
        pair_ps: of the cache alone, the operations of one query with one key.
    """

    reach: int
    is_chunk: int
    weight: int
    read_ps: int
    pair_ps: int


class Prices(NamedTuple):
    """Prices of a model on an accelerator, in picoseconds.

    Args:
        write_ps: writing one token's K and V.
        state_ps: reading and writing a sequence's states, which every step does.
        unit_bytes: what the next two are of: a slot, as long as every layer holds it; of states alone, a sequence's.
        copy_ps: copying so many bytes on the device.
        swap_ps: moving so many to the host's memory, or back.
        storage_ps: allocating a cache's tensors, all layers.
        transfer_ps: beginning a transfer to another tier, or back.
        step_ps: what every iteration costs: the host; of the cache alone, launches.
        prompt_ps: attention of an iteration's prompts, whatever they have: one call a layer takes all.
        num_sights: how many of the next there are.
        sights: attention, by how far layers see.
        tables: int64 [PREFILL + num_sights, SIZES + 1]. By tokens of all sequences together, LINEAR: all that hangs on
            them alone. By sequences, SEQUENCES: the rows of them that get logits; DECODE_FIXED: attention of so many
            decode steps, whatever they see, and DECODE_UNIT: of each unit that they see, see `Sight.weight`;
            MIXED_FIXED and MIXED_UNIT: the same in an iteration that computes prompts too, beside what those take;
            STEP: an iteration of so many decode steps and nothing else, but for the units that they see. From
            PREFILL on, by sight, and by new tokens and those before them, as NODES of each: attention of a pair of
            query and key, in parts of a picosecond. Of the cache alone all is 0.
        launch_ps: what moves slots within the device, beside their bytes: a launch a layer.
        num_stages: of a pipeline, each of which has a batch of an iteration: see `of_batch`. LINEAR is by a batch's
            tokens, the other rows by sequences of all.
        disk_ps: moving as many bytes as `swap_ps` says to files, or back.
    """

    write_ps: int
    state_ps: int
    unit_bytes: int
    copy_ps: int
    swap_ps: int
    storage_ps: int
    transfer_ps: int
    step_ps: int
    prompt_ps: int
    num_sights: int
    sights: tuple[Sight, ...]
    tables: NDArray[np.int64]
    launch_ps: int = 0
    num_stages: int = 1
    disk_ps: int = 0


def of_batch(together: int, most: int, num_stages: int) -> int:
    """Of an iteration's tokens, or of what prompts take, those of the largest batch: as many batches as stages, alike,
    but that what one sequence has at most is not cut."""
    return max(most, -(-together // num_stages))


def sized_ps(row: int, number: int, tables: NDArray[np.int64]) -> int:
    """A price by size: of so many tokens (LINEAR), or sequences."""
    if number <= SIZES:
        return int(tables[row, number])
    half = SIZES // 2
    return int(tables[row, SIZES] + (tables[row, SIZES] - tables[row, half]) // half * (number - SIZES))


def unit_ps(row: int, num_sequences: int, tables: NDArray[np.int64], parts: int = 1) -> int:
    """Attention of each unit that so many sequences see in a decode step (DECODE_UNIT), or beside prompts.

    Units have parts where areas take another share of a slot's bytes each.
    """
    return int(tables[row, min(num_sequences, SIZES)]) // parts


def decode_ps(num_sequences: int, num_units: int, tables: NDArray[np.int64], parts: int = 1) -> int:
    """Attention of a decode step of so many sequences, which see so many units together, each in so many parts."""
    each_ps = unit_ps(DECODE_UNIT, num_sequences, tables, parts)
    return sized_ps(DECODE_FIXED, num_sequences, tables) + num_units * each_ps


def mixed_ps(num_sequences: int, num_units: int, tables: NDArray[np.int64], parts: int = 1) -> int:
    """The same in an iteration that computes prompts, too."""
    each_ps = unit_ps(MIXED_UNIT, num_sequences, tables, parts)
    return sized_ps(MIXED_FIXED, num_sequences, tables) + num_units * each_ps


def num_seen(num_tokens: int, sight: Sight) -> int:
    """Slots that the newest of so many tokens sees, its own included; at least 1 token."""
    return (num_tokens - 1) % sight.reach + 1 if sight.is_chunk else min(num_tokens, sight.reach)


def units_seen(num_tokens: int, prices: Prices) -> int:
    """The same in all layers, each slot as many units as it takes longer there."""
    num_units = 0
    for i in range(prices.num_sights):
        num_units += num_seen(num_tokens, prices.sights[i]) * prices.sights[i].weight
    return num_units


def num_pairs(num_tokens: int, sight: Sight) -> int:
    """Slots that each of so many tokens sees, summed up."""
    reach = sight.reach
    within = num_tokens % reach if sight.is_chunk else min(num_tokens, reach)
    beyond = num_tokens - within
    whole = beyond // reach * (reach * (reach + 1) // 2) if sight.is_chunk else beyond * reach
    return whole + within * (within + 1) // 2


def node_of(num_tokens: int) -> tuple[int, int, int]:
    """The node of a length, or the last one below it, what lies beyond that, and how far the next one is (as a power of
    two)."""
    shift = 0
    while num_tokens >> shift >= 2 * PARTS:
        shift += 1
    node = PARTS * shift + (num_tokens >> shift)
    if node >= NODES - 1:
        return NODES - 1, 0, 0
    return node, num_tokens - (num_tokens >> shift << shift), shift


def pair_price(num_new: int, num_before: int, sight: int, tables: NDArray[np.int64]) -> int:
    """What a pair takes of new tokens after some, in parts of a picosecond: straight between nodes."""
    new, new_rest, new_shift = node_of(num_new)
    before, rest, shift = node_of(num_before)
    row, next_new, next_before = PREFILL + sight, min(new + 1, NODES - 1), min(before + 1, NODES - 1)
    at, over = int(tables[row, new * NODES + before]), int(tables[row, new * NODES + next_before])
    low = at + ((over - at) * rest >> shift)
    at, over = int(tables[row, next_new * NODES + before]), int(tables[row, next_new * NODES + next_before])
    high = at + ((over - at) * rest >> shift)
    return low + ((high - low) * new_rest >> new_shift)


def attention_ps(num_new: int, num_before: int, prices: Prices, tables: NDArray[np.int64]) -> int:
    """Attention of a prompt's new tokens over those before them and each other, beside what all prompts of an iteration
    have together (`Prices.prompt_ps`), and their sequence's states."""
    spent_ps = prices.state_ps
    for i in range(prices.num_sights):
        sight = prices.sights[i]
        pairs = num_pairs(num_before + num_new, sight) - num_pairs(num_before, sight)
        price = pair_price(num_new, num_before, i, tables)
        spent_ps += pairs // SCALE * price + pairs % SCALE * price // SCALE
    return spent_ps


def reading_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """Of the cache alone, reading once what new tokens see, and their sequence's states."""
    spent_ps = prices.state_ps
    for i in range(prices.num_sights):
        sight = prices.sights[i]
        spent_ps += (num_seen(num_before + 1, sight) - 1 + num_new) * sight.read_ps
    return spent_ps


def products_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """Of the cache alone, the operations of new tokens with all that they see."""
    spent_ps = 0
    for i in range(prices.num_sights):
        sight = prices.sights[i]
        spent_ps += (num_pairs(num_before + num_new, sight) - num_pairs(num_before, sight)) * sight.pair_ps
    return spent_ps


def scoring_ps(num_queries: int, num_slots: int, prices: Prices) -> int:
    """The product of queries with keys once more, for scores of slots: attention's kernels keep theirs to themselves.

    It is half of the operations of attention, or of the bytes that it reads, whichever take longer.
    """
    spent_ps = 0
    if num_queries > 0:
        for i in range(prices.num_sights):
            sight = prices.sights[i]
            pairs = num_pairs(num_slots, sight) - num_pairs(num_slots - num_queries, sight)
            keys = num_seen(num_slots, sight)
            spent_ps += max(pairs * ((sight.pair_ps + 1) // 2), keys * ((sight.read_ps + 1) // 2))
    return spent_ps


def num_scoring(num_tokens: int, voters: int, is_each: int) -> int:
    """Queries that score slots, of so many new tokens: at most so many, of one token only where each one scores."""
    return min(num_tokens, voters) if num_tokens > 1 or is_each else 0


def moved_ps(num_bytes: int, unit_ps: int, prices: Prices) -> int:
    """Moving bytes, at the price of `unit_bytes` of them."""
    rest = num_bytes % prices.unit_bytes * unit_ps // prices.unit_bytes
    return num_bytes // prices.unit_bytes * unit_ps + rest


def read_ps(num_bytes: int, prices: Prices) -> int:
    """Bytes that are read, or written: half of what copying them takes."""
    return moved_ps(num_bytes, prices.copy_ps, prices) // 2


def way_ps(num_bytes: int, unit_ps: int, prices: Prices) -> int:
    """Bytes on their way to another tier, or back, at the price of `unit_bytes` of them."""
    return prices.transfer_ps + moved_ps(num_bytes, unit_ps, prices)


def resize_ps(copied_bytes: int, prices: Prices) -> int:
    """A new storage, and the live slots copied to it."""
    return prices.storage_ps + moved_ps(copied_bytes, prices.copy_ps, prices)
