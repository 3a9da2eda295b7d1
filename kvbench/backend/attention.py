"""Attention of new queries over a live cache: one call for every case, found by measuring.

The query heads of a KV head are packed as rows of one query, so that a call needs neither repeated K and V nor
`enable_gqa`: on a CPU a decode step with `enable_gqa` took 12 to 13 times as long in bfloat16 (4,096 tokens, 32 heads
on 8), and CUDA's memory-efficient kernel takes a mask but no grouped heads. A prefill attends in chunks of queries, so
that the mask stays small.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_CHUNK = 256

CALLS = (
    "scaled_dot_product_attention, query heads packed as rows of their KV head; "
    f"prefill in chunks of at most {QUERY_CHUNK} queries, mask aligned lower right"
)
"""What is called, for environment.json."""


def packed(queries: Tensor, num_kv_heads: int) -> Tensor:
    """Queries with all heads of a KV head as rows, a token's rows together.

    Args:
        queries: [num_rows, num_heads, num_queries, head_dim]; neighbouring heads share a KV head.
        num_kv_heads: heads of K and V.
    Returns:
        [num_rows, num_kv_heads, num_queries * heads a KV head, head_dim], contiguous.
    """
    num_rows, num_heads, num_queries, head_dim = queries.shape
    grouped = queries.reshape(num_rows, num_kv_heads, num_heads // num_kv_heads, num_queries, head_dim)
    return grouped.transpose(2, 3).reshape(num_rows, num_kv_heads, -1, head_dim).contiguous()


def causal_mask(max_context_tokens: int, group_size: int, device: torch.device) -> Tensor:
    """A mask for the largest chunk and context; smaller ones are its lower right corner.

    Args:
        max_context_tokens: the longest cache.
        group_size: query heads a KV head.
        device: where it lives.
    Returns:
        bool, [QUERY_CHUNK * group_size, max_context_tokens + QUERY_CHUNK]; True where a query may look.
    """
    num_keys = max_context_tokens + QUERY_CHUNK
    mask = torch.ones(QUERY_CHUNK, num_keys, dtype=torch.bool, device=device).tril_(num_keys - QUERY_CHUNK)
    return mask.repeat_interleave(group_size, dim=0)


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with the newest tokens' queries, causally among themselves.

    Args:
        queries: from `packed`, of at most QUERY_CHUNK tokens.
        keys: [num_rows, num_kv_heads, num_tokens, head_dim], up to the last query's token.
        values: as keys.
        mask: from `causal_mask`, for at least so many tokens; None for one token, which may look everywhere.
    Returns:
        As queries.
    """
    if mask is not None:
        mask = mask[mask.shape[0] - queries.shape[2] :, mask.shape[1] - keys.shape[2] :]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def chunks(num_queries: int) -> list[tuple[int, int]]:
    """Cut an append's queries into chunks: start and end of each."""
    return [(start, min(start + QUERY_CHUNK, num_queries)) for start in range(0, num_queries, QUERY_CHUNK)]
