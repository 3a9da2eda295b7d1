"""A radix tree of runs of blocks, of which only leaves are evicted, through several tiers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.queued import Moves, no_moves
from kvbench.fleet.prefix.tree import PromptTree
from kvbench.workload.contents import NONE


class _Runs(NamedTuple):
    """The runs that are held; a run is known by its last block's node, which a split leaves to its lower part.

    Args:
        last_of: int32 [nodes]; by a run's first block, its last one; NONE where no run begins.
        begin: int64 [nodes]; where in the trace's blocks the run is written, by its last block; so are the following.
        length: int64 [nodes]; blocks.
        tier: int64 [nodes].
        age: int64 [nodes]; the leaf of the least age leaves first.
        num_children: int32 [nodes, tiers]; runs that follow it directly, by where they are.
        leaves: int32 [tiers, nodes]; heaps of runs without a following run in their tier.
        num_leaves: int64 [tiers].
        place: int32 [nodes]; where in its heap a run is, or NONE.
        held: int64 [tiers]; blocks.
    """

    last_of: NDArray[np.int32]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    tier: NDArray[np.int64]
    age: NDArray[np.int64]
    num_children: NDArray[np.int32]
    leaves: NDArray[np.int32]
    num_leaves: NDArray[np.int64]
    place: NDArray[np.int32]
    held: NDArray[np.int64]


def leaves_only(tree: PromptTree, sizes: list[int], policy: str, whole: bool) -> Moves:
    """Replay all prompts through tiers of these sizes, the fastest first.

    Args:
        tree: the prompts.
        sizes: blocks that each tier holds.
        policy: lru, by last use, or fifo, by when a run came to the device.
        whole: a leaf leaves whole, and a prompt that uses part of a run refreshes all of it.
    """
    num_tiers, num_nodes = len(sizes), tree.num_nodes
    runs = _Runs(
        last_of=np.full(num_nodes, NONE, np.int32),
        begin=np.zeros(num_nodes, np.int64),
        length=np.zeros(num_nodes, np.int64),
        tier=np.zeros(num_nodes, np.int64),
        age=np.zeros(num_nodes, np.int64),
        num_children=np.zeros((num_nodes, num_tiers), np.int32),
        leaves=np.zeros((num_tiers, num_nodes), np.int32),
        num_leaves=np.zeros(num_tiers, np.int64),
        place=np.full(num_nodes, NONE, np.int32),
        held=np.zeros(num_tiers, np.int64),
    )
    moves = no_moves(num_tiers, tree.num_requests)
    _replay(tree.offsets, tree.nodes, tree.parents, np.array(sizes, np.int64), policy == "lru", whole, runs, moves)
    return moves


@compiled
def _replay(
    offsets: NDArray[np.int64],
    nodes: NDArray[np.int32],
    parents: NDArray[np.int32],
    sizes: NDArray[np.int64],
    by_use: bool,
    whole: bool,
    runs: _Runs,
    moves: Moves,
) -> None:
    edges = np.cumsum(sizes)
    for request in range(offsets.size - 1):
        start, end = offsets[request], offsets[request + 1]
        # What this prompt does not use of a run it splits is older than what it does use, and newer than all else.
        now = 2 * request + 1
        index = start
        while index < end:
            last = runs.last_of[nodes[index]]
            if last == NONE:
                break
            cut = min(end, _edge_after(index - start, edges) + start)
            used = 0
            while used < runs.length[last] and index + used < cut and _same(nodes, runs.begin[last], index, used):
                used += 1
            if used < runs.length[last]:
                upper = _split(last, used, nodes, runs)
                if whole and by_use:
                    _set_age(last, now - 1, runs)
                last = upper
            tier = runs.tier[last]
            moves.hits[tier, request] += used
            index += used
            if index == end:
                moves.last_tier[request] = tier
            if by_use or tier > 0:
                _set_age(last, now, runs)
            if tier > 0:
                moves.loaded[tier, request] += used
                _move(last, 0, nodes, parents, runs)
        while index < end:
            past = min(end, _edge_after(index - start, edges) + start)
            _add(index, past, now, nodes, parents, runs)
            index = past
        for tier in range(sizes.size):
            while runs.held[tier] > sizes[tier]:
                leaf = runs.leaves[tier, 0]
                excess = runs.held[tier] - sizes[tier]
                if not whole and runs.length[leaf] > excess:
                    _split(leaf, runs.length[leaf] - excess, nodes, runs)
                if tier + 1 < sizes.size:
                    moves.stored[tier + 1, request] += runs.length[leaf]
                _move(leaf, tier + 1, nodes, parents, runs)


@compiled
def _edge_after(depth: int, edges: NDArray[np.int64]) -> int:
    """The first depth at which a prompt no longer fits into a tier and those above it: no run goes across."""
    for edge in edges:
        if depth < edge:
            return int(edge)
    return 2**62


@compiled
def _same(nodes: NDArray[np.int32], one: int, other: int, offset: int) -> bool:
    return bool(nodes[one + offset] == nodes[other + offset])


@compiled
def _split(last: int, num_upper: int, nodes: NDArray[np.int32], runs: _Runs) -> int:
    """Split a run; its last block's node stands for the lower part from now on. Returns the upper part."""
    begin = runs.begin[last]
    upper: int = nodes[begin + num_upper - 1]
    runs.last_of[nodes[begin]] = upper
    runs.last_of[nodes[begin + num_upper]] = last
    runs.begin[upper], runs.begin[last] = begin, begin + num_upper
    runs.length[upper], runs.length[last] = num_upper, runs.length[last] - num_upper
    runs.tier[upper], runs.age[upper] = runs.tier[last], runs.age[last]
    runs.num_children[upper] = 0
    runs.num_children[upper, runs.tier[last]] = 1
    return upper


@compiled
def _add(begin: int, end: int, age: int, nodes: NDArray[np.int32], parents: NDArray[np.int32], runs: _Runs) -> None:
    """Hold a new run on the device."""
    last = nodes[end - 1]
    runs.last_of[nodes[begin]] = last
    runs.begin[last], runs.length[last], runs.age[last] = begin, end - begin, age
    runs.num_children[last] = 0
    _enter(last, 0, parents[nodes[begin]], runs)


@compiled
def _move(last: int, to: int, nodes: NDArray[np.int32], parents: NDArray[np.int32], runs: _Runs) -> None:
    """Move a run to another tier; one after the slowest drops it."""
    tier, first = runs.tier[last], nodes[runs.begin[last]]
    parent = parents[first]
    if runs.place[last] != NONE:
        _remove(last, runs)
    runs.held[tier] -= runs.length[last]
    if parent != NONE:
        runs.num_children[parent, tier] -= 1
        if runs.tier[parent] == tier and runs.num_children[parent, tier] == 0:
            _insert(parent, runs)
    if to == runs.held.size:
        runs.last_of[first] = NONE
        runs.length[last] = 0
    else:
        _enter(last, to, parent, runs)


@compiled
def _enter(last: int, tier: int, parent: int, runs: _Runs) -> None:
    runs.tier[last] = tier
    runs.held[tier] += runs.length[last]
    if parent != NONE:
        runs.num_children[parent, tier] += 1
        if runs.tier[parent] == tier and runs.place[parent] != NONE:
            _remove(parent, runs)
    if runs.num_children[last, tier] == 0:
        _insert(last, runs)


@compiled
def _set_age(last: int, age: int, runs: _Runs) -> None:
    """Ages only grow, so that a leaf moves down its heap."""
    runs.age[last] = age
    if runs.place[last] != NONE:
        _sink(last, runs.place[last], runs)


@compiled
def _insert(last: int, runs: _Runs) -> None:
    tier = runs.tier[last]
    place = runs.num_leaves[tier]
    runs.num_leaves[tier] += 1
    _rise(last, place, runs)


@compiled
def _remove(last: int, runs: _Runs) -> None:
    tier, place = runs.tier[last], runs.place[last]
    runs.place[last] = NONE
    runs.num_leaves[tier] -= 1
    moved = runs.leaves[tier, runs.num_leaves[tier]]
    if moved != last:
        _rise(moved, place, runs)
        _sink(moved, runs.place[moved], runs)


@compiled
def _rise(last: int, place: int, runs: _Runs) -> None:
    heap = runs.leaves[runs.tier[last]]
    while place > 0 and runs.age[heap[(place - 1) // 2]] > runs.age[last]:
        heap[place] = heap[(place - 1) // 2]
        runs.place[heap[place]] = place
        place = (place - 1) // 2
    heap[place] = last
    runs.place[last] = place


@compiled
def _sink(last: int, place: int, runs: _Runs) -> None:
    tier = runs.tier[last]
    heap, past = runs.leaves[tier], runs.num_leaves[tier]
    while True:
        child = 2 * place + 1
        if child >= past:
            break
        if child + 1 < past and runs.age[heap[child + 1]] < runs.age[heap[child]]:
            child += 1
        if runs.age[heap[child]] >= runs.age[last]:
            break
        heap[place] = heap[child]
        runs.place[heap[place]] = place
        place = child
    heap[place] = last
    runs.place[last] = place
