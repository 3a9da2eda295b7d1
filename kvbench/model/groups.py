"""A group of layers that hold the same of a sequence: the one home of byte arithmetic."""

from dataclasses import dataclass
from fractions import Fraction

from kvbench.checks import check_int, check_one_of
from kvbench.messages import unknown
from kvbench.model.dtypes import DTYPE_BYTES, KV_BITS

FULL, WINDOW, CHUNKED, LATENT, STATE, SHARING = "full", "window", "chunked", "latent", "state", "sharing"
KINDS = (FULL, WINDOW, CHUNKED, LATENT, STATE, SHARING)
CONVOLUTION, RECURRENT = "convolution", "recurrent"
"""Names of a state's tensors."""
SCALE_BYTES = 4
"""Of a scale a token and head, where a cache has such."""
TRACK_BYTES = 4
"""Of one figure beside a slot."""
MOST_SIZE = 2**31 - 1
"""Of a number of layers, heads or elements."""
STATE_REACH = 2
"""Tokens that a layer with a state looks at, as if it had a window: the newest, and that whose state it continues."""


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor of a layer's recurrent state, of constant size a sequence.

    Args:
        name: "convolution" or "recurrent".
        rows: channels or heads, which tensor parallelism divides, > 0.
        columns: values of each: a convolution's kept inputs, or a head's state, > 0.
        dtype: of its values.
    """

    name: str
    rows: int
    columns: int
    dtype: str

    def __post_init__(self) -> None:
        for field in ("rows", "columns"):
            check_int(f"state.{field}", getattr(self, field), 1, MOST_SIZE)
        check_one_of("state.dtype", self.dtype, KV_BITS)

    @property
    def num_bytes(self) -> int:
        """Bytes a layer and sequence."""
        return _whole(self.rows * self.columns * Fraction(KV_BITS[self.dtype], 8))


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of one kind.

    Args:
        kind: "full": K and V of all tokens; "window": of the last `tokens`; "chunked": of the chunk of `tokens` that
            the newest is in; "latent": one vector a token for K and V of all heads; "state": a constant a sequence;
            "sharing": nothing, since it reads another layer's cache.
        layers: their numbers in the model, ascending, from 0.
        num_heads: query heads; 0 of states.
        num_kv_heads: heads of K and V; 1 of latents, 0 of states and of sharing layers.
        key_dim: elements of a head's K; of latents all that a token holds, the rotary part included.
        value_dim: elements of a head's V; of latents those first elements of the vector that V is made from.
        dtype: of what is held, one of KV_BITS.
        tokens: of a window or chunk, > 0; else None.
        index_bytes: a token and layer, of a sparse attention's indexer, held whatever the parallelism.
        scales_per_head: scales of float32 a token and KV head, beside K and V: 0, or 2.
        state: what a layer holds of a sequence, whatever its length.
    Raises:
        ValueError: a number is out of its range, or does not go with the kind.
    """

    kind: str
    layers: tuple[int, ...]
    num_heads: int = 0
    num_kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    dtype: str = "bfloat16"
    tokens: int | None = None
    index_bytes: int = 0
    scales_per_head: int = 0
    state: tuple[StateTensor, ...] = ()

    def __post_init__(self) -> None:
        check_one_of("group.kind", self.kind, KINDS)
        if list(self.layers) != sorted(set(self.layers)) or not self.layers or self.layers[0] < 0:
            raise ValueError(f"{self.where}: its layers are ascending numbers from 0, got {list(self.layers)}")
        for field in ("num_heads", "num_kv_heads", "key_dim", "value_dim"):
            check_int(f"{self.where}: {field}", getattr(self, field), int(self.holds_tokens), MOST_SIZE)
        check_int(f"{self.where}: index_bytes", self.index_bytes, 0, MOST_SIZE)
        if self.dtype not in KV_BITS:
            raise ValueError(f"{self.where}: {unknown('dtype', self.dtype, KV_BITS)}")
        if self.kind in (WINDOW, CHUNKED):
            check_int(f"{self.where}: tokens", self.tokens, 1, MOST_SIZE)
        elif self.tokens is not None:
            raise ValueError(f"{self.where}: tokens is of windows and chunks, got {self.tokens!r}")
        if bool(self.state) != (self.kind == STATE):
            raise ValueError(f"{self.where}: a state is what layers of kind {STATE} hold, and nothing else")
        if self.holds_tokens and self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.where}: num_heads is a multiple of num_kv_heads, got {self.num_heads} on {self.num_kv_heads}"
            )
        _ = self.token_bytes  # whole bytes, or refused

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"{len(self.layers)} {self.kind} layer{'s' if len(self.layers) > 1 else ''}"

    @property
    def num_layers(self) -> int:
        """Layers of it."""
        return len(self.layers)

    @property
    def holds_tokens(self) -> bool:
        """Whether a layer holds something for each token."""
        return self.kind not in (STATE, SHARING)

    @property
    def is_plain(self) -> bool:
        """Whether a layer holds K and V of all tokens, of one width, in a dtype that is computed in, and no more."""
        as_computed = self.dtype in DTYPE_BYTES and not self.scales_per_head
        return self.kind == FULL and as_computed and self.key_dim == self.value_dim and not self.index_bytes

    @property
    def head_dim(self) -> int:
        """Elements of one head's K, and of its V.

        Raises:
            ValueError: they are not equal.
        """
        if self.key_dim != self.value_dim:
            raise ValueError(f"{self.where}: K and V of one width, got {self.key_dim} and {self.value_dim}")
        return self.key_dim

    @property
    def heads_per_kv_head(self) -> int:
        """Query heads that read the same K and V."""
        return self.num_heads // self.num_kv_heads

    @property
    def tensors_per_layer(self) -> int:
        """Tensors of a layer: K and V, a latent, or those of a state; and the indexer's keys, where there are such."""
        if not self.holds_tokens:
            return len(self.state)
        return (1 if self.kind == LATENT else 2) + (self.index_bytes > 0)

    @property
    def num_tensors(self) -> int:
        """Those of all layers."""
        return self.tensors_per_layer * self.num_layers

    @property
    def tensor_bytes_per_token(self) -> int:
        """Bytes of one token in the largest of a layer's tensors."""
        if not self.holds_tokens:
            return 0
        width = max(self.key_dim, self.value_dim) * self.num_kv_heads
        return max(-int(-width * Fraction(KV_BITS[self.dtype], 8) // 1), self.index_bytes)

    @property
    def track_bytes_per_token(self) -> int:
        """Bytes of one figure beside each slot of each layer and KV head."""
        return TRACK_BYTES * self.num_layers * self.num_kv_heads

    @property
    def pair_flops(self) -> int:
        """Floating-point operations of one query with one key, all layers and heads: a product and a weighted sum.

        Of a latent, the query is taken to the latent's space first (that is part of the projections), so that its
        product runs over key_dim elements and the sum over value_dim. Windows and chunks are not regarded.
        """
        return 2 * (self.key_dim + self.value_dim) * self.num_heads * self.num_layers

    def packed_bytes(self, num_tokens: int, bits: int, group: int, keys_per: str) -> int:
        """Bytes of the K and V of so many tokens in few bits: codes, and a scale and a minimum a group.

        Args:
            num_tokens: a multiple of group.
            bits: 8, 4 or 2.
            group: elements a group; at most head_dim of them where it runs over a token's channels.
            keys_per: "channel": a group of keys is a channel's; "token": a token's, as those of values always are.
        Raises:
            ValueError: K and V are not held in full, or the head's size does not go into bytes or groups.
        """
        if not self.is_plain:
            raise ValueError(
                f"{bits} bits in groups of {group}: layers hold K and V of all tokens, of one width, got {self.where}"
            )
        of_token = min(group, self.head_dim)
        if self.head_dim * bits % 8 or self.head_dim % of_token:
            raise ValueError(
                f"{bits} bits in groups of {group}: head_dim is a multiple of the group and fills whole bytes, "
                f"got {self.head_dim}"
            )
        codes = 2 * num_tokens * self.head_dim * bits // 8
        token_groups = num_tokens * (self.head_dim // of_token)
        key_groups = num_tokens // group * self.head_dim if keys_per == "channel" else token_groups
        return self.num_layers * self.num_kv_heads * (codes + 2 * DTYPE_BYTES[self.dtype] * (key_groups + token_groups))

    @property
    def num_values(self) -> int:
        """Values that a layer holds of a token."""
        width = self.key_dim if self.kind == LATENT else self.key_dim + self.value_dim
        return self.num_kv_heads * width

    @property
    def layer_token_bytes(self) -> int:
        """Bytes of a token in one layer, as long as it is held."""
        if not self.holds_tokens:
            return 0
        scales = self.scales_per_head * self.num_kv_heads * SCALE_BYTES
        return _whole(self.num_values * Fraction(KV_BITS[self.dtype], 8)) + scales + self.index_bytes

    @property
    def token_bytes(self) -> int:
        """The same in all layers of the group: the marginal bytes of a token that is held."""
        return self.num_layers * self.layer_token_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of a sequence that its length does not change."""
        return self.num_layers * sum(tensor.num_bytes for tensor in self.state)

    def held_tokens(self, num_tokens: int) -> int:
        """Tokens of a sequence of so many that a layer holds: a window's or a chunk's at most."""
        if not self.holds_tokens:
            return 0
        return num_tokens if self.tokens is None else min(num_tokens, self.tokens)

    def held_bytes(self, num_tokens: int) -> int:
        """Bytes of a sequence of so many tokens."""
        return self.held_tokens(num_tokens) * self.token_bytes + self.state_bytes


class LayerGroups:
    """What is made of groups of layers: bytes are the sums of theirs."""

    groups: tuple[LayerGroup, ...]

    def _check_groups(self, called: str) -> None:
        """Refuse a layer that is in several groups.

        Raises:
            ValueError: there is one.
        """
        layers = [layer for group in self.groups for layer in group.layers]
        if len(layers) != len(set(layers)):
            twice = sorted({layer for layer in layers if layers.count(layer) > 1})
            raise ValueError(f"{called}: a layer is in one group, got {twice} in several")

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers, as long as it is in every window and chunk."""
        return sum(group.token_bytes for group in self.groups)

    @property
    def state_bytes(self) -> int:
        """Bytes of a sequence that its length does not change."""
        return sum(group.state_bytes for group in self.groups)

    def held_bytes(self, num_tokens: int) -> int:
        """Bytes of a sequence of so many tokens."""
        return sum(group.held_bytes(num_tokens) for group in self.groups)


def _whole(num_bytes: Fraction | int) -> int:
    if Fraction(num_bytes).denominator != 1:
        raise ValueError(f"a layer holds whole bytes of a token, got {float(num_bytes):g}")
    return int(num_bytes)
