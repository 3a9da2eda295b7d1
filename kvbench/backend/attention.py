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
ON_CPU = "cpu"

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


def attention(queries: Tensor, pieces: list[tuple[Tensor, Tensor]], mask: Tensor | None) -> Tensor:
    """Attend with the newest tokens' queries, causally among themselves, over K and V that may lie in several pieces.

    Args:
        queries: from `packed`, of at most QUERY_CHUNK tokens.
        pieces: K and V of consecutive tokens, [num_rows, num_kv_heads, tokens, head_dim] each; the last ends with the
            last query's token.
        mask: from `causal_mask`, for at least so many tokens; None for one token, which may look everywhere.
    Returns:
        As queries.
    """
    lengths = [keys.shape[2] for keys, _ in pieces]
    if mask is not None:
        mask = mask[mask.shape[0] - queries.shape[2] :, mask.shape[1] - sum(lengths) :]
    if len(pieces) == 1:
        return F.scaled_dot_product_attention(queries, *pieces[0], attn_mask=mask)
    masks = [None] * len(pieces) if mask is None else mask.split(lengths, dim=1)
    return merged([attention_and_lse(queries, *piece, part) for piece, part in zip(pieces, masks, strict=True)])


def attention_and_lse(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attend over one piece; also the log of each query's sum of exponentials, by which pieces are merged.

    Args:
        queries: [num_rows, num_kv_heads, num_queries, head_dim].
        keys: [num_rows, num_kv_heads, tokens, head_dim].
        values: as keys.
        mask: bool, [num_queries, tokens], or with rows and heads before; None where all may look everywhere.
    Returns:
        The output, as queries, and [num_rows, num_kv_heads, num_queries] in float32; -inf, and an output of no meaning,
        for a query that may look nowhere.
    """
    if queries.device.type == ON_CPU:
        bias = None if mask is None else torch.zeros_like(mask, dtype=queries.dtype).masked_fill_(~mask, -torch.inf)
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, values, attn_mask=bias)
        # The call gives a finite figure for a query that may look nowhere.
        return output, lse if mask is None else lse.masked_fill(~mask.any(dim=-1), -torch.inf)
    scores = (queries @ keys.transpose(-1, -2)).float() * queries.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    return torch.exp(scores - lse[..., None]).to(values.dtype) @ values, lse


class Merging:
    """Attention over pieces that come one after another, from that over each.

    Source: Milakov and Gimelshein 2018, arXiv:1805.02867.
    """

    def __init__(self) -> None:
        self.lse: Tensor
        self._output: Tensor
        self._dtype: torch.dtype | None = None

    def add(self, output: Tensor, lse: Tensor) -> None:
        """Take one piece's output and log-sum-exp, from `attention_and_lse`."""
        lse = lse.float()
        if self._dtype is None:
            self.lse, self._dtype = lse, output.dtype
            self._output = output.float()
            return
        both = torch.logaddexp(self.lse, lse)
        # A query that may look nowhere yet has -inf on both sides, and an output of no meaning.
        before, now = (torch.exp(part - both).nan_to_num_(0.0).unsqueeze(-1) for part in (self.lse, lse))
        added = torch.where(now > 0, output.float(), 0) * now
        self._output = torch.where(before > 0, self._output, 0) * before + added
        self.lse = both

    def output(self) -> Tensor:
        """Attention over all pieces so far, as one part's output."""
        return self._output.to(self._dtype)


def merged(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention over all pieces from that over each.

    Args:
        parts: from `attention_and_lse`, of the same queries.
    Returns:
        As one part's output.
    Source: Milakov and Gimelshein 2018, arXiv:1805.02867.
    """
    lse = torch.stack([part_lse for _, part_lse in parts])
    weights = torch.softmax(lse.float(), dim=0).unsqueeze(-1)
    outputs = torch.stack([output for output, _ in parts])
    return torch.where(weights > 0, outputs * weights, 0).sum(dim=0).to(outputs.dtype)


def up_to(pieces: list[tuple[Tensor, Tensor]], num_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """The pieces' first tokens, so many in all."""
    cut, left = [], num_tokens
    for keys, values in pieces:
        count = min(left, keys.shape[2])
        if count:
            cut.append((keys.narrow(2, 0, count), values.narrow(2, 0, count)))
        left -= count
    return cut
