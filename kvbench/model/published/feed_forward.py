"""Feed-forward parts of layers: dense ones, and mixtures of experts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvbench.model.published.attention import Part, Switch, is_on, numbers_by_kind
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, expert, kept, matrix, vector
from kvbench.model.weights import REPLICATED

Sparse = Callable[[Fields], Sequence[bool]]
"""Which layers have experts."""


def dense(*, size: str = "intermediate_size", bias: Switch = False, is_gated: bool = True, names: str = "mlp") -> Part:
    """A feed-forward part in every layer.

    Args:
        size: the key of its width.
        bias: whether its products have one.
        is_gated: whether a gate stands beside the product up (three matrices), or none does (two).
        names: the module's path.
    """

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        width = fields.wide(fields.number(size))
        blocks = dense_blocks(fields.hidden, width, is_on(fields, bias), is_gated, names)
        yield AlikeLayers(numbers=fields.layers, blocks=tuple(blocks))

    return part


def dense_blocks(
    hidden: int, width: int, bias: bool = False, is_gated: bool = True, names: str = "mlp", part: str = "feed_forward"
) -> Iterator[Weights]:
    """The products of a dense part."""
    if is_gated:
        yield from matrix(part, f"{names}.gate_proj", hidden, width, bias=bias)
    yield from matrix(part, f"{names}.up_proj", hidden, width, bias=bias)
    yield from matrix(part, f"{names}.down_proj", width, hidden, bias=bias, bias_split=REPLICATED)


def all_sparse(fields: Fields) -> Sequence[bool]:
    """Every layer has experts."""
    return [True] * fields.num_layers


def after_first(key: str = "first_k_dense_replace") -> Sparse:
    """All but the first layers have experts (DeepSeek, GLM); a list of layers' types has the last word."""

    def sparse(fields: Fields) -> Sequence[bool]:
        first = fields.number(key, 0, least=0)
        period = fields.value("moe_layer_freq", 1)
        if isinstance(period, list):
            return [bool(here) for here in fields.listed("moe_layer_freq", (0, 1)) or ()]
        if fields.number("moe_layer_freq", 1) == 1:
            types = fields.listed("mlp_layer_types", ("dense", "sparse"))
            return [kind == "sparse" for kind in types] if types else [layer >= first for layer in fields.layers]
        return [layer >= first and layer % period == 0 for layer in fields.layers]

    return sparse


def by_step(fields: Fields) -> Sequence[bool]:
    """Each decoder_sparse_step-th layer has experts, but for those of mlp_only_layers (Qwen)."""
    step = fields.number("decoder_sparse_step", 1)
    only_dense = fields.value("mlp_only_layers", [])
    if not isinstance(only_dense, list) or any(type(layer) is not int for layer in only_dense):
        raise fields.refused("mlp_only_layers", "a list of layers' numbers", only_dense)
    return [layer not in only_dense and (layer + 1) % step == 0 for layer in fields.layers]


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts, by the keys that say how large it is.

    Args:
        count: how many there are; a configuration where it is absent has none, if the class says nothing either.
        chosen: of them a token takes.
        size: width of one.
        shared: how many more every token takes, each as wide; "" is none.
        shared_size: width of all of those together; "" is by their number.
        has_shared_gate: whether a gate weighs the shared ones.
        shared_bias: whether their products have biases.
        has_correction: whether each expert has a bias that only its choice takes.
        bias: whether experts' products have biases, and the router's.
        is_gated: whether an expert has a gate (three matrices), or none (two).
        sparse: which layers have experts.
        dense_size: width of the other layers' part.
        names: the module's path.
    """

    count: str
    chosen: str = "num_experts_per_tok"
    size: str = "moe_intermediate_size"
    shared: str = ""
    shared_size: str = ""
    has_shared_gate: bool = False
    shared_bias: Switch = False
    has_correction: bool = False
    bias: bool = False
    is_gated: bool = True
    sparse: Sparse = all_sparse
    dense_size: str = "intermediate_size"
    names: str = "mlp"

    def __call__(self, fields: Fields) -> Iterator[AlikeLayers]:
        """The part of all layers."""
        kinds = ["sparse" if here else "dense" for here in self.sparse(fields)]
        for kind, numbers in numbers_by_kind(kinds).items():
            if kind == "sparse":
                yield AlikeLayers(numbers=numbers, blocks=tuple(self.blocks(fields)))
            else:
                width = fields.wide(fields.number(self.dense_size))
                yield AlikeLayers(numbers=numbers, blocks=tuple(dense_blocks(fields.hidden, width, names=self.names)))

    def blocks(self, fields: Fields, narrow: int | None = None) -> Iterator[Weights]:
        """Router, experts and shared experts of one layer.

        Args:
            fields: what the configuration says.
            narrow: width of the hidden state that experts take; None: as everywhere.
        """
        hidden, count, width = fields.hidden, fields.number(self.count), fields.number(self.size)
        chosen = fields.number(self.chosen, most=count)
        yield kept("router", f"{self.names}.gate", hidden, count)
        if self.has_correction or self.bias:
            yield vector("biases", count)
        for name, inputs, outputs in self._products(narrow or hidden, width):
            module = f"{self.names}.experts.0.{name}"
            yield expert("experts", module, inputs * outputs, count, chosen, inputs=inputs)
        if self.bias:
            yield expert("biases", "", 2 * width + hidden, count, chosen)
        shared = self._shared_width(fields, width)
        fields.wide(chosen * width + shared)
        if shared:
            names = f"{self.names}.shared_experts"
            bias = is_on(fields, self.shared_bias)
            yield from dense_blocks(hidden, shared, bias, self.is_gated, names=names, part="shared_experts")
            if self.has_shared_gate:
                yield kept("router", f"{self.names}.shared_expert_gate", hidden, 1)

    def _products(self, hidden: int, width: int) -> Iterator[tuple[str, int, int]]:
        if self.is_gated:
            yield "gate_proj", hidden, width
        yield "up_proj", hidden, width
        yield "down_proj", width, hidden

    def _shared_width(self, fields: Fields, width: int) -> int:
        number = fields.number(self.shared, 0, least=0) if self.shared else 1
        if self.shared_size:
            return fields.number(self.shared_size, 0, least=0) * min(number, 1)
        return number * width if self.shared else 0


def norms(count: int = 2, *, bias: Switch = False) -> Part:
    """So many norms a layer, each as wide as the hidden state."""

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        width = fields.hidden * (2 if is_on(fields, bias) else 1)
        yield AlikeLayers(numbers=fields.layers, blocks=(vector("norms", count * width),))

    return part
