"""What an LRU cache of every size would have held, in one pass: each block's distance to its last use."""

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.tree import PromptTree


def lru_curve(tree: PromptTree, first_request: int = 0) -> NDArray[np.int64]:
    """Blocks that prompts reuse from a cache of each size under lru and block_hash, exactly.

    A larger cache holds all that a smaller one holds, so that a block is reused from every cache that is at least as
    large as the number of distinct blocks used since its last use, itself included.

    Args:
        tree: the prompts.
        first_request: requests before it only fill the cache.
    Returns:
        [nodes + 1]; entry n is a cache's that holds n blocks.
    Source: Mattson et al. 1970, Evaluation techniques for storage hierarchies; a tree of sums over time as in Bennett
        and Kruskal 1975.
    Departs: goes by stretches of blocks with one last use, whose distances follow each other, never by single blocks.
    """
    links = tree.links
    turns = _turns(tree.num_blocks, links.offsets, links.earlier, links.begin, links.end, first_request, tree.num_nodes)
    return np.cumsum(np.cumsum(turns))


@compiled
def _turns(
    num_blocks: NDArray[np.int64],
    offsets: NDArray[np.int64],
    earlier: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    first_request: int,
    num_nodes: int,
) -> NDArray[np.int64]:
    """By how much the curve's slope changes at each size."""
    num_requests = num_blocks.size
    turns = np.zeros(num_nodes + 1, np.int64)
    sums = np.zeros(num_requests + 1, np.int64)  # of blocks by the request that used them last, as a tree of sums
    first = np.zeros(num_requests, np.int64)  # of the blocks that a request used last, the shallowest
    held = 0
    for request in range(num_requests):
        for link in range(offsets[request], offsets[request + 1]):
            owner = earlier[link]
            if request >= first_request:
                # Blocks whose last use is later, and those that earlier links of this prompt took from them.
                nearer = held - _sum(sums, owner + 1) + begin[link]
                if nearer < num_nodes:
                    turns[nearer + 1] += 1
                if nearer + end[link] - begin[link] < num_nodes:
                    turns[nearer + end[link] - begin[link] + 1] -= 1
            first[owner] = end[link]
            _add(sums, owner, begin[link] - end[link])
            held -= end[link] - begin[link]
        _add(sums, request, num_blocks[request])
        held += num_blocks[request]
    return turns


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
