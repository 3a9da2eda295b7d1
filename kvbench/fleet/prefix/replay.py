"""Prompts one after another through a replica's prefix cache, time left out: what each finds, at any size."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import kernel, referred
from kvbench.engine.eviction import EVICTIONS, LRU
from kvbench.fleet.kernel import stamp
from kvbench.fleet.prefix.cache import fill, find, let_go, take_over
from kvbench.fleet.prefix.runs import NameTables
from kvbench.fleet.prefix.segments import CELL, SEGMENT, TURN
from kvbench.fleet.prefix.tree import PromptTree
from kvbench.fleet.prefix.uses import order_of
from kvbench.fleet.state import FIXED, LIVE, NONE, REPLICA, Machine

NOT_ASKED: Any = 0
"""What has to do with time."""
Call = Callable[[NDArray[np.void], NDArray[np.void], NDArray[np.void], NDArray[np.int64], NDArray[np.int64]], int]


def _replay(stamp: int) -> Call:
    """The replay, compiled. What was compiled from sources with another stamp is not used again."""

    def run(
        fixed: NDArray[np.void],
        replicas: NDArray[np.void],
        live: NDArray[np.void],
        num_blocks: NDArray[np.int64],
        hits: NDArray[np.int64],
    ) -> int:
        if stamp == 0:
            return 0
        time, rule = NOT_ASKED, NOT_ASKED
        m = referred(Machine(fixed, replicas[0], live, time, hits, fixed[0], hits, rule, rule, rule))
        for request in range(num_blocks.size):
            live[0].request = live[0].arrived = request
            live[0].held = num_blocks[request]
            hits[request] = find(m, request, num_blocks[request])
            take_over(m, 0, hits[request])
            fill(m, 0, hits[request], num_blocks[request])
            let_go(m, 0, num_blocks[request])
            replicas[0].allocated = 0
        return 1

    return kernel(run)


_run = _replay(stamp())


def hits_of(tree: PromptTree, size: int, eviction: str) -> NDArray[np.int64]:
    """Blocks that each prompt finds in a cache of so many; when it has ended, those behind go that are too many.

    Args:
        tree: the prompts.
        size: blocks that the cache holds, > 0.
        eviction: one of EVICTIONS, but session.
    """
    runs, num_blocks, hits = tree.runs, tree.num_blocks, np.zeros(tree.num_requests, np.int64)
    fixed, replicas, live = np.zeros(1, FIXED), np.zeros(1, REPLICA), np.zeros(1, LIVE)
    turns = np.zeros(hits.size, TURN)
    turns["number"], turns["leaf"] = np.arange(hits.size), runs.leaves
    table = np.zeros((runs.rows.size, 1), CELL)
    # Each prompt makes at most a segment of each of its runs; what it finds is all that is there, so that none is cut.
    num_segments = 2 * min(min(size, tree.num_nodes) + int(num_blocks.max(initial=0)), tree.users[1].size) + 2
    names = NameTables(runs, table, np.zeros((1, num_segments), SEGMENT))
    live["key"] = NONE
    fixed["unit"] = fixed["slot_bytes"] = fixed["num_replicas"] = 1
    fixed["limit_bytes"], fixed["turns_at"] = size, turns.ctypes.data
    fixed["runs_at"], fixed["table_at"] = runs.rows.ctypes.data, table.ctypes.data
    replicas["segments_at"] = names.segments.ctypes.data
    is_ordered = eviction != EVICTIONS[LRU]
    order = order_of(fixed, names, eviction, np.zeros(hits.size, bool), tree.users) if is_ordered else None
    _run(fixed, replicas, live, num_blocks, hits)
    del order, turns  # the kernel knew their addresses
    return hits
