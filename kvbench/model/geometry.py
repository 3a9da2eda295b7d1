"""Bytes of a KV cache: the one home of byte arithmetic."""

from dataclasses import dataclass

from kvbench.checks import check_int
from kvbench.messages import unknown

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TRACK_BYTES = 4
MOST_SIZE = 2**31 - 1
"""Of a number of layers, heads or elements."""

MOST_TOKEN_BYTES = 2**40
"""Of one token over all layers; the largest models have some megabytes."""


@dataclass(frozen=True, kw_only=True)
class KVGeometry:
    """The shape of one token's K and V.

    With latent attention a layer holds one tensor: a latent that K and V of all heads are made from, and the rotary
    part of K. Attention reads it as one KV head of latent_dim elements for K, the first head_dim of them for V.

    Args:
        num_layers: layers that hold K and V, > 0.
        num_heads: query heads, a multiple of num_kv_heads.
        num_kv_heads: heads of K and V, > 0; 1 with latent attention.
        head_dim: elements of one head's K (and of its V), > 0; with latent attention those of the latent alone.
        dtype: float32, float16 or bfloat16.
        name: the model's name, for people.
        latent_dim: elements of a token in a layer's one tensor, at least head_dim; None where K and V are two.
        num_window_layers: layers with a sliding window, which hold the last tokens only; fewer than num_layers.
        window_tokens: tokens of that window, > 0; None where no layer has one.
    Raises:
        ValueError: a number is out of its range, the dtype is not one of those, or a token has more than 2^40 bytes.
    Source: latent attention, DeepSeek-V2, arXiv:2405.04434, section 2.1; sliding windows, Gemma 3, arXiv:2503.19786,
        section 2.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    name: str = ""
    latent_dim: int | None = None
    num_window_layers: int = 0
    window_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in ("num_layers", "num_heads", "num_kv_heads", "head_dim"):
            check_int(f"model.{field}", getattr(self, field), 1)
            if getattr(self, field) > MOST_SIZE:
                raise ValueError(f"model.{field} is at most {MOST_SIZE:,}, got {getattr(self, field):,}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads is a multiple of num_kv_heads, got {self.num_heads} heads on {self.num_kv_heads}"
            )
        if not isinstance(self.dtype, str) or self.dtype not in DTYPE_BYTES:
            raise ValueError(unknown("dtype", self.dtype, DTYPE_BYTES))
        if self.latent_dim is not None:
            self._check_latent()
        self._check_windows()
        if self.bytes_per_token > MOST_TOKEN_BYTES:
            raise ValueError(
                f"model: a token's K and V have at most {MOST_TOKEN_BYTES:,} bytes over all layers, got "
                f"{self.bytes_per_token:,}"
            )

    def _check_latent(self) -> None:
        check_int("model.latent_dim (head_dim or more)", self.latent_dim, self.head_dim)
        if self.num_kv_heads != 1:
            raise ValueError(f"model.num_kv_heads is 1 where latent_dim is given, got {self.num_kv_heads}")

    def _check_windows(self) -> None:
        check_int("model.num_window_layers (fewer than num_layers)", self.num_window_layers, 0, self.num_layers - 1)
        if self.num_window_layers:
            check_int("model.window_tokens, where num_window_layers is not 0,", self.window_tokens, 1)
        elif self.window_tokens is not None:
            raise ValueError(f"model.window_tokens is null where num_window_layers is 0, got {self.window_tokens!r}")

    @property
    def is_plain(self) -> bool:
        """Whether every layer holds K and V of all tokens."""
        return self.latent_dim is None and not self.num_window_layers

    @property
    def tensors_per_layer(self) -> int:
        """Tensors of a layer: K and V, or a latent."""
        return 2 if self.latent_dim is None else 1

    @property
    def num_tensors(self) -> int:
        """Tensors of a contiguous cache: those of every layer."""
        return self.tensors_per_layer * self.num_layers

    @property
    def tensor_bytes_per_token(self) -> int:
        """Bytes of one token in one of those tensors."""
        width = self.num_kv_heads * self.head_dim if self.latent_dim is None else self.latent_dim
        return width * DTYPE_BYTES[self.dtype]

    @property
    def about(self) -> str:
        """Name, layers, dtype and bytes a token, for people."""
        layers = f"{self.num_layers} layer{'s' if self.num_layers > 1 else ''}"
        return f"{self.name or 'model'}, {layers}, {self.dtype}, {self.bytes_per_token:,} bytes a token"

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers, as long as it is in every window."""
        return self.num_tensors * self.tensor_bytes_per_token

    @property
    def window_bytes_per_token(self) -> int:
        """Those of them in layers with a sliding window."""
        return self.tensors_per_layer * self.num_window_layers * self.tensor_bytes_per_token

    def cache_bytes(self, num_tokens: int) -> int:
        """Bytes of a sequence of so many tokens: layers with a sliding window hold the last ones only."""
        outside = max(num_tokens - (self.window_tokens or 0), 0)
        return num_tokens * self.bytes_per_token - outside * self.window_bytes_per_token

    @property
    def pair_flops(self) -> int:
        """Floating-point operations of one query with one key, all layers and heads: a product and a weighted sum.

        Of a latent, the query is taken to the latent's space first (that is part of the projections), so that its
        product runs over latent_dim elements and the sum over head_dim. Windows are not regarded.
        """
        elements = self.head_dim + (self.head_dim if self.latent_dim is None else self.latent_dim)
        return 2 * elements * self.num_heads * self.num_layers

    @property
    def track_bytes_per_token(self) -> int:
        """Bytes of one figure beside each slot of each layer and KV head."""
        return TRACK_BYTES * self.num_layers * self.num_kv_heads

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
                f"{bits} bits in groups of {group}: layers hold K and V of all tokens, "
                f"got {self.name or 'a model'} with latent attention or sliding windows"
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
