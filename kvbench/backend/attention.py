"""Attention of new queries over a live cache: which kernel is called, and how pieces of the cache are merged.

The query heads of a KV head are packed as rows of one query, so that a call needs neither repeated K and V nor
`enable_gqa`: on a CPU a decode step with `enable_gqa` took 12 to 13 times as long in bfloat16 (4,096 tokens, 32 heads
on 8), and CUDA's memory-efficient kernel takes a mask but no grouped heads. A prefill attends in chunks of queries, so
that the mask stays small.

On an accelerator the kernel is chosen here, never by torch: its first choice in half precision may be cuDNN's, which
plans anew for each length. The chosen ones give the log-sum-exp by which pieces are merged. Only the mask among a
chunk's own tokens is handed to a kernel; what lies before them is attended without one, by the flash kernel.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

QUERY_CHUNK = 256
ON_CPU = "cpu"
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_UNIT, FLASH_MOST = 8, 256
"""The flash kernel's head_dim: a multiple of the one, at most the other."""
BIAS_UNIT = 16
"""Elements by which rows of a mask are aligned, as the memory-efficient kernel asks for."""

aten = torch.ops.aten


def calls(device: torch.device) -> str:
    """What is called, for environment.json."""
    chosen = (
        "scaled_dot_product_attention; several pieces _scaled_dot_product_flash_attention_for_cpu"
        if device.type == ON_CPU
        else "_scaled_dot_product_flash_attention in bfloat16 and float16 without a mask, else "
        "_scaled_dot_product_efficient_attention; never cuDNN's"
    )
    return (
        f"{chosen}; pieces merged by log-sum-exp in float32; query heads packed as rows of their KV head; prefill "
        f"in chunks of at most {QUERY_CHUNK} queries, the mask aligned lower right"
    )


def chosen_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Where torch chooses the kernel of a call, leave it those that are chosen here: never cuDNN's."""
    if device.type == ON_CPU:
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


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
    if len(pieces) == 1 and (mask is None or queries.device.type == ON_CPU):
        keys, values = pieces[0]
        if queries.device.type != ON_CPU:
            return attention_and_lse(queries, keys, values, None)[0]
        if mask is not None:
            mask = _corner(mask, queries.shape[2], keys.shape[2])
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    if mask is None:
        return merged([attention_and_lse(queries, *piece, None) for piece in pieces])
    num_own = queries.shape[2] * QUERY_CHUNK // mask.shape[0]
    num_before = sum(keys.shape[2] for keys, _ in pieces) - num_own
    own = _corner(mask, queries.shape[2], num_own)
    parts, start = [], 0
    for keys, values in pieces:
        count = keys.shape[2]
        before = min(max(num_before - start, 0), count)
        if before:
            cut = (keys, values) if before == count else (keys.narrow(2, 0, before), values.narrow(2, 0, before))
            parts.append(attention_and_lse(queries, *cut, None))
        if before < count:
            seen = own.narrow(1, start + before - num_before, count - before)
            rest = keys.narrow(2, before, count - before), values.narrow(2, before, count - before)
            parts.append(attention_and_lse(queries, *rest, seen))
        start += count
    return merged(parts)


def masked(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attend over one piece, where each query may look at what a mask says: bool, [num_queries, tokens]."""
    if queries.device.type == ON_CPU:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention_and_lse(queries, keys, values, mask)[0]


def _corner(mask: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """A mask's lower right corner."""
    return mask[mask.shape[0] - num_rows :, mask.shape[1] - num_columns :]


def attention_and_lse(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attend over one piece; also the log of each query's sum of exponentials, by which pieces are merged.

    Args:
        queries: [num_rows, num_kv_heads, num_queries, head_dim].
        keys: [num_rows, num_kv_heads, tokens, head_dim].
        values: as keys.
        mask: bool, [num_queries, tokens], or with rows and heads before; None where all may look everywhere.
    Returns:
        The output, as queries, and [num_rows, num_kv_heads, num_queries] in float32; 0 and the least number for a
        query that may look nowhere, so that it has no part in any merge, and is 0 where it may look nowhere at all.
    """
    if queries.device.type != ON_CPU:
        output, lse = _on_accelerator(queries, keys, values, mask)
    elif keys.shape[3] != values.shape[3]:
        output, lse = _in_full(queries, keys, values, mask)
    else:
        bias = None if mask is None else torch.zeros_like(mask, dtype=queries.dtype).masked_fill_(~mask, -torch.inf)
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, values, attn_mask=bias)
    if mask is None:
        return output, lse
    # Kernels give anything for a query that may look nowhere, and what is no number stays so with a weight of 0.
    nowhere = ~mask.any(dim=-1)
    return output.masked_fill(nowhere.unsqueeze(-1), 0), lse.masked_fill(nowhere, torch.finfo(lse.dtype).min)


def _in_full(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """All weights at once: the CPU's kernel takes K and V of one width alone."""
    scores = queries.float() @ keys.float().transpose(2, 3) * queries.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(dim=3) @ values.float()).to(queries.dtype), scores.logsumexp(dim=3)


def suits_flash(queries: Tensor) -> bool:
    """Whether the flash kernel takes queries of this dtype and head_dim; the memory-efficient one takes all."""
    head_dim = queries.shape[-1]
    return queries.dtype in FLASH_DTYPES and head_dim % FLASH_UNIT == 0 and head_dim <= FLASH_MOST


def _on_accelerator(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if mask is None and suits_flash(queries):
        flashed = aten._scaled_dot_product_flash_attention(queries, keys, values)
        return cast(tuple[Tensor, Tensor], flashed[:2])
    bias = None
    if mask is not None:
        num_keys = mask.shape[-1]
        room = queries.new_zeros((*mask.shape[:-1], -(-num_keys // BIAS_UNIT) * BIAS_UNIT))
        bias = room.narrow(-1, 0, num_keys).masked_fill_(~mask, -torch.inf)
        bias = bias.expand(*queries.shape[:3], num_keys)
    output, padded, *_ = aten._scaled_dot_product_efficient_attention(queries, keys, values, bias, True)
    return output, padded.narrow(2, 0, queries.shape[2])


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
        before, now = (torch.exp(part - both).unsqueeze(-1) for part in (self.lse, lse))
        self._output = self._output * before + output.float() * now
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
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([lse for _, lse in parts], dim=-1).float().softmax(dim=-1)
    outputs = torch.stack([output for output, _ in parts], dim=-2)
    return (weights.unsqueeze(-2) @ outputs.float()).squeeze(-2).to(outputs.dtype)


def lse_of(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The log-sum-exp over all pieces, from `attention_and_lse` of each; float32."""
    # A kernel a part: all at once take nine.
    return reduce(torch.logaddexp, [lse.float() for _, lse in parts])


def up_to(pieces: list[tuple[Tensor, Tensor]], num_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """The pieces' first tokens, so many in all."""
    cut, left = [], num_tokens
    for keys, values in pieces:
        count = min(left, keys.shape[2])
        if count:
            cut.append((keys.narrow(2, 0, count), values.narrow(2, 0, count)))
        left -= count
    return cut
