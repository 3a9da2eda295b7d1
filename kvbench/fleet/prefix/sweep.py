"""Hit rates over sizes and policies, as plain rows."""

from collections.abc import Sequence

from kvbench.fleet.prefix.simulate import PrefixResult, simulate, unlimited
from kvbench.fleet.prefix.tiers import Tier
from kvbench.fleet.prefix.tree import PromptTree


def sweep(
    tree: PromptTree, *, sizes: Sequence[int], policies: Sequence[str], reuse: str, warmup_share: float
) -> list[dict[str, object]]:
    """Simulate a device of each size under each policy.

    Args:
        tree: the prompts.
        sizes: blocks that the device holds.
        policies: of lru, fifo and optimal.
        reuse: block_hash, radix or radix_trimmed.
        warmup_share: of the requests, those at the start that only fill the cache; 0.5 in KVCache.AI's definition.
    Returns:
        A row for each size and policy, in this order, with the keys of `row`.
    Raises:
        ValueError: an argument is something else.
    """
    rows = []
    for size in sizes:
        device = Tier(name="device", num_blocks=size, bytes_per_s=float("inf"))
        for policy in policies:
            result = simulate(
                tree, tiers=(device,), policy=policy, reuse=reuse, block_bytes=1, warmup_share=warmup_share
            )
            rows.append(row(result))
    return rows


def ceiling(tree: PromptTree, *, warmup_share: float) -> dict[str, object]:
    """The row of a device that holds every block."""
    return row(unlimited(tree, warmup_share=warmup_share))


def row(result: PrefixResult) -> dict[str, object]:
    """A result as a row.

    Returns:
        reuse, policy, num_blocks of all tiers, num_requests that count, hit_tokens, prompt_tokens, token_hit_rate,
        hit_blocks, blocks, block_hit_rate and filled_first: whether the cache was full before what was counted.
    """
    return {
        "reuse": result.reuse,
        "policy": result.policy,
        "num_blocks": sum(tier.num_blocks for tier in result.tiers),
        "num_requests": result.num_requests,
        "hit_tokens": result.hit_tokens,
        "prompt_tokens": result.prompt_tokens,
        "token_hit_rate": result.token_hit_rate,
        "hit_blocks": result.hit_blocks,
        "blocks": result.blocks,
        "block_hit_rate": result.block_hit_rate,
        "filled_first": result.filled_first,
    }
