"""Prefix reuse once more, in plain Python and slow: blocks are tuples of all ids up to theirs, tiers are lists."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from kvbench.workload.trace_columns import TraceColumns


def columns_of(prompts, block_tokens=1, last_tokens=None):
    """A trace of these prompts' block ids; `last_tokens` fill each one's last block."""
    counts = [len(prompt) for prompt in prompts]
    last = last_tokens or [block_tokens] * len(prompts)
    tokens = [(count - 1) * block_tokens + part for count, part in zip(counts, last, strict=True)]
    return TraceColumns(
        arrival_ns=np.arange(len(prompts)),
        num_prompt_tokens=np.array(tokens, np.int64),
        num_output_tokens=np.ones(len(prompts), np.int64),
        block_ids=np.array([ord(i) if isinstance(i, str) else i for prompt in prompts for i in prompt], np.int64),
        block_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        block_tokens=block_tokens,
    )


def numbered(blocks):
    """Numbers of blocks by first appearance, whatever they were called."""
    numbers = {}
    return [numbers.setdefault(block, len(numbers)) for block in blocks]


def prefixes(prompt):
    return [tuple(prompt[: depth + 1]) for depth in range(len(prompt))]


def next_uses(prompts):
    """For each request and block the next request that has it; infinity where there is none."""
    uses, ahead = [], {}
    for number in reversed(range(len(prompts))):
        blocks = prefixes(prompts[number])
        uses.insert(0, {block: ahead.get(block, math.inf) for block in blocks})
        ahead.update(dict.fromkeys(blocks, number))
    return uses


def overflow(tiers, sizes, stores, rank):
    """Move what is too much in a tier to the next: of the highest rank, the last one first."""
    for index, (tier, size) in enumerate(zip(tiers, sizes, strict=True)):
        while len(tier) > size:
            victim = max(reversed(tier), key=rank)
            tier.remove(victim)
            if index + 1 < len(tiers):
                tiers[index + 1].insert(0, victim)
                stores[index + 1] += 1


def single_blocks(prompts, sizes, policy):
    """block_hash: hits, loads and stores, [request][tier], and the tier of each whole prompt's last block."""
    tiers = [[] for _ in sizes]
    uses = next_uses(prompts)
    use_of = {}

    def rank(block):
        return (use_of[block], len(block)) if policy == "optimal" else 0

    out = []
    for number, prompt in enumerate(prompts):
        blocks = prefixes(prompt)
        use_of.update(uses[number])
        hits, loads, stores = ([0] * len(sizes) for _ in range(3))
        reused = []
        for block in blocks:
            where = [index for index, tier in enumerate(tiers) if block in tier]
            if not where:
                break
            reused.append(where[0])
            hits[where[0]] += 1

        if policy == "fifo":
            for depth, block in enumerate(blocks):
                if block in tiers[0]:
                    continue
                for index, tier in enumerate(tiers):
                    if block in tier:
                        tier.remove(block)
                        loads[index] += depth < len(reused)
                tiers[0].insert(0, block)
                overflow(tiers, sizes, stores, rank)
        else:
            loads[1:] = hits[1:]
            for tier in tiers:
                tier[:] = [block for block in tier if block not in blocks]
            tiers[0][:0] = blocks  # the first is the most recent
            overflow(tiers, sizes, stores, rank)
        out.append((hits, loads, stores, reused[-1] if len(reused) == len(blocks) else None))
    return out


def least_found(prompts, size):
    """What each prompt finds of single blocks, of which the last of a sequence go that were found fewest times."""
    found, when, hits, now = {}, {}, [], 0
    for prompt in prompts:
        blocks = prefixes(prompt)
        hits.append(sum(block in found for block in blocks))
        for block in reversed(blocks):
            found[block] = found.get(block, -1) + 1
            when[block] = now = now + 1
        while len(found) > size:
            ends = [block for block in found if not any(other[:-1] == block for other in found)]
            del found[min(ends, key=lambda block: (found[block], when[block]))]
    return hits


@dataclass
class Run:
    """Blocks from `begin` on of a path."""

    path: tuple
    begin: int
    tier: int
    age: float


def radix(prompts, sizes, policy, whole):
    """As `single_blocks`, of a radix tree; the tree is a list of runs."""
    runs = []
    out = []
    edges = [sum(sizes[: count + 1]) for count in range(len(sizes))]

    def split(run, depth):
        runs.append(Run(run.path[:depth], run.begin, run.tier, run.age))
        run.begin = depth
        return runs[-1]

    for number, prompt in enumerate(prompts):
        prompt = tuple(prompt)
        hits, loads, stores = ([0] * len(sizes) for _ in range(3))
        depth, last_tier = 0, None
        while depth < len(prompt):
            found = [run for run in runs if run.begin == depth and run.path[: depth + 1] == prompt[: depth + 1]]
            if not found:
                break
            (run,) = found
            end = max(d for d in range(depth, len(run.path) + 1) if run.path[:d] == prompt[:d])
            end = min([end] + [edge for edge in edges if edge > depth])
            if end < len(run.path):
                upper = split(run, end)
                if whole and policy == "lru":
                    run.age = number - 0.5
                run = upper
            hits[run.tier] += end - depth
            last_tier = run.tier
            if run.tier:
                loads[run.tier] += end - depth
            if policy == "lru" or run.tier:
                run.age = number
            run.tier = 0
            depth = end
        if depth < len(prompt):
            last_tier = None
        while depth < len(prompt):
            end = min([len(prompt)] + [edge for edge in edges if edge > depth])
            runs.append(Run(prompt[:end], depth, 0, number))
            depth = end
        for tier, size in enumerate(sizes):
            while (excess := sum(len(run.path) - run.begin for run in runs if run.tier == tier) - size) > 0:
                mine = [run for run in runs if run.tier == tier]
                leaves = [run for run in mine if not any(o.path[: o.begin] == run.path for o in mine)]
                leaf = min(leaves, key=lambda run: run.age)
                if not whole and len(leaf.path) - leaf.begin > excess:
                    split(leaf, len(leaf.path) - excess)
                if tier + 1 < len(sizes):
                    stores[tier + 1] += len(leaf.path) - leaf.begin
                    leaf.tier = tier + 1
                else:
                    runs.remove(leaf)
        out.append((hits, loads, stores, last_tier))
    return out


def most_hits(prompts, size):
    """The most blocks that any choice of what to hold reuses: all choices are tried."""
    paths = [prefixes(prompt) for prompt in prompts]

    @cache
    def best(number, held):
        if number == len(paths):
            return 0
        hits = next((d for d, block in enumerate(paths[number]) if block not in held), len(paths[number]))
        return hits + max(best(number + 1, kept) for kept in subsets(held | set(paths[number]), size))

    return best(0, frozenset())


def subsets(blocks, size):
    """All subsets of at most so many blocks."""
    found = {frozenset()}
    for block in blocks:
        found |= {kept | {block} for kept in found if len(kept) < size}
    return found
