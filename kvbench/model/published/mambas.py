"""Jamba, Bamba, Granite 4 and MiniMax: Mamba's or lightning attention's layers between those that attend."""

from collections.abc import Iterator, Sequence

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, dense, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.hybrids import listed_kinds
from kvbench.model.published.mamba import Mamba2, mamba1
from kvbench.model.published.pieces import AlikeLayers
from kvbench.model.published.states import lightning, state
from kvbench.model.published.windows import FULL_ATTENTION, LINEAR


def _jamba_kinds(fields: Fields) -> Sequence[str]:
    period, offset = fields.number("attn_layer_period", 8), fields.number("attn_layer_offset", 4, least=0)
    if offset >= period:
        raise fields.refused("attn_layer_offset", f"less than attn_layer_period ({period})", offset)
    return [FULL_ATTENTION if layer % period == offset else LINEAR for layer in fields.layers]


def _jamba_sparse(fields: Fields) -> Sequence[bool]:
    period, offset = fields.number("expert_layer_period", 2), fields.number("expert_layer_offset", 1, least=0)
    has_several = fields.number("num_experts") > 1
    return [has_several and layer % period == offset for layer in fields.layers]


JAMBA = Family(
    parts=(
        attention(kinds=_jamba_kinds),
        state(mamba1, _jamba_kinds),
        Experts(count="num_experts", size="intermediate_size", sparse=_jamba_sparse, names="feed_forward"),
        norms(),
    ),
    defaults={
        "vocab_size": 65536,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_conv_bias": True,
    },
    aliases={"num_local_experts": "num_experts"},
)
MAMBA2_DEFAULTS = {
    "mamba_n_heads": 128,
    "mamba_d_head": "auto",
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}


def _bamba_kinds(fields: Fields) -> Sequence[str]:
    given = listed_kinds(fields, "layers_block_type") or listed_kinds(fields, "layer_types")
    attends = fields.value("attn_layer_indices", [])
    if not isinstance(attends, list) or any(type(layer) is not int for layer in attends):
        raise fields.refused("attn_layer_indices", "a list of layers' numbers", attends)
    return given or [FULL_ATTENTION if layer in attends else LINEAR for layer in fields.layers]


BAMBA = Family(
    parts=(
        attention(bias="attention_bias", kinds=_bamba_kinds),
        state(Mamba2(), _bamba_kinds),
        dense(bias="mlp_bias"),
        norms(),
    ),
    defaults={
        **MAMBA2_DEFAULTS,
        "vocab_size": 128000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
    },
)


def _granite_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    """A dense part that every token takes, and experts beside it where there are any."""
    width, hidden = fields.number("shared_intermediate_size"), fields.hidden
    count = fields.number("num_local_experts", 0, least=0)
    for key in ("intermediate_size", "num_experts_per_tok"):
        fields.value(key)  # of experts, which there may be none of
    blocks = list(dense_blocks(hidden, width, names="shared_mlp", part="shared_experts" if count else "feed_forward"))
    if count:
        own = Experts(count="num_local_experts", size="intermediate_size", names="block_sparse_moe")
        blocks += own.blocks(fields)
        width += fields.number("num_experts_per_tok") * fields.number("intermediate_size")
    fields.wide(width)
    yield AlikeLayers(numbers=fields.layers, blocks=tuple(blocks))


GRANITE4 = Family(
    parts=(*BAMBA.parts[:2], _granite_feed_forward, norms()),
    defaults={
        **MAMBA2_DEFAULTS,
        "vocab_size": 32000,
        "intermediate_size": 11008,
        "shared_intermediate_size": 1024,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    aliases={"num_experts": "num_local_experts"},
)


def _minimax_kinds(fields: Fields) -> Sequence[str]:
    """By attn_type_list, in which 1 attends; or every second one attends."""
    given, numbers = listed_kinds(fields, "layer_types"), fields.listed("attn_type_list", (0, 1))
    if numbers is not None:
        return [FULL_ATTENTION if number else LINEAR for number in numbers]
    return given or [FULL_ATTENTION if (layer + 1) % 2 else LINEAR for layer in fields.layers]


MINIMAX = Family(
    parts=(
        attention(kinds=_minimax_kinds),
        state(lightning, _minimax_kinds),
        Experts(
            count="num_local_experts",
            size="intermediate_size",
            shared_size="shared_intermediate_size",
            names="block_sparse_moe",
        ),
        norms(),
    ),
    defaults={
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    aliases={"num_experts": "num_local_experts"},
)
