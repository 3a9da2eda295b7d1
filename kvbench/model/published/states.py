"""Layers that hold a constant state of a sequence: gated delta networks, Mamba and Mamba-2, lightning attention."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvbench.model.dtypes import SHORT
from kvbench.model.groups import STATE, LayerGroup, StateTensor
from kvbench.model.published.attention import Part, is_on, numbers_by_kind
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


@dataclass(frozen=True, kw_only=True)
class Mamba2:
    """Mamba-2, by the keys that say how large it is.

    Args:
        heads: how many there are.
        head_dim: width of one; "auto" in a configuration is what expand gives.
        groups: groups of them that share inputs and outputs of the state.
        state_size: of a head's channel.
        kernel: inputs of the convolution.
        expand: how much wider than the hidden state it is.
        conv_bias: whether the convolution has a bias.
        proj_bias: whether the products have.
        names: the module's path.
    Source: Dao and Gu 2024, arXiv:2405.21060.
    """

    heads: str = "mamba_n_heads"
    head_dim: str = "mamba_d_head"
    groups: str = "mamba_n_groups"
    state_size: str = "mamba_d_state"
    kernel: str = "mamba_d_conv"
    expand: str = "mamba_expand"
    conv_bias: str = "mamba_conv_bias"
    proj_bias: str = "mamba_proj_bias"
    names: str = "mamba"

    def __call__(self, fields: Fields) -> Mixer:
        """A layer of it."""
        hidden, heads = fields.hidden, fields.number(self.heads)
        head_dim = self._head_dim(fields, heads)
        width, size = heads * head_dim, fields.number(self.state_size)
        channels = width + 2 * fields.number(self.groups) * size
        kernel, bias = fields.number(self.kernel, least=2), is_on(fields, self.proj_bias)
        conv_bias = fields.flag(self.conv_bias, True)
        into = width + channels + heads
        blocks = (
            *matrix("mamba", f"{self.names}.in_proj", hidden, into, bias=bias),
            vector("mamba", channels * (kernel + conv_bias) + 3 * heads, COLUMNS),
            vector("norms", width, COLUMNS),
            *matrix("mamba", f"{self.names}.out_proj", width, hidden, bias=bias, bias_split=REPLICATED),
        )
        return Mixer(blocks=blocks, state={RECURRENT: (heads, head_dim * size), CONVOLUTION: (channels, kernel - 1)})

    def _head_dim(self, fields: Fields, heads: int) -> int:
        expand = fields.number(self.expand, 2)
        if fields.value(self.head_dim, "auto") != "auto":
            return fields.number(self.head_dim)
        if expand * fields.hidden % heads:
            raise ValueError(
                f"{fields.where}: {self.expand} times hidden_size is a multiple of {self.heads}, got "
                f"{expand * fields.hidden} and {heads}"
            )
        return expand * fields.hidden // heads


def mamba1(fields: Fields) -> Mixer:
    """Mamba with norms within (Jamba).

    Source: Gu and Dao 2023, arXiv:2312.00752; Jamba, arXiv:2403.19887.
    """
    hidden, size = fields.hidden, fields.number("mamba_d_state")
    kernel, bias = fields.number("mamba_d_conv", least=2), fields.flag("mamba_proj_bias")
    width = fields.number("mamba_expand") * hidden
    rank = -(-hidden // 16) if fields.value("mamba_dt_rank", "auto") == "auto" else fields.number("mamba_dt_rank")
    conv_bias = fields.flag("mamba_conv_bias", True)
    blocks = (
        *matrix("mamba", "mamba.in_proj", hidden, 2 * width, bias=bias),
        *matrix("mamba", "mamba.x_proj", width, rank + 2 * size),
        *matrix("mamba", "mamba.dt_proj", rank, width, bias=True),
        vector("mamba", width * (kernel + conv_bias + size + 1), COLUMNS),
        vector("norms", rank + 2 * size),
        *matrix("mamba", "mamba.out_proj", width, hidden, bias=bias, bias_split=REPLICATED),
    )
    return Mixer(blocks=blocks, state={RECURRENT: (width, size), CONVOLUTION: (width, kernel - 1)})
