"""A trace's prompts as paths in one tree of blocks, built once for all sizes and policies."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import compiled
from kvbench.fleet.prefix.runs import Runs, runs_between
from kvbench.fleet.prefix.uses import Users, users_of
from kvbench.workload.contents import NONE, Contents
from kvbench.workload.interning import Interning
from kvbench.workload.trace_columns import TraceColumns

BLOCK_TOKENS = 16
"""Of a trace that says what prompts share, and not in blocks of which size."""
MOST_BLOCKS = 2**31 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptTree:
    """Prompts as paths in a tree of runs of blocks, and where they are asked for, one node a block with all before it.

    Args:
        runs: stretches of prompts in blocks; a last block that is filled in part is one.
        num_blocks: int64 [requests]; of each prompt.
        prompt_tokens: int64 [requests].
        block_tokens: tokens a block; a prompt's last block may be filled in part.
    """

    runs: Runs
    num_blocks: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    block_tokens: int

    @property
    def num_requests(self) -> int:
        """Prompts in the trace."""
        return self.prompt_tokens.size

    @cached_property
    def num_nodes(self) -> int:
        """Distinct blocks: what a cache that holds everything holds in the end."""
        return int(self.bases[-1])

    @cached_property
    def users(self) -> Users:
        """See `users_of`."""
        return users_of(self.runs)

    @cached_property
    def num_known(self) -> NDArray[np.int64]:
        """int64 [requests]; blocks of a prompt, from its start, that earlier prompts had."""
        begins, users = self.users
        brought = np.append(users[begins[:-1]], NONE)  # by whom each run was, and at last NONE by nobody
        rows, run = self.runs.rows, self.runs.prompts.copy()
        while (new := np.flatnonzero(brought[run] == np.arange(run.size))).size:
            run[new] = rows["parent"][run[new]]
        return np.where(run == NONE, 0, rows["past"][run])

    @cached_property
    def num_seen(self) -> NDArray[np.int64]:
        """int64 [requests]; distinct blocks of all prompts up to each."""
        return np.cumsum(self.num_blocks - self.num_known)

    @cached_property
    def bases(self) -> NDArray[np.int64]:
        """int64 [runs + 1]; the node of each run's first block, and how many there are."""
        return np.append(0, np.cumsum(self.runs.rows["past"] - self.runs.rows["first"], dtype=np.int64))

    @cached_property
    def parents(self) -> NDArray[np.int32]:
        """int32 [nodes]; -1 for a prompt's first block."""
        found = np.arange(NONE, self.num_nodes - 1, dtype=np.int32)
        above = self.runs.rows["parent"]
        found[self.bases[:-1]] = np.where(above == NONE, NONE, self.bases[above + 1] - 1)
        return found

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [requests + 1]; request i has `nodes[offsets[i]:offsets[i + 1]]`."""
        return np.append(0, np.cumsum(self.num_blocks))

    @cached_property
    def nodes(self) -> NDArray[np.int32]:
        """int32 [blocks of all prompts]."""
        found = np.empty(self.offsets[-1], np.int32)
        above = self.runs.rows["parent"].astype(np.int64)
        _number(self.runs.prompts, above, self.bases, self.offsets, found)
        return found


def plant(columns: TraceColumns, block_tokens: int | None = None) -> PromptTree:
    """Build the tree of a trace.

    Blocks are equal if they and all before them are. Of a trace with ids of blocks those of that size are equal whose
    ids are, however many tokens of a prompt's last one there are; else a last block that is filled in part is the same
    where prompts end together.

    Args:
        columns: a trace with contents or block ids, in order of arrival.
        block_tokens: tokens a block; None: the trace's own, or 16.
    Raises:
        ValueError: it has none, their number does not fit the prompts' lengths, or there are too many.
    """
    if not columns.num_requests:
        raise ValueError("prefix reuse needs a trace with requests, got one without requests")
    by_ids = columns.block_ids is not None and block_tokens in (None, columns.block_tokens)
    contents = _of_ids(columns) if columns.contents is None else columns.contents
    block_tokens = block_tokens or columns.block_tokens or BLOCK_TOKENS
    num_blocks = -(-columns.num_prompt_tokens // block_tokens)
    if (total := int(num_blocks.sum())) > MOST_BLOCKS:
        raise ValueError(f"prefix reuse takes at most {MOST_BLOCKS:,} blocks, got {total:,}")
    runs = _runs(contents, block_tokens, by_ids)
    return PromptTree(
        runs=runs, num_blocks=num_blocks, prompt_tokens=columns.num_prompt_tokens, block_tokens=block_tokens
    )


def _of_ids(columns: TraceColumns) -> Contents:
    """What prompts share by their blocks' ids; a trace without is refused."""
    ids, offsets, block_tokens = columns.block_ids, columns.block_offsets, columns.block_tokens
    if ids is None or offsets is None or block_tokens is None:
        raise ValueError("prefix reuse needs a trace whose prompts share something, got one that says nothing of it")
    counts, wanted = np.diff(offsets), -(-columns.num_prompt_tokens // block_tokens)
    if (wrong := np.flatnonzero(counts != wanted)).size:
        first = wrong[0]
        raise ValueError(
            f"request {first} has {counts[first]} block ids; allowed is one for each {block_tokens} tokens: "
            f"{wanted[first]} for {columns.num_prompt_tokens[first]}"
        )
    texts, none = Interning(), np.zeros(counts.size, np.int64)
    texts.add(np.split(ids, offsets[1:-1]), block_tokens, columns.num_prompt_tokens.tolist(), none.tolist())
    return texts.contents()


def _runs(contents: Contents, block_tokens: int, by_ids: bool) -> Runs:
    """The runs of prompts, the copies of contents one after another."""
    size = contents.parents.size
    copies, own = np.divmod(contents.prompts, size)
    begins, ends = contents.begins, contents.ends
    if by_ids:
        # No text parts from another within a block, but where one ends: a block is of the stretch that has its first.
        firsts, pasts, parents = -(-begins // block_tokens), -(-ends // block_tokens), contents.parents
    else:
        cut, place = np.unique(own[ends[own] % block_tokens > 0], return_inverse=True)
        last = ends[cut] // block_tokens
        firsts, pasts = np.append(begins // block_tokens, last), np.append(ends // block_tokens, last + 1)
        parents = np.append(contents.parents, cut)
        own[ends[own] % block_tokens > 0] = size + place
    is_used = np.zeros(parents.size, bool)
    is_used[own] = True
    _use_above(parents, is_used)
    runs = runs_between(parents, firsts, np.where(is_used, pasts, firsts), own, own)
    num_runs = runs.rows.size
    rows = np.tile(runs.rows, int(copies.max()) + 1)
    shift = np.repeat(np.arange(rows.size // num_runs) * num_runs, num_runs)
    rows["parent"] += np.where(rows["parent"] == NONE, 0, shift).astype(np.int32)
    leaves = runs.leaves + copies * num_runs
    return Runs(rows, leaves, np.zeros(leaves.size, np.int64), leaves)


@compiled
def _use_above(parents: NDArray[np.int64], is_used: NDArray[np.bool_]) -> None:
    """Note of stretches which are used, where those behind them are."""
    for stretch in range(parents.size - 1, -1, -1):
        if is_used[stretch] and parents[stretch] != NONE:
            is_used[parents[stretch]] = True


@compiled
def _number(
    leaves: NDArray[np.int64],
    parents: NDArray[np.int64],
    bases: NDArray[np.int64],
    offsets: NDArray[np.int64],
    nodes: NDArray[np.int32],
) -> None:
    """Write the nodes of each prompt's blocks, those of its last run first."""
    for request in range(leaves.size):
        run, index = leaves[request], offsets[request + 1]
        while run != NONE:
            for node in range(bases[run + 1] - 1, bases[run] - 1, -1):
                index -= 1
                nodes[index] = node
            run = parents[run]
