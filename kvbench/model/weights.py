"""What a model's parameters are: parts of a kind, each by layer, so that ranks, precisions and steps can be told."""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from kvbench.checks import check_int, check_one_of
from kvbench.messages import unknown
from kvbench.model.dtypes import WEIGHT_BITS

EMBEDDING, HEAD, BODY, EXPERTS = "embedding", "head", "body", "experts"
KINDS = (EMBEDDING, HEAD, BODY, EXPERTS)
REPLICATED, COLUMNS, KV_HEADS = "replicated", "columns", "kv_heads"
SPLITS = (REPLICATED, COLUMNS, KV_HEADS)


class Product(NamedTuple):
    """A matrix that tokens are multiplied by, of one layer, or of one expert of it.

    Args:
        module: its path in the layer, such as "self_attn.q_proj".
        inputs: numbers of a token that go in.
        outputs: numbers that come out.
    """

    module: str
    inputs: int
    outputs: int


@dataclass(frozen=True, kw_only=True)
class WeightPart:
    """Parameters of one kind, the same in each of its layers.

    Args:
        name: what they are, such as "attention", "feed_forward", "router" or "norms".
        kind: "embedding": rows that tokens look up, of which a step reads those it needs; "head": the product that
            gives logits; "experts": of which a token takes some; "body": all else.
        num_parameters: of one layer, or of one expert of it; > 0.
        layers: the numbers of the layers that have it; empty outside the layers: an embedding is with the first, all
            else with the last.
        num_experts: of a layer, > 0; 1 but for experts.
        num_active: experts that a token takes, at most num_experts; 0 where these are those that it does not take.
        dtype: how they are held, one of WEIGHT_BITS.
        split: by tensor parallelism: "columns" are divided, "kv_heads" as KV heads are, "replicated" lies on each rank.
        products: those of the parameters that multiply; the others are vectors, or rows that are looked up. An
            embedding's are those of the logits, where the model has no head of its own.
    Raises:
        ValueError: a number is out of its range, or a word is none of those.
    """

    name: str
    kind: str
    num_parameters: int
    layers: tuple[int, ...] = ()
    num_experts: int = 1
    num_active: int = 1
    dtype: str = "bfloat16"
    split: str = COLUMNS
    products: tuple[Product, ...] = ()

    def __post_init__(self) -> None:
        check_one_of("weights.kind", self.kind, KINDS)
        check_one_of("weights.split", self.split, SPLITS)
        check_int(f"weights {self.name}: num_parameters", self.num_parameters, 1)
        check_int(f"weights {self.name}: num_experts", self.num_experts, 1)
        check_int(f"weights {self.name}: num_active", self.num_active, 0, self.num_experts)
        if self.dtype not in WEIGHT_BITS:
            raise ValueError(f"weights {self.name}: {unknown('dtype', self.dtype, WEIGHT_BITS)}")

    @property
    def times(self) -> int:
        """Layers that have it, or 1 outside them."""
        return len(self.layers) or 1

    @property
    def total(self) -> int:
        """Parameters in all layers, all experts."""
        return self.num_parameters * self.num_experts * self.times

    @property
    def active(self) -> int:
        """Those that one token needs."""
        return self.num_parameters * self.num_active * self.times

    @property
    def num_bytes(self) -> Fraction:
        """Bytes of all of them, with their scales."""
        return self.total * Fraction(WEIGHT_BITS[self.dtype], 8)

    @property
    def active_bytes(self) -> Fraction:
        """Bytes of those that one token needs."""
        return self.active * Fraction(WEIGHT_BITS[self.dtype], 8)
