"""Layers that hold a constant state of a sequence: gated delta networks and other linear attention."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kvbench.model.dtypes import SHORT
from kvbench.model.groups import STATE, LayerGroup, StateTensor
from kvbench.model.published.attention import Part, numbers_by_kind
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix, vector
from kvbench.model.published.windows import LINEAR, Kinds
from kvbench.model.weights import COLUMNS, REPLICATED

COMPUTE = ("bfloat16", "float16", "float32")
STATE_KEYS = ("mamba_ssm_dtype", "mamba_ssm_cache_dtype")
RECURRENT, CONVOLUTION = "recurrent", "convolution"


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """What a layer with a state is made of, and what it holds.

    Args:
        blocks: its parameters.
        state: rows and columns of its tensors by name.
    """

    blocks: tuple[Weights, ...]
    state: dict[str, tuple[int, int]]


def state(mixer: Callable[[Fields], Mixer], kinds: Kinds) -> Part:
    """Layers of the kind linear_attention, each with such a mixer."""

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        numbers = numbers_by_kind(kinds(fields)).get(LINEAR)
        own = mixer(fields)  # asks for its keys, though no layer be of it
        if numbers:
            dtypes = {RECURRENT: _recurrent_dtype(fields)}
            tensors = tuple(
                StateTensor(name=name, rows=rows, columns=columns, dtype=dtypes.get(name, fields.dtype))
                for name, (rows, columns) in own.state.items()
            )
            yield AlikeLayers(
                numbers=numbers, blocks=own.blocks, group=LayerGroup(kind=STATE, layers=numbers, state=tensors)
            )

    return part


def _recurrent_dtype(fields: Fields) -> str:
    """What the configuration names for it, or else what the model computes in."""
    for key in STATE_KEYS:
        if fields.value(key) is not None:
            named = fields.choice(key, (*COMPUTE, *SHORT, "auto"))
            return fields.dtype if named == "auto" else SHORT.get(named, named)
    return fields.dtype


def gated_delta(*, is_split: bool = False) -> Callable[[Fields], Mixer]:
    """A gated delta network (Qwen3-Next, Qwen3.5).

    Args:
        is_split: whether its products in are four matrices, or two.
    Source: Yang et al. 2024, arXiv:2412.06464; the shapes, transformers' Qwen3-Next.
    """

    def mixer(fields: Fields) -> Mixer:
        names, hidden = "linear_attn", fields.hidden
        key_heads, heads = fields.number("linear_num_key_heads"), fields.number("linear_num_value_heads")
        key_dim, value_dim = fields.number("linear_key_head_dim"), fields.number("linear_value_head_dim")
        kernel = fields.number("linear_conv_kernel_dim", least=2)
        if heads % key_heads:
            raise ValueError(
                f"{fields.where}: linear_num_value_heads is a multiple of linear_num_key_heads, got {heads} and "
                f"{key_heads}"
            )
        keys, values = key_heads * key_dim, heads * value_dim
        channels = 2 * keys + values
        products = (
            {"in_proj_qkv": channels, "in_proj_z": values, "in_proj_b": heads, "in_proj_a": heads}
            if is_split
            else {"in_proj_qkvz": channels + values, "in_proj_ba": 2 * heads}
        )
        blocks = [
            block
            for name, width in products.items()
            for block in matrix("linear_attention", f"{names}.{name}", hidden, width)
        ]
        blocks += [
            vector("linear_attention", channels * kernel + 2 * heads, COLUMNS),
            vector("norms", value_dim),
            *matrix("linear_attention", f"{names}.out_proj", values, hidden),
        ]
        tensors = {RECURRENT: (heads, key_dim * value_dim), CONVOLUTION: (channels, kernel - 1)}
        return Mixer(blocks=tuple(blocks), state=tensors)

    return mixer


def lightning(fields: Fields) -> Mixer:
    """Lightning attention (MiniMax): a matrix a head.

    Source: MiniMax-01, arXiv:2501.08313, section 2.2.
    """
    heads, hidden = fields.number("num_attention_heads"), fields.hidden
    head_dim = fields.number("head_dim", hidden // heads)
    width, names = heads * head_dim, "self_attn"
    blocks = (
        *matrix("linear_attention", f"{names}.qkv_proj", hidden, 3 * width),
        *matrix("linear_attention", f"{names}.output_gate", hidden, width),
        *matrix("linear_attention", f"{names}.out_proj", width, hidden),
        vector("norms", width, COLUMNS),
    )
    return Mixer(blocks=blocks, state={RECURRENT: (heads, head_dim * head_dim)})


def kimi_delta(fields: Fields) -> Mixer:
    """Kimi delta attention: a gated delta network whose gate is one a channel, of low rank.

    Source: Kimi Linear, arXiv:2510.26692, section 3.
    """
    inner = fields.value("linear_attn_config", {})
    if not isinstance(inner, Mapping):
        raise fields.refused("linear_attn_config", "a mapping", inner)
    own = Fields(inner, f"{fields.family}.linear_attn_config", {"head_dim": 128, "num_heads": 32})
    heads, head_dim = own.number("num_heads"), own.number("head_dim")
    kernel, hidden, names = own.number("short_conv_kernel_size", 4, least=2), fields.hidden, "self_attn"
    for key in ("full_attn_layers", "kda_layers"):
        own.value(key)
    own.check_all_known()
    width = heads * head_dim
    blocks = [
        *matrix("linear_attention", f"{names}.q_proj", hidden, width),
        *matrix("linear_attention", f"{names}.k_proj", hidden, width),
        *matrix("linear_attention", f"{names}.v_proj", hidden, width),
        *matrix("linear_attention", f"{names}.b_proj", hidden, heads),
        vector("linear_attention", 3 * width * kernel + width + heads, COLUMNS),
        vector("norms", head_dim),
    ]
    for gate in ("f", "g"):
        blocks += matrix("linear_attention", f"{names}.{gate}_a_proj", hidden, head_dim, split=REPLICATED)
        blocks += matrix("linear_attention", f"{names}.{gate}_b_proj", head_dim, width)
    blocks += matrix("linear_attention", f"{names}.o_proj", width, hidden)
    tensors = {RECURRENT: (heads, head_dim * head_dim), CONVOLUTION: (3 * width, kernel - 1)}
    return Mixer(blocks=tuple(blocks), state=tensors)
