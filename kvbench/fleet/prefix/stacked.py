"""LRU and Belady's optimum: policies under which a larger cache holds all that a smaller one holds.

Both go by stretches of blocks that share their last and their next use, never by single blocks.
"""

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.tree import PromptTree


def hits_of_sizes(tree: PromptTree, sizes: list[int], policy: str) -> NDArray[np.int64]:
    """Blocks that each prompt reuses from caches of these sizes.

    Args:
        tree: the prompts.
        sizes: blocks that a cache holds, each >= 1.
        policy: lru or optimal.
    Returns:
        [sizes, requests].
    """
    links = tree.links
    hits = np.empty((len(sizes), tree.num_requests), np.int64)
    for size, row in zip(sizes, hits, strict=True):
        if policy == "lru":
            _lru(tree.num_blocks, links.offsets, links.earlier, links.begin, links.end, size, row)
        else:
            _optimal(links.next_offsets, links.later, links.num_blocks, size, row)
    return hits


@compiled
def pushed_out(num_entering: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Blocks that leave a cache of this size with each prompt, by those that enter it."""
    held = 0
    out = np.empty_like(num_entering)
    for request in range(num_entering.size):
        held += num_entering[request]
        out[request] = max(held - size, 0)
        held -= out[request]
    return out


@compiled
def _lru(
    num_blocks: NDArray[np.int64],
    offsets: NDArray[np.int64],
    earlier: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    size: int,
    hits: NDArray[np.int64],
) -> None:
    # Of the blocks that a prompt was the last to use, those from `first` to `past` are held: later prompts take
    # theirs from the front, eviction takes from the end.
    first = np.zeros(num_blocks.size, np.int64)
    past = num_blocks.copy()
    oldest, held = 0, 0
    for request in range(num_blocks.size):
        found = 0
        for link in range(offsets[request], offsets[request + 1]):
            owner = earlier[link]
            found += min(max(past[owner] - begin[link], 0), end[link] - begin[link])
            first[owner] = end[link]
        hits[request] = found
        held += num_blocks[request] - found
        while held > size:
            leaving = min(past[oldest] - first[oldest], held - size)
            if leaving > 0:
                past[oldest] -= leaving
                held -= leaving
            else:
                oldest += 1


@compiled
def _optimal(
    offsets: NDArray[np.int64],
    later: NDArray[np.int64],
    num_blocks: NDArray[np.int64],
    size: int,
    hits: NDArray[np.int64],
) -> None:
    # All held blocks with one next use lie on the prompt that will use them, from its start on: their number is all
    # there is to know. Blocks that are never used again make room before any of these and need no count.
    waiting = np.zeros(hits.size, np.int64)
    heap = np.empty(hits.size, np.int64)
    in_heap, held = 0, 0
    for request in range(hits.size):
        hits[request] = waiting[request]
        held -= waiting[request]
        waiting[request] = 0
        for entry in range(offsets[request], offsets[request + 1]):
            user = later[entry]
            if waiting[user] == 0:
                _push(heap, in_heap, user)
                in_heap += 1
            waiting[user] += num_blocks[entry]
            held += num_blocks[entry]
        while held > size:
            furthest = heap[0]
            leaving = min(waiting[furthest], held - size)
            waiting[furthest] -= leaving
            held -= leaving
            if waiting[furthest] == 0:
                in_heap -= 1
                _replace_top(heap, in_heap, heap[in_heap])


@compiled
def _push(heap: NDArray[np.int64], in_heap: int, value: int) -> None:
    place = in_heap
    while place > 0 and heap[(place - 1) // 2] < value:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = value


@compiled
def _replace_top(heap: NDArray[np.int64], in_heap: int, value: int) -> None:
    place = 0
    while True:
        child = 2 * place + 1
        if child >= in_heap:
            break
        if child + 1 < in_heap and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = value
