"""Shapes of kernels, as a rank runs them: what their time hangs on besides how many tokens there are."""

from typing import NamedTuple


class AttentionShape(NamedTuple):
    """Heads of a layer that attends.

    Args:
        num_heads: of queries.
        num_kv_heads: of K and V, or 1 of latents.
        key_dim: width of a head's key.
        value_dim: width of a head's value; of latents 0 where it lies in the key.
        dtype: what is computed in.
        kv_dtype: what the cache is held in.
        window: tokens that a query sees, its own included; 0: all.
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    dtype: str
    kv_dtype: str
    window: int = 0


class ExpertShape(NamedTuple):
    """Experts of a layer, of three matrices each.

    Args:
        num_experts: that lie on the rank.
        top_k: of the layer's, which a token takes; on the rank, in the mean, its share of them.
        hidden: width of the hidden state.
        intermediate: width of an expert, after the split.
        dtype: of the matrices, as tables of kernels call it: bfloat16, fp8, fp8_block, w4a16_mxfp4.
    """

    num_experts: int
    top_k: float
    hidden: int
    intermediate: int
    dtype: str


class Factors(NamedTuple):
    """What each kind of work's time is multiplied by: 1 as it is, or a draw of what it may be."""

    products: float = 1.0
    experts: float = 1.0
    prefill: float = 1.0
    decode: float = 1.0
    traffic: float = 1.0
    exchange: float = 1.0
    host: float = 1.0


KINDS = Factors._fields
"""Kinds of work: matrix products, experts, attention of prompts, of decode steps, what only moves bytes, exchanges
between accelerators, and the host."""
AS_IT_IS = Factors()
