"""Replay prompts through a cache, and say what it held of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_int, check_number
from kvbench.compiled import compiled
from kvbench.fleet.prefix.kinds import UNLIMITED, check_policy, check_reuse
from kvbench.fleet.prefix.queued import Moves, first_in_first_out, no_moves
from kvbench.fleet.prefix.radix import leaves_only
from kvbench.fleet.prefix.replay import hits_of
from kvbench.fleet.prefix.tiers import Tier, TierUse, check_tiers
from kvbench.fleet.prefix.tree import PromptTree


@dataclass(frozen=True, kw_only=True, eq=False)
class ReuseCounts:
    """What each prompt reused, a row a tier and a column a request.

    Args:
        hit_blocks: int64; blocks reused from the tier.
        hit_tokens: int64; tokens in these.
        vllm_hit_blocks: int64; blocks reused as vLLM counts them: full ones, and never a prompt's last one.
        loaded_blocks: int64; blocks moved from the tier to the device, since they are reused.
        stored_blocks: int64; blocks moved into the tier from the one above, since they were evicted there.
    """

    hit_blocks: NDArray[np.int64]
    hit_tokens: NDArray[np.int64]
    vllm_hit_blocks: NDArray[np.int64]
    loaded_blocks: NDArray[np.int64]
    stored_blocks: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PrefixResult:
    """What a cache did for the requests from `first_request` on: the ones that count, and the denominators' own.

    Args:
        reuse: block_hash, radix or radix_trimmed.
        policy: lru, fifo, lfu or optimal; unlimited for a cache that holds everything.
        tiers: what each tier did.
        first_request: requests before it only fill the cache.
        num_requests: requests that count.
        hit_tokens: their prompts' tokens that were reused, from any tier.
        prompt_tokens: all tokens of their prompts.
        hit_blocks: their prompts' blocks that were reused, from any tier.
        vllm_hit_blocks: those of them that vLLM reuses: full ones, and never a prompt's last one, which it computes
            again.
        block_tokens: tokens of a full block.
        blocks: all blocks of their prompts; one that is filled in part counts as one.
        full_at: the first request of the trace with which all tiers were full, or evicted from the last; None if they
            never were.
    """

    reuse: str
    policy: str
    tiers: tuple[TierUse, ...]
    first_request: int
    num_requests: int
    hit_tokens: int
    prompt_tokens: int
    hit_blocks: int
    vllm_hit_blocks: int
    block_tokens: int
    blocks: int
    full_at: int | None

    @property
    def token_hit_rate(self) -> float:
        """hit_tokens ÷ prompt_tokens; of 1. Denominator: prompt tokens of the requests that count, reused or not."""
        return self.hit_tokens / self.prompt_tokens

    @property
    def block_hit_rate(self) -> float:
        """hit_blocks ÷ blocks; of 1. Denominator: prompt blocks of the requests that count, reused or not."""
        return self.hit_blocks / self.blocks

    @property
    def vllm_token_hit_rate(self) -> float:
        """vllm_hit_blocks × block_tokens ÷ prompt_tokens; of 1. Denominator: that of token_hit_rate."""
        return self.vllm_hit_blocks * self.block_tokens / self.prompt_tokens

    @property
    def vllm_block_hit_rate(self) -> float:
        """vllm_hit_blocks ÷ blocks; of 1. Denominator: that of block_hit_rate."""
        return self.vllm_hit_blocks / self.blocks

    @property
    def load_s(self) -> float:
        """Sum of the tiers' load_s; seconds."""
        return math.fsum(tier.load_s for tier in self.tiers)

    @property
    def filled_first(self) -> bool:
        """full_at < first_request: whether the cache had to evict all the while that was counted."""
        return self.full_at is not None and self.full_at < self.first_request


def replay(tree: PromptTree, *, sizes: Sequence[int], policy: str, reuse: str) -> ReuseCounts:
    """Replay all prompts, in their order.

    A block that leaves a tier goes to the next; one that is reused goes to the device. A prompt longer than the tiers
    together leaves its first blocks in them; its last ones under block_hash with fifo.

    Args:
        tree: the prompts.
        sizes: blocks that each tier holds, the fastest first.
        policy: lru, fifo, lfu or optimal.
        reuse: block_hash, radix or radix_trimmed.
    Raises:
        ValueError: there is no such policy or kind of reuse, or a size is not a whole number from 1.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.4, and vLLM's prefix cache (block_hash, lru); Zheng et al.
        2024, arXiv:2312.07104, section 3, and SGLang's radix_cache.py (radix); Belady 1966 (optimal); definition of
        hits: KVCache.AI's kvcache-simulator.
    Departs: from vLLM and SGLang, a prompt is in use for no time, so that no block is locked by a running one; a prompt
        may be reused whole (vllm_hit_blocks leaves its last block out), and a block filled in part takes a place. From
        SGLang, a run is cut where a prompt outgrows a tier, and a split run keeps its age under fifo. From
        kvcache-simulator under lru, a prompt longer than the cache fills it.
    """
    check_policy(policy)
    check_reuse(reuse)
    if not sizes:
        raise ValueError("sizes is one number of blocks for each tier, got none")
    for size in sizes:
        check_int("a tier's size in blocks", size, 1)
    # Nothing changes beyond what there is to hold, and sums of sizes stay in range.
    bounded = [min(int(size), tree.num_nodes + 1) for size in sizes]
    if policy == "lfu" and (reuse != "block_hash" or len(sizes) > 1):
        raise ValueError(f"lfu is of block_hash and one tier; got {reuse} and {len(sizes)} tiers")
    if policy in ("optimal", "lfu") or (policy, reuse) == ("lru", "block_hash"):
        moves = _cached(tree, bounded, policy)
    elif reuse == "block_hash":
        moves = first_in_first_out(tree, bounded)
    else:
        moves = leaves_only(tree, bounded, policy, whole=reuse == "radix")
    tokens = moves.hits * tree.block_tokens
    whole = np.flatnonzero(moves.last_tier >= 0)
    tokens[moves.last_tier[whole], whole] -= (tree.num_blocks * tree.block_tokens - tree.prompt_tokens)[whole]
    # A block that is filled in part is a prompt's last one, and reused only where the prompt is reused whole.
    without_last = moves.hits.sum(axis=0) - (moves.last_tier >= 0)
    return ReuseCounts(
        hit_blocks=moves.hits,
        hit_tokens=tokens,
        vllm_hit_blocks=without_last,
        loaded_blocks=moves.loaded,
        stored_blocks=moves.stored,
    )


def _cached(tree: PromptTree, sizes: list[int], policy: str) -> Moves:
    """What a replica's cache finds. Several tiers are of a policy whose larger caches hold all that smaller ones do:
    each holds what those above it do not."""
    within = np.array([hits_of(tree, size, policy) for size in np.cumsum(sizes).tolist()])
    moves = no_moves(len(sizes), tree.num_requests)
    moves.hits[:] = np.diff(within, axis=0, prepend=0)
    moves.loaded[1:] = moves.hits[1:]
    for tier, size in enumerate(np.cumsum(sizes)[:-1].tolist()):
        moves.stored[tier + 1] = pushed_out(tree.num_blocks - within[tier], size)
    deepest = len(sizes) - 1 - np.argmax(moves.hits[::-1] > 0, axis=0)
    moves.last_tier[:] = np.where(within[-1] == tree.num_blocks, deepest, moves.last_tier)
    return moves


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


def simulate(
    tree: PromptTree,
    *,
    tiers: Sequence[Tier],
    policy: str,
    reuse: str,
    block_bytes: int,
    warmup_share: float,
) -> PrefixResult:
    """Replay all prompts and add up what the tiers did for those that count.

    Args:
        tree: the prompts.
        tiers: the device first, then host, then disk.
        policy: lru, fifo, lfu or optimal.
        reuse: block_hash, radix or radix_trimmed.
        block_bytes: K and V of one block.
        warmup_share: of the requests, those at the start that only fill the cache; >= 0, < 1.
    Raises:
        ValueError: an argument is something else.
    """
    check_tiers(tiers)
    check_int("block_bytes", block_bytes, 1)
    first = first_request(tree, warmup_share)
    done = replay(tree, sizes=[tier.num_blocks for tier in tiers], policy=policy, reuse=reuse)
    hit_blocks, hit_tokens, loaded, stored = (
        rows[:, first:].sum(axis=1).tolist()
        for rows in (done.hit_blocks, done.hit_tokens, done.loaded_blocks, done.stored_blocks)
    )
    uses = []
    for index, tier in enumerate(tiers):
        rate = min(above.bytes_per_s for above in tiers[: index + 1])
        uses.append(
            TierUse(
                name=tier.name,
                num_blocks=tier.num_blocks,
                hit_blocks=hit_blocks[index],
                hit_tokens=hit_tokens[index],
                loaded_bytes=loaded[index] * block_bytes,
                stored_bytes=stored[index] * block_bytes,
                load_s=loaded[index] * block_bytes / rate,
            )
        )
    return _result(tree, reuse, policy, tuple(uses), first, int(done.vllm_hit_blocks[first:].sum()))


def unlimited(tree: PromptTree, *, warmup_share: float) -> PrefixResult:
    """What a device that holds every block would do: the most that any cache can."""
    first = first_request(tree, warmup_share)
    known = tree.num_known[first:]
    hit_tokens = np.minimum(known * tree.block_tokens, tree.prompt_tokens[first:])
    use = TierUse(
        name="device",
        num_blocks=tree.num_nodes,
        hit_blocks=int(known.sum()),
        hit_tokens=int(hit_tokens.sum()),
        loaded_bytes=0,
        stored_bytes=0,
        load_s=0.0,
    )
    without_last = np.minimum(known, tree.num_blocks[first:] - 1)
    return _result(tree, "block_hash", UNLIMITED, (use,), first, int(without_last.sum()))


def first_request(tree: PromptTree, warmup_share: float) -> int:
    """The first request that counts."""
    check_number("warmup_share", warmup_share, 0, 1, below=True)
    return math.floor(tree.num_requests * warmup_share)


def _result(
    tree: PromptTree, reuse: str, policy: str, uses: tuple[TierUse, ...], first: int, vllm_hit_blocks: int
) -> PrefixResult:
    full_at = int(np.searchsorted(tree.num_seen, sum(use.num_blocks for use in uses)))
    return PrefixResult(
        reuse=reuse,
        policy=policy,
        tiers=uses,
        first_request=first,
        num_requests=tree.num_requests - first,
        hit_tokens=sum(use.hit_tokens for use in uses),
        prompt_tokens=int(tree.prompt_tokens[first:].sum()),
        hit_blocks=sum(use.hit_blocks for use in uses),
        vllm_hit_blocks=vllm_hit_blocks,
        block_tokens=tree.block_tokens,
        blocks=int(tree.num_blocks[first:].sum()),
        full_at=full_at if full_at < tree.num_requests and policy != UNLIMITED else None,
    )
