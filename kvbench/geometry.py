"""Bytes of a KV cache: the one home of byte arithmetic."""

from dataclasses import dataclass

from kvbench.naming import unknown

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


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
