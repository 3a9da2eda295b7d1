"""Bytes of a KV cache: the one home of byte arithmetic."""

from dataclasses import dataclass

from kvbench.naming import unknown

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TRACK_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class KVGeometry:
    """The shape of one token's K and V.

    Args:
        num_layers: layers that hold K and V, > 0.
        num_heads: query heads, a multiple of num_kv_heads.
        num_kv_heads: heads of K and V, > 0.
        head_dim: elements of one head's K (and of its V), > 0.
        dtype: float32, float16 or bfloat16.
        name: the model's name, for people.
    Raises:
        ValueError: a number is out of its range, or the dtype is not one of those.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("num_layers", "num_heads", "num_kv_heads", "head_dim"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"model.{field} is a positive integer, got {value!r}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads is a multiple of num_kv_heads, got {self.num_heads} heads on {self.num_kv_heads}"
            )
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(unknown("dtype", self.dtype, DTYPE_BYTES))

    @property
    def num_tensors(self) -> int:
        """Tensors of a contiguous cache: K and V of every layer."""
        return 2 * self.num_layers

    @property
    def tensor_bytes_per_token(self) -> int:
        """Bytes of one token in one of those tensors."""
        return self.num_kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's K and V over all layers."""
        return self.num_tensors * self.tensor_bytes_per_token

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
            ValueError: the head's size does not go into bytes or groups.
        """
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
