"""Families whose layers are attention with heads in groups and a mixture of experts."""

from collections.abc import Iterator, Sequence

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, by_step, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import Weights
from kvbench.model.published.windows import all_full, all_windowed, every, last_windowed
from kvbench.model.weights import HEAD

LOCAL = "num_local_experts"
ROUTED = "n_routed_experts"

MIXTRAL = Family(
    parts=(
        attention(kinds=all_windowed),
        Experts(count=LOCAL, size="intermediate_size", names="block_sparse_moe"),
        norms(),
    ),
    defaults={"vocab_size": 32000, "intermediate_size": 14336, LOCAL: 8, "num_experts_per_tok": 2},
    aliases={"num_experts": LOCAL},
)


def _phimoe_outside(fields: Fields) -> Iterator[Weights]:
    if fields.flag("lm_head_bias"):
        yield Weights(part="biases", num_parameters=fields.number("vocab_size"), kind=HEAD)


PHIMOE = Family(
    parts=(
        attention(bias="attention_bias", kinds=all_windowed),
        Experts(count=LOCAL, size="intermediate_size", names="block_sparse_moe"),
        norms(bias=True),
    ),
    norm_bias=True,
    outside=_phimoe_outside,
    defaults={"vocab_size": 32064, LOCAL: 16, "num_experts_per_tok": 2},
    aliases={"num_experts": LOCAL},
)
QWEN2_MOE = Family(
    parts=(
        attention(bias="qkv_bias", out_bias=False, kinds=last_windowed),
        Experts(
            count="num_experts",
            shared_size="shared_expert_intermediate_size",
            has_shared_gate=True,
            sparse=by_step,
        ),
        norms(),
    ),
    defaults={
        "vocab_size": 151936,
        "intermediate_size": 5632,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "qkv_bias": True,
        "max_window_layers": 28,
    },
    aliases={LOCAL: "num_experts"},
)
QWEN3_MOE = Family(
    parts=(
        attention(bias="attention_bias", qk_norm="head", kinds=last_windowed),
        Experts(count="num_experts", sparse=by_step),
        norms(),
    ),
    defaults={
        "vocab_size": 151936,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
    },
    aliases={LOCAL: "num_experts"},
)
GPT_OSS = Family(
    parts=(
        attention(bias="attention_bias", kinds=every(2), sinks=True),
        Experts(count=LOCAL, size="intermediate_size", bias=True),
        norms(),
    ),
    defaults={
        "vocab_size": 201088,
        "intermediate_size": 2880,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
        LOCAL: 128,
        "num_experts_per_tok": 4,
        "attention_bias": True,
    },
    aliases={"num_experts": LOCAL, "experts_per_token": "num_experts_per_tok"},
)
GRANITEMOE = Family(
    parts=(
        attention(bias="attention_bias"),
        Experts(
            count=LOCAL, size="intermediate_size", shared_size="shared_intermediate_size", names="block_sparse_moe"
        ),
        norms(),
    ),
    defaults={"vocab_size": 32000, "intermediate_size": 11008, LOCAL: 8, "num_experts_per_tok": 2},
    aliases={"num_experts": LOCAL},
)
OLMOE = Family(
    parts=(
        attention(bias="attention_bias", qk_norm="width"),
        Experts(count="num_experts", size="intermediate_size"),
        norms(),
    ),
    defaults={"vocab_size": 50304, "intermediate_size": 2048, "num_experts": 64, "num_experts_per_tok": 8},
    aliases={LOCAL: "num_experts"},
)
GLM4_MOE = Family(
    parts=(
        attention(bias="attention_bias", out_bias=False, qk_norm="head", has_qk_norm="use_qk_norm"),
        Experts(count=ROUTED, shared="n_shared_experts", has_correction=True, sparse=after_first()),
        norms(),
    ),
    defaults={
        "vocab_size": 151552,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_key_value_heads": 8,
        ROUTED: 128,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 1,
    },
    aliases={LOCAL: ROUTED},
)
DEEPSEEK = Family(
    parts=(
        attention(bias="attention_bias"),
        Experts(count=ROUTED, shared="n_shared_experts", sparse=after_first()),
        norms(),
    ),
    aliases={LOCAL: ROUTED},
)
DOTS1 = Family(
    parts=(attention(bias="attention_bias", qk_norm="head", kinds=last_windowed), *GLM4_MOE.parts[1:]),
    defaults={"vocab_size": 152064, "sliding_window": 4096, "max_window_layers": 62},
    aliases={LOCAL: ROUTED},
)


def _all_attend(fields: Fields) -> Sequence[str]:
    """Every layer attends, which attn_type_list may say by a 1 each."""
    fields.listed("attn_type_list", (1,))
    return all_full(fields)


MINIMAX_M2 = Family(
    parts=(
        attention(qk_norm="width", has_qk_norm="use_qk_norm", kinds=_all_attend),
        Experts(count=LOCAL, size="intermediate_size", shared_size="shared_intermediate_size", has_correction=True),
        norms(),
    ),
    defaults={
        "vocab_size": 200064,
        "intermediate_size": 1536,
        "num_key_value_heads": 8,
        "head_dim": 128,
        LOCAL: 256,
        "num_experts_per_tok": 8,
        "use_qk_norm": True,
    },
    aliases={"num_experts": LOCAL},
)
