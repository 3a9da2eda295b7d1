"""Attention of new queries over a live cache: the fast call for each case, found by measuring.

A decode step packs the query heads of a KV head as rows of one query: on a CPU the same call with `enable_gqa` took
12 to 13 times as long in bfloat16 (4,096 tokens, 32 heads on 8). A prefill attends in chunks of queries, so that the
mask stays small.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_CHUNK = 256

CALLS = {
    "decode": "scaled_dot_product_attention, query heads packed as rows of their KV head",
    "prefill": f"scaled_dot_product_attention, enable_gqa, chunks of {QUERY_CHUNK} queries, mask aligned lower right",
}
"""Which call is used for which phase, for environment.json."""


def decode_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend with one new token's queries.

    Args:
        queries: [num_rows, num_kv_heads, heads a KV head, head_dim] (see `packed`).
        keys: [num_rows, num_kv_heads, num_tokens, head_dim].
        values: as keys.
    Returns:
        As queries.
    """
    return F.scaled_dot_product_attention(queries, keys, values)


def packed(queries: Tensor, num_kv_heads: int) -> Tensor:
    """One token's queries, [num_rows, num_heads, 1, head_dim], as rows of their KV head; neighbours share a head."""
    num_rows, num_heads, _, head_dim = queries.shape
    return queries.reshape(num_rows, num_kv_heads, num_heads // num_kv_heads, head_dim)


def causal_mask(max_context_tokens: int, device: torch.device) -> Tensor:
    """A mask for the largest chunk and context; smaller ones are its lower right corner.

    Returns:
        bool, [QUERY_CHUNK, max_context_tokens + QUERY_CHUNK]; True where a query may look.
    """
    num_keys = max_context_tokens + QUERY_CHUNK
    return torch.ones(QUERY_CHUNK, num_keys, dtype=torch.bool, device=device).tril_(num_keys - QUERY_CHUNK)


def chunk_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attend with a chunk of the newest tokens' queries, causally among themselves.

    Args:
        queries: [num_rows, num_heads, num_queries <= QUERY_CHUNK, head_dim].
        keys: [num_rows, num_kv_heads, num_tokens, head_dim], up to the chunk's last token.
        values: as keys.
        mask: from `causal_mask`, for at least so many tokens.
    Returns:
        As queries.
    """
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    if num_queries == num_keys:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
    corner = mask[QUERY_CHUNK - num_queries :, mask.shape[1] - num_keys :]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=corner, enable_gqa=True)


def chunks(num_queries: int) -> list[tuple[int, int]]:
    """Cut an append's queries into chunks: start and end of each."""
    return [(start, min(start + QUERY_CHUNK, num_queries)) for start in range(0, num_queries, QUERY_CHUNK)]
