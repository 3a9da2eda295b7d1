"""Nemotron: layers that mix, or feed forward, one after the other; and models whose blocks were searched one by one."""

from collections.abc import Iterator, Sequence

from kvbench.model.published.attention import attention, numbers_by_kind
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.hybrids import FULL_WORDS, LINEAR_WORDS
from kvbench.model.published.mamba import Mamba2
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix
from kvbench.model.published.states import state
from kvbench.model.published.windows import FULL_ATTENTION, LINEAR
from kvbench.model.weights import REPLICATED

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
        shared_bias="mlp_bias",
        names="mixer",
    )
    narrow, bias = fields.optional("moe_latent_size"), fields.flag("mlp_bias")
    yield from own.blocks(fields, narrow)
    if narrow is not None:
        yield from matrix("feed_forward", "mixer.fc1_latent_proj", fields.hidden, narrow, bias=bias, split=REPLICATED)
        yield from matrix("feed_forward", "mixer.fc2_latent_proj", narrow, fields.hidden, bias=bias, split=REPLICATED)


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
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
    },
    listing=("layers_block_type", "hybrid_override_pattern"),
    aliases={
        "attention_head_dim": "head_dim",
        "mamba_n_groups": "n_groups",
        "mamba_d_conv": "conv_kernel",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_expand": "expand",
        "num_local_experts": "n_routed_experts",
    },
)
