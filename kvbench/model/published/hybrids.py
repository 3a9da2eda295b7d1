"""Families in which layers with a state stand between layers that attend."""

from collections.abc import Iterator, Sequence

from kvbench.model.published.attention import attention, numbers_by_kind
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, by_step, dense, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix
from kvbench.model.published.states import Mamba2, gated_delta, state
from kvbench.model.published.windows import FULL_ATTENTION, LINEAR, Kinds
from kvbench.model.weights import EXPERTS, REPLICATED

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

PATTERN = {"M": LINEAR, "*": FULL_ATTENTION, "-": "mlp", "E": "moe"}


def _nemotron_kinds(fields: Fields) -> Sequence[str]:
    pattern = fields.value("hybrid_override_pattern")
    words = fields.listed("layers_block_type", (*FULL_WORDS, *LINEAR_WORDS, "mlp", "moe"))
    if pattern is None and words is None:
        raise ValueError(f"{fields.where} lacks hybrid_override_pattern, which says what each layer is")
    if words is not None:
        return [{**dict.fromkeys(LINEAR_WORDS, LINEAR), "attention": FULL_ATTENTION}.get(w, w) for w in words]
    if not isinstance(pattern, str) or len(pattern) != fields.num_layers or set(pattern) - set(PATTERN):
        raise fields.refused(
            "hybrid_override_pattern", f"{fields.num_layers} letters of {' '.join(PATTERN)}, one a layer", pattern
        )
    return [PATTERN[letter] for letter in pattern]


def _nemotron_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    """Layers that only feed forward: of two products, or of experts, which may work in a narrower space."""
    by_kind = numbers_by_kind(_nemotron_kinds(fields))
    if "mlp" in by_kind:
        width, bias = fields.wide(fields.number("intermediate_size")), fields.flag("mlp_bias")
        blocks = dense_blocks(fields.hidden, width, bias, is_gated=False, names="mixer")
        yield AlikeLayers(numbers=by_kind["mlp"], blocks=tuple(blocks))
    if "moe" in by_kind:
        yield AlikeLayers(numbers=by_kind["moe"], blocks=tuple(_nemotron_experts(fields)))


def _nemotron_experts(fields: Fields) -> Iterator[Weights]:
    own = Experts(
        count="n_routed_experts",
        shared="n_shared_experts",
        shared_size="moe_shared_expert_intermediate_size",
        has_correction=True,
        is_gated=False,
        names="mixer",
    )
    narrow = fields.optional("moe_latent_size")
    for block in own.blocks(fields):
        if narrow is None or block.kind != EXPERTS:
            yield block
        else:
            yield own.narrowed(block, fields.hidden, narrow)
    if narrow is not None:
        yield from matrix("feed_forward", "mixer.fc1_latent_proj", fields.hidden, narrow, split=REPLICATED)
        yield from matrix("feed_forward", "mixer.fc2_latent_proj", narrow, fields.hidden, split=REPLICATED)


def _nemotron_unused(fields: Fields) -> Iterator[AlikeLayers]:
    """Keys of kinds of layers that a model may not have."""
    for key in ("intermediate_size", "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "mlp_bias"):
        fields.value(key)
    for key in ("num_experts_per_tok", "moe_shared_expert_intermediate_size", "moe_latent_size", "use_bias"):
        fields.value(key)
    yield from ()


NEMOTRON_H = Family(
    parts=(
        attention(bias="attention_bias", kinds=_nemotron_kinds, names="mixer"),
        state(
            Mamba2(
                heads="mamba_num_heads",
                head_dim="mamba_head_dim",
                groups="n_groups",
                state_size="ssm_state_size",
                kernel="conv_kernel",
                expand="expand",
                conv_bias="use_conv_bias",
                names="mixer",
            ),
            _nemotron_kinds,
        ),
        _nemotron_feed_forward,
        norms(1),
        _nemotron_unused,
    ),
    defaults={
        "vocab_size": 131072,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "n_groups": 8,
        "ssm_state_size": 128,
        "conv_kernel": 4,
    },
    aliases={
        "attention_head_dim": "head_dim",
        "mamba_n_groups": "n_groups",
        "mamba_d_conv": "conv_kernel",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_expand": "expand",
        "num_local_experts": "n_routed_experts",
    },
)
