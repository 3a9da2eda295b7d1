"""K, V and queries to probe strategies with."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Needle:
    """Tokens that a later query asks for.

    Args:
        depth: where they stand, as a share of the sequence: 0 its start, 1 its end.
        start: position of the first of them.
        num_tokens: how many in a row, with the same value.
        queries: [num_layers, num_heads, head_dim], which ask for them once the sequence is whole.
    """

    depth: float
    start: int
    num_tokens: int
    queries: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """K, V and queries of one sequence.

    Args:
        keys: [num_layers, num_kv_heads, tokens, head_dim].
        values: as keys.
        queries: [num_layers, num_heads, tokens, head_dim]; neighbouring heads share a KV head.
        needles: what is asked for at the end; none in recorded data.
        about: what it is, for people.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    needles: tuple[Needle, ...]
    about: str

    @property
    def num_layers(self) -> int:
        """Layers, each probed."""
        return self.keys.shape[0]

    @property
    def num_tokens(self) -> int:
        """Tokens."""
        return self.keys.shape[2]
