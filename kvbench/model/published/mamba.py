"""Mamba and Mamba-2: what their layers are made of and hold."""

from dataclasses import dataclass

from kvbench.model.published.attention import is_on
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import matrix, vector
from kvbench.model.published.states import CONVOLUTION, RECURRENT, Mixer
from kvbench.model.weights import COLUMNS, REPLICATED


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
