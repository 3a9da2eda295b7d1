"""What an LRU cache of every size would have held, in one pass: each block's distance to its last use."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.tree import PromptTree
from kvbench.workload.contents import NONE


class Curve(NamedTuple):
    """What prompts reuse from a cache of each size.

    Args:
        blocks: int64 [nodes + 1]; entry n is a cache's that holds n blocks.
        tokens: so too; the tokens in these.
    """

    blocks: NDArray[np.int64]
    tokens: NDArray[np.int64]


def lru_curve(tree: PromptTree, first_request: int = 0) -> Curve:
    """Blocks, and tokens, that prompts reuse from a cache of each size under lru and block_hash, exactly.

    A larger cache holds all that a smaller one holds, so that a block is reused from every cache that is at least as
    large as the number of distinct blocks used since its last use, itself included.

    Args:
        tree: the prompts.
        first_request: requests before it only fill the cache.
    Source: Mattson et al. 1970, Evaluation techniques for storage hierarchies; a tree of sums over time as in Bennett
        and Kruskal 1975.
    Departs: goes by stretches of blocks with one last use, whose distances follow each other, never by single blocks.
    """
    rows = tree.runs.rows
    parents, firsts, pasts = (rows[name].astype(np.int64) for name in ("parent", "first", "past"))
    vacant = tree.num_blocks * tree.block_tokens - tree.prompt_tokens
    turns, lost = _turns(
        tree.num_blocks, tree.runs.leaves, vacant, parents, firsts, pasts, first_request, tree.num_nodes
    )
    blocks = np.cumsum(np.cumsum(turns))
    return Curve(blocks, blocks * tree.block_tokens - np.cumsum(lost))


@compiled
def _turns(
    num_blocks: NDArray[np.int64],
    leaves: NDArray[np.int64],
    vacant: NDArray[np.int64],
    parents: NDArray[np.int64],
    firsts: NDArray[np.int64],
    pasts: NDArray[np.int64],
    first_request: int,
    num_nodes: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By how much the curve's slope changes at each size, and tokens that last blocks lack which are reused from it."""
    num_requests = num_blocks.size
    turns, lost = np.zeros(num_nodes + 1, np.int64), np.zeros(num_nodes + 1, np.int64)
    sums = np.zeros(num_requests + 1, np.int64)  # of blocks by the request that used them last, as a tree of sums
    last = np.full(parents.size, NONE)  # the request that used each run last
    path = np.empty(parents.size, np.int64)
    held = 0
    for request in range(num_requests):
        depth, run = 0, leaves[request]
        while run != NONE:
            path[depth] = run
            depth, run = depth + 1, parents[run]
        place = depth - 1
        while place >= 0 and last[path[place]] != NONE:
            owner, begin = last[path[place]], firsts[path[place]]
            while place >= 0 and last[path[place]] == owner:
                place -= 1
            end = pasts[path[place + 1]]
            if request >= first_request:
                # Blocks whose last use is later, and those that earlier stretches of this prompt took from them.
                nearer = held - _sum(sums, owner + 1) + begin
                if nearer < num_nodes:
                    turns[nearer + 1] += 1
                if nearer + end - begin < num_nodes:
                    turns[nearer + end - begin + 1] -= 1
                if end == num_blocks[request]:
                    lost[nearer + end - begin] += vacant[request]
            _add(sums, owner, begin - end)
            held -= end - begin
        for i in range(depth):
            last[path[i]] = request
        _add(sums, request, num_blocks[request])
        held += num_blocks[request]
    return turns, lost


@compiled
def _add(sums: NDArray[np.int64], place: int, value: int) -> None:
    place += 1
    while place < sums.size:
        sums[place] += value
        place += place & -place


@compiled
def _sum(sums: NDArray[np.int64], stop: int) -> int:
    """Of the first so many places."""
    total = 0
    while stop > 0:
        total += sums[stop]
        stop -= stop & -stop
    return total
