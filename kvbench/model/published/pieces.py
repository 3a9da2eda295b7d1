"""What a layer is made of: matrices and vectors, by the module that holds them."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvbench.model.groups import LayerGroup
from kvbench.model.weights import BODY, COLUMNS, EXPERTS, REPLICATED, Product


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Parameters of a module.

    Args:
        part: what they are, as WeightPart's name.
        module: its path in the layer, such as "self_attn.q_proj", by which quantisation names it; "" of vectors, which
            stay as they are.
        num_parameters: of one expert where there are several.
        inputs: numbers of a token that go in, where this is a matrix to multiply by; else 0.
        is_kept: whether it stays as it is, whatever quantisation names.
        kind: as WeightPart's.
        num_experts: as WeightPart's.
        num_active: as WeightPart's.
        split: as WeightPart's.
    """

    part: str
    module: str = ""
    num_parameters: int
    inputs: int = 0
    is_kept: bool = False
    kind: str = BODY
    num_experts: int = 1
    num_active: int = 1
    split: str = COLUMNS

    @property
    def product(self) -> Product | None:
        """The matrix that it is; None of what does not multiply."""
        return Product(self.module, self.inputs, self.num_parameters // self.inputs) if self.inputs else None


@dataclass(frozen=True, kw_only=True, slots=True)
class AlikeLayers:
    """Layers that are alike in a part of what they are.

    Args:
        numbers: theirs.
        blocks: parameters of each.
        group: what they hold of a sequence; None where this part of them holds nothing.
    """

    numbers: tuple[int, ...]
    blocks: tuple[Weights, ...]
    group: LayerGroup | None = None


def matrix(
    part: str,
    module: str,
    inputs: int,
    outputs: int,
    *,
    bias: bool = False,
    split: str = COLUMNS,
    bias_split: str | None = None,
) -> Iterator[Weights]:
    """A product and, where it has one, its bias."""
    yield Weights(part=part, module=module, num_parameters=inputs * outputs, inputs=inputs, split=split)
    if bias:
        yield vector("biases", outputs, split if bias_split is None else bias_split)


def vector(part: str, num_parameters: int, split: str = REPLICATED) -> Weights:
    """A norm's, or other small ones, which no method quantises."""
    return Weights(part=part, num_parameters=num_parameters, split=split)


def kept(part: str, module: str, inputs: int, outputs: int) -> Weights:
    """A small product that no method quantises, and that lies on each rank."""
    return Weights(
        part=part, module=module, num_parameters=inputs * outputs, inputs=inputs, is_kept=True, split=REPLICATED
    )


def expert(
    part: str, module: str, num_parameters: int, num_experts: int, num_active: int, *, inputs: int = 0
) -> Weights:
    """A part of each of a layer's experts: a product of so many inputs, or a vector."""
    return Weights(
        part=part,
        module=module,
        num_parameters=num_parameters,
        inputs=inputs,
        kind=EXPERTS,
        num_experts=num_experts,
        num_active=num_active,
    )
