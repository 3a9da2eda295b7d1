"""Families with latent attention: DeepSeek and those built after it."""

from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, norms
from kvbench.model.published.latent import all_indexed, latent, sharing_indexers

EXPERTS = Experts(count="n_routed_experts", shared="n_shared_experts", has_correction=True, sparse=after_first())
V3 = {
    "vocab_size": 129280,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
}
ALIASES = {
    **dict.fromkeys(("num_local_experts", "num_experts", "num_routed_experts"), "n_routed_experts"),
    "num_shared_experts": "n_shared_experts",
}

DEEPSEEK_V2 = Family(
    parts=(
        latent(),
        Experts(count="n_routed_experts", shared="n_shared_experts", sparse=after_first()),
        norms(),
    ),
    defaults={
        "vocab_size": 102400,
        "intermediate_size": 11008,
        "moe_intermediate_size": 1407,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
    },
    aliases=ALIASES,
)
DEEPSEEK_V3 = Family(parts=(latent(), EXPERTS, norms()), defaults=V3, aliases=ALIASES)
DEEPSEEK_V32 = Family(
    parts=(latent(all_indexed), EXPERTS, norms()),
    defaults={**V3, "index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048},
    aliases=ALIASES,
)
GLM_DSA = Family(
    parts=(latent(sharing_indexers), EXPERTS, norms()),
    defaults={
        **V3,
        "vocab_size": 154880,
        "intermediate_size": 12288,
        "num_attention_heads": 64,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "index_n_heads": 32,
        "index_head_dim": 128,
        "index_topk": 2048,
    },
    aliases=ALIASES,
)
GLM4_LITE = Family(
    parts=DEEPSEEK_V3.parts,
    defaults={
        **V3,
        "vocab_size": 154880,
        "intermediate_size": 10240,
        "moe_intermediate_size": 1536,
        "num_attention_heads": 20,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 1,
    },
    aliases=ALIASES,
)
