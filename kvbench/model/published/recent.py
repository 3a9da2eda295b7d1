"""Mixtures of 2025 and 2026 that are alike but for windows, norms of heads and names: EXAONE, Hunyuan 3, Solar."""

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, norms
from kvbench.model.published.windows import every

EXAONE_MOE = Family(
    parts=(
        attention(qk_norm="head", kinds=every(4)),
        Experts(count="num_experts", shared="num_shared_experts", has_correction=True, sparse=after_first()),
        norms(),
    ),
    defaults={
        "vocab_size": 102400,
        "intermediate_size": 16384,
        "moe_intermediate_size": 1024,
        "sliding_window": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    aliases={"num_local_experts": "num_experts"},
)
HUNYUAN3 = Family(
    parts=(attention(bias="attention_bias", qk_norm="head"), *EXAONE_MOE.parts[1:]),
    defaults={
        "vocab_size": 120832,
        "intermediate_size": 13312,
        "moe_intermediate_size": 1536,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_experts": 192,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
    },
    aliases={"num_local_experts": "num_experts"},
)
SOLAR = Family(
    parts=(
        attention(bias="attention_bias", out_bias=False),
        Experts(count="n_routed_experts", shared="n_shared_experts", has_correction=True),
        norms(),
    ),
    defaults={
        "vocab_size": 196608,
        "moe_intermediate_size": 1280,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
    },
    aliases={"num_local_experts": "n_routed_experts"},
)
