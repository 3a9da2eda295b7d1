"""Stretches of a prompt's blocks that share their last use and their next one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled

NONE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """Which earlier prompt was the last to use which blocks of a later one: an entry a stretch of equal ones.

    Args:
        offsets: int64 [requests + 1]; request i has entries `offsets[i]` to `offsets[i + 1]`, from its start on.
        earlier: int64 [entries]; the request that used these blocks last.
        begin: int64 [entries]; the stretch's first block, counted from the prompt's start.
        end: int64 [entries]; the block after its last.
        next_offsets: as offsets, for the stretches that request i was the last to use.
        later: int64 [entries]; of those, the request that uses them next; ascending within a request.
        num_blocks: int64 [entries]; and how many blocks.
    """

    offsets: NDArray[np.int64]
    earlier: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    next_offsets: NDArray[np.int64]
    later: NDArray[np.int64]
    num_blocks: NDArray[np.int64]


def linked(nodes: NDArray[np.int32], offsets: NDArray[np.int64], num_known: NDArray[np.int64], num_nodes: int) -> Links:
    """Find the stretches.

    Args:
        nodes: blocks of all prompts, as nodes of their tree.
        offsets: where each prompt's begin.
        num_known: blocks of each prompt, from its start, that earlier prompts had.
        num_nodes: nodes of the tree.
    """
    found = _found(nodes, offsets, num_known, num_nodes)
    return Links(**dict(zip(Links.__dataclass_fields__, found, strict=True)))


@compiled
def _found(
    nodes: NDArray[np.int32], offsets: NDArray[np.int64], num_known: NDArray[np.int64], num_nodes: int
) -> tuple[NDArray[np.int64], ...]:
    """The fields of Links, in their order."""
    num_requests = offsets.size - 1
    last_use = np.empty(num_nodes, np.int64)
    most = num_known.sum()
    earlier, begin, end = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    link_offsets = np.zeros(num_requests + 1, np.int64)
    next_offsets = np.zeros(num_requests + 1, np.int64)
    num_links = 0
    for request in range(num_requests):
        start = offsets[request]
        previous = NONE
        for depth in range(num_known[request]):
            before = last_use[nodes[start + depth]]
            if before != previous:
                earlier[num_links], begin[num_links] = before, depth
                next_offsets[before + 1] += 1
                previous = before
                num_links += 1
            end[num_links - 1] = depth + 1
        for index in range(start, offsets[request + 1]):
            last_use[nodes[index]] = request
        link_offsets[request + 1] = num_links
    next_offsets = np.cumsum(next_offsets)
    filled = next_offsets[:-1].copy()
    later, num_blocks = np.empty(num_links, np.int64), np.empty(num_links, np.int64)
    for request in range(num_requests):
        for link in range(link_offsets[request], link_offsets[request + 1]):
            entry = filled[earlier[link]]
            filled[earlier[link]] += 1
            later[entry], num_blocks[entry] = request, end[link] - begin[link]
    kept = (earlier[:num_links].copy(), begin[:num_links].copy(), end[:num_links].copy())
    return (link_offsets, *kept, next_offsets, later, num_blocks)
