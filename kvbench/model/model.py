"""A model as its configuration states it: what it holds of a sequence, and its parameters."""

import math
from dataclasses import dataclass
from functools import cached_property

from kvbench.checks import check_int, check_name, check_one_of
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.groups import LayerGroup, LayerGroups
from kvbench.model.matrices import Matrix, matrices_of
from kvbench.model.weights import WeightPart


@dataclass(frozen=True, kw_only=True)
class Model(LayerGroups):
    """A model.

    Args:
        name: for people.
        groups: its layers by kind; each layer is in one group, layers that hold nothing may be in none.
        weights: its parameters, part by part; () where they are not known.
        num_layers: all of its layers, those without a cache too.
        hidden_size: width of the hidden state; 0 where it is not known.
        vocab_size: rows of the embedding; 0 where it is not known.
        intermediate_size: width of the widest feed-forward part of a token; 0 where it is not known.
        max_tokens: the longest context that it was made for; None where it is not known.
        dtype: what it computes in: float32, float16 or bfloat16.
        name_or_path: where the model itself is; None where nothing but its figures are known.
        assumed: what a reader took for granted, a sentence each.
    Raises:
        ValueError: a layer is in two groups or beyond the last, or a number is out of its range.
    """

    name: str
    groups: tuple[LayerGroup, ...]
    weights: tuple[WeightPart, ...] = ()
    num_layers: int = 0
    hidden_size: int = 0
    vocab_size: int = 0
    intermediate_size: int = 0
    max_tokens: int | None = None
    dtype: str = "bfloat16"
    name_or_path: str | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("model.name", self.name)
        check_one_of("model.dtype", self.dtype, DTYPE_BYTES)
        for field in ("num_layers", "hidden_size", "vocab_size", "intermediate_size"):
            check_int(f"model.{field}", getattr(self, field), 0)
        self._check_groups(f"model {self.name}")
        last = max((group.layers[-1] for group in self.groups), default=-1)
        if last >= self.num_layers:
            raise ValueError(f"model {self.name}: it has {self.num_layers} layers, got layer {last}")

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        return sum(part.total for part in self.weights)

    @property
    def num_active_parameters(self) -> int:
        """Those that one token needs, both embedding tables among them."""
        return sum(part.active for part in self.weights)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all parameters, with their scales."""
        return math.ceil(sum(part.num_bytes for part in self.weights))

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrix products that an iteration runs, as engines run them; () where they are not known."""
        return matrices_of(self.weights)
