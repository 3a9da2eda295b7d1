"""Families in which layers with a state stand between layers that attend."""

from collections.abc import Sequence

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, by_step, dense, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.states import gated_delta, state
from kvbench.model.published.windows import FULL_ATTENTION, LINEAR, Kinds

LINEAR_WORDS = (LINEAR, "mamba", "recurrent")
FULL_WORDS = (FULL_ATTENTION, "attention")


def listed_kinds(fields: Fields, key: str) -> list[str] | None:
    """Kinds of layers by a list of words; None where it is not given."""
    found = fields.listed(key, (*FULL_WORDS, *LINEAR_WORDS))
    return found and [LINEAR if word in LINEAR_WORDS else FULL_ATTENTION for word in found]


def each(period: int) -> Kinds:
    """Each period-th layer attends (Qwen3-Next)."""

    def kinds(fields: Fields) -> Sequence[str]:
        length = fields.number("full_attention_interval", period)
        given = listed_kinds(fields, "layer_types")
        return given or [LINEAR if (layer + 1) % length else FULL_ATTENTION for layer in fields.layers]

    return kinds


NEXT_DEFAULTS = {
    "vocab_size": 151936,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 512,
    "num_experts_per_tok": 10,
}
NEXT_EXPERTS = Experts(
    count="num_experts", shared_size="shared_expert_intermediate_size", has_shared_gate=True, sparse=by_step
)
GATED = attention(bias="attention_bias", qk_norm="head", has_gate=True, kinds=each(4))
QWEN3_NEXT = Family(
    parts=(GATED, state(gated_delta(), each(4)), NEXT_EXPERTS, norms()),
    defaults=NEXT_DEFAULTS,
    aliases={"num_local_experts": "num_experts"},
)
QWEN3_5 = Family(
    parts=(GATED, state(gated_delta(is_split=True), each(4)), dense(), norms()),
    defaults={
        **NEXT_DEFAULTS,
        "vocab_size": 248320,
        "intermediate_size": 12288,
        "num_key_value_heads": 4,
        "mamba_ssm_dtype": "float32",
        "attn_output_gate": True,
        "mlp_only_layers": [],
    },
)
QWEN3_5_MOE = Family(
    parts=(*QWEN3_5.parts[:2], NEXT_EXPERTS, norms()),
    defaults={**QWEN3_5.defaults, "num_key_value_heads": 2, "num_experts": 256, "num_experts_per_tok": 8},
    aliases=QWEN3_NEXT.aliases,
)
