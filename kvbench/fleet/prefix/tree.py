"""A trace's prompts as paths in one tree of blocks, built once for all sizes and policies."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.runs import Runs
from kvbench.fleet.prefix.segments import RUN
from kvbench.workload.contents import NONE, Contents
from kvbench.workload.trace_columns import TraceColumns

BLOCK_TOKENS = 16
"""Of a trace that says what prompts share, and not in blocks of which size."""
MOST_BLOCKS = 2**31 - 1
ID_FACTOR = 0x1E3779B97F4A7C15
PARENT_FACTOR = 0x3F58476D1CE4E5B9
MIXED_BITS = 29
"""Of a product, the bits that are left out below: low ones are mixed the least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptTree:
    """Prompts as paths in a tree: one node for each block with everything before it.

    Args:
        offsets: int64 [requests + 1]; request i has `nodes[offsets[i]:offsets[i + 1]]`.
        nodes: int32 [blocks of all prompts]; nodes count from 0 by first appearance.
        parents: int32 [nodes]; -1 for a prompt's first block.
        num_known: int64 [requests]; blocks of a prompt, from its start, that earlier prompts had.
        prompt_tokens: int64 [requests].
        block_tokens: tokens a block; a prompt's last block may be filled in part.
    """

    offsets: NDArray[np.int64]
    nodes: NDArray[np.int32]
    parents: NDArray[np.int32]
    num_known: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    block_tokens: int

    @property
    def num_requests(self) -> int:
        """Prompts in the trace."""
        return self.prompt_tokens.size

    @property
    def num_nodes(self) -> int:
        """Distinct blocks: what a cache that holds everything holds in the end."""
        return self.parents.size

    @property
    def num_blocks(self) -> NDArray[np.int64]:
        """Blocks of each prompt."""
        return np.diff(self.offsets)

    @cached_property
    def runs(self) -> Runs:
        """Stretches of blocks, split where prompts part and where they end."""
        leaves = self.nodes[self.offsets[1:] - 1]
        own, *columns = _stretched(leaves, self.parents)
        rows = np.zeros(columns[0].size, RUN)
        rows["parent"], rows["first"], rows["past"] = columns
        return Runs(rows, own[leaves], np.zeros(leaves.size, np.int64), own[leaves])


def plant(columns: TraceColumns) -> PromptTree:
    """Build the tree of a trace.

    Args:
        columns: a trace with contents or block ids, in order of arrival.
    Raises:
        ValueError: it has none, their number does not fit the prompts' lengths, or there are too many.
    """
    ids, offsets, block_tokens = _blocks_of(columns)
    nodes, parents, num_known = _grown(ids, offsets)
    return PromptTree(
        offsets=offsets,
        nodes=nodes,
        parents=parents,
        num_known=num_known,
        prompt_tokens=columns.num_prompt_tokens,
        block_tokens=block_tokens,
    )


def regrouped(columns: TraceColumns, block_tokens: int) -> TraceColumns:
    """The same prompts in larger blocks, each with an id of its own for its tokens and all before them.

    Args:
        columns: a trace with block ids.
        block_tokens: tokens a block: a multiple of the trace's.
    Raises:
        ValueError: the trace has no ids, or block_tokens is not such a multiple.
    """
    ids, offsets, own_tokens = _blocks_of(columns)
    if not isinstance(block_tokens, int) or block_tokens < 1 or block_tokens % own_tokens:
        raise ValueError(f"block_tokens is a multiple of the trace's {own_tokens}, got {block_tokens!r}")
    per_block = block_tokens // own_tokens
    nodes, _, _ = _grown(ids, offsets)
    counts = -(-np.diff(offsets) // per_block)
    new_offsets = np.concatenate(([0], np.cumsum(counts)))
    index = np.arange(new_offsets[-1]) - np.repeat(new_offsets[:-1], counts)
    # A block is known by the node of its last part: what lies before that is in the node.
    last = np.minimum(np.repeat(offsets[:-1], counts) + (index + 1) * per_block, np.repeat(offsets[1:], counts)) - 1
    return replace(
        columns,
        block_ids=nodes[last].astype(np.int64),
        block_offsets=new_offsets,
        block_tokens=block_tokens,
    )


def _blocks_of(columns: TraceColumns) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """A trace's block ids, where each prompt's begin, and tokens a block; a trace without is refused."""
    if not columns.num_requests:
        raise ValueError("prefix reuse needs a trace with requests, got one without requests")
    if columns.block_ids is None and columns.contents is not None:
        block_tokens = BLOCK_TOKENS if columns.block_tokens is None else columns.block_tokens
        columns = _with_ids(columns, columns.contents, block_tokens)
    if columns.block_ids is None or columns.block_offsets is None or columns.block_tokens is None:
        raise ValueError("prefix reuse needs a trace whose prompts share something, got one that says nothing of it")
    if columns.block_ids.size > MOST_BLOCKS:
        raise ValueError(f"prefix reuse takes at most {MOST_BLOCKS:,} blocks, got {columns.block_ids.size:,}")
    counts, wanted = np.diff(columns.block_offsets), -(-columns.num_prompt_tokens // columns.block_tokens)
    if (wrong := np.flatnonzero(counts != wanted)).size:
        first = wrong[0]
        raise ValueError(
            f"request {first} has {counts[first]} block ids; allowed is one for each {columns.block_tokens} tokens: "
            f"{wanted[first]} for {columns.num_prompt_tokens[first]}"
        )
    ids, offsets = (np.ascontiguousarray(of, dtype=np.int64) for of in (columns.block_ids, columns.block_offsets))
    return ids, offsets, columns.block_tokens


def _with_ids(columns: TraceColumns, contents: Contents, block_tokens: int) -> TraceColumns:
    """The same prompts with ids of their blocks: equal ones where they and all before them are equal."""
    full = contents.ends // block_tokens - contents.begins // block_tokens
    firsts, num = np.append(0, np.cumsum(full)), contents.parents.size
    ids: list[NDArray[np.int64]] = []
    for prompt, tokens in zip(contents.prompts.tolist(), columns.num_prompt_tokens.tolist(), strict=True):
        copy, own = divmod(prompt, num)
        parts = [np.arange(firsts[stretch], firsts[stretch + 1]) for stretch in contents.path(own)]
        # A last block that is filled in part is the same where prompts end together.
        parts += [np.array([firsts[-1] + own])] * (tokens % block_tokens > 0)
        ids.append(np.concatenate(parts) + copy * (firsts[-1] + num))
    offsets = np.append(0, np.cumsum([own.size for own in ids]))
    return replace(columns, block_ids=np.concatenate(ids), block_offsets=offsets, block_tokens=block_tokens)


@compiled
def _grown(
    ids: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Nodes of blocks, parents of nodes, and each prompt's number of blocks that are not new."""
    num_requests = offsets.size - 1
    nodes = np.empty(ids.size, np.int32)
    parents = np.empty(ids.size, np.int32)
    id_of = np.empty(ids.size, np.int64)
    first_child = np.full(ids.size + 1, NONE, np.int32)
    num_known = np.empty(num_requests, np.int64)
    # Only a child that is not its parent's first needs the table, and a prompt adds at most one such.
    size = 2
    while size < 2 * (num_requests + 1):
        size *= 2
    table = np.full(size, NONE, np.int32)
    num_nodes = 0
    for request in range(num_requests):
        parent = NONE
        index, end = offsets[request], offsets[request + 1]
        while index < end:
            node = first_child[parent + 1]
            if node == NONE:
                break
            if id_of[node] != ids[index]:
                mixed = (ids[index] * ID_FACTOR) ^ ((parent + 1) * PARENT_FACTOR)
                slot = (mixed >> MIXED_BITS) & (size - 1)
                while table[slot] != NONE and (id_of[table[slot]] != ids[index] or parents[table[slot]] != parent):
                    slot = (slot + 1) & (size - 1)
                node = table[slot]
                if node == NONE:
                    table[slot] = num_nodes
                    break
            nodes[index] = node
            parent = node
            index += 1
        num_known[request] = index - offsets[request]
        for new in range(index, end):
            if first_child[parent + 1] == NONE:
                first_child[parent + 1] = num_nodes
            nodes[new] = num_nodes
            parents[num_nodes] = parent
            id_of[num_nodes] = ids[new]
            parent = num_nodes
            num_nodes += 1
    return nodes, parents[:num_nodes].copy(), num_known


@compiled
def _stretched(
    leaves: NDArray[np.int32], parents: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The run of each node, and of each run the one before it, its first block, and the one after its last."""
    num_ways = np.zeros(parents.size, np.int32)  # on from each node; one where a prompt ends
    num_ways[leaves] = 1
    for parent in parents:
        if parent != NONE:
            num_ways[parent] += 1
    own, before = np.empty(parents.size, np.int64), np.empty(parents.size, np.int64)
    firsts, pasts = np.zeros(parents.size, np.int64), np.empty(parents.size, np.int64)
    num_runs = 0
    for node in range(parents.size):
        parent = parents[node]
        if parent != NONE and parent == node - 1 and num_ways[parent] == 1:
            own[node] = own[parent]
            pasts[own[node]] += 1
            continue
        own[node], before[num_runs] = num_runs, NONE
        if parent != NONE:
            before[num_runs] = own[parent]
            firsts[num_runs] = pasts[own[parent]]
        pasts[num_runs] = firsts[num_runs] + 1
        num_runs += 1
    return own, before[:num_runs].copy(), firsts[:num_runs].copy(), pasts[:num_runs].copy()
