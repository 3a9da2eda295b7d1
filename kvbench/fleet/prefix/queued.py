"""FIFO by single blocks: they leave the device in the order in which they came to it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.tree import PromptTree
from kvbench.workload.contents import NONE


class Moves(NamedTuple):
    """What a kernel counts, a row a tier and a column a request.

    Args:
        hits: int64 [tiers, requests]; blocks that the prompt reuses from the tier.
        loaded: int64 [tiers, requests]; blocks moved from the tier to the device.
        stored: int64 [tiers, requests]; blocks moved into the tier from the one above.
        last_tier: int64 [requests]; where the prompt's last block was found, or -1 if it was not reused.
    """

    hits: NDArray[np.int64]
    loaded: NDArray[np.int64]
    stored: NDArray[np.int64]
    last_tier: NDArray[np.int64]


def no_moves(num_tiers: int, num_requests: int) -> Moves:
    """Counts that are all zero."""
    hits, loaded, stored = np.zeros((3, num_tiers, num_requests), np.int64)
    return Moves(hits, loaded, stored, np.full(num_requests, NONE, np.int64))


def first_in_first_out(tree: PromptTree, sizes: list[int]) -> Moves:
    """Replay all prompts through tiers of these sizes, the fastest first."""
    moves = no_moves(len(sizes), tree.num_requests)
    _fifo(tree.offsets, tree.nodes, tree.num_nodes, np.array(sizes, np.int64), moves)
    return moves


@compiled
def _fifo(
    offsets: NDArray[np.int64], nodes: NDArray[np.int32], num_nodes: int, sizes: NDArray[np.int64], moves: Moves
) -> None:
    # One queue through all tiers: tier k holds the entries from `begins[k]` up to where the tier above it begins. A
    # block that came to the device again has a later entry, and its old one is void.
    entry_of = np.full(num_nodes, NONE, np.int32)
    queue = np.empty(nodes.size, np.int32)
    begins = np.zeros(sizes.size, np.int64)
    held = np.zeros(sizes.size, np.int64)
    past = 0
    for request in range(offsets.size - 1):
        start, end = offsets[request], offsets[request + 1]
        prefix_end = start
        while prefix_end < end:
            tier = _tier_of(entry_of[nodes[prefix_end]], begins)
            if tier == NONE:
                break
            moves.hits[tier, request] += 1
            prefix_end += 1
            if prefix_end == end:
                moves.last_tier[request] = tier
        for index in range(start, end):
            node = nodes[index]
            tier = _tier_of(entry_of[node], begins)
            if tier == 0:
                continue
            if tier > 0:
                held[tier] -= 1
                moves.loaded[tier, request] += index < prefix_end
            entry_of[node] = past
            queue[past] = node
            past += 1
            held[0] += 1
            for full in range(sizes.size):
                while held[full] > sizes[full]:
                    entry = begins[full]
                    begins[full] += 1
                    if entry_of[queue[entry]] != entry:
                        continue
                    held[full] -= 1
                    if full + 1 < sizes.size:
                        held[full + 1] += 1
                        moves.stored[full + 1, request] += 1


@compiled
def _tier_of(entry: int, begins: NDArray[np.int64]) -> int:
    """The tier that holds an entry, or NONE."""
    if entry == NONE:
        return NONE
    for tier in range(begins.size):
        if entry >= begins[tier]:
            return tier
    return NONE
