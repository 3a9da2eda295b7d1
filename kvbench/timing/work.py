"""What an iteration runs on a rank, kernel by kernel: some hang on its tokens, some on its sequences."""

from collections.abc import Iterator
from typing import NamedTuple

from kvbench.model.dtypes import DTYPE_BYTES, WEIGHT_BITS
from kvbench.model.geometry import KVGeometry
from kvbench.model.matrices import Matrix
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import ModelParameters
from kvbench.model.weights import BODY, EXPERTS, HEAD
from kvbench.timing.operands import OPERANDS
from kvbench.timing.shapes import ExpertShape

BY_TABLES = dict.fromkeys(("int4", "int4_g64", "int4_g32", "mxfp4"), "w4a16_mxfp4")
"""Weights' dtypes that tables of kernels call otherwise: four bits, which 16-bit activations are multiplied by."""
NORMS_A_LAYER = SUMS_A_LAYER = 2
NORM_VALUES, ROTARY_VALUES, GATED_VALUES, UNGATED_VALUES = 4, 2, 3, 2
"""Values that move for each: a norm reads two, sums them, and writes sum and norm; what is turned is read and written;
of a gate and what it lets pass two are read and one is written, of what has no gate one and one. What they write for a
product is as wide as that multiplies it: engines convert it there."""
LOGIT_BYTES = (6, 4)
"""Read and written of a logit by its kernels: as 32 bits, and the largest of all."""


ALONE = Parallel()


class Gemm(NamedTuple):
    """A matrix product, which so many layers have: its times, inputs, outputs, and its dtype as tables call it."""

    times: int
    inputs: int
    outputs: int
    dtype: str


class Routed(NamedTuple):
    """Experts, which so many layers have, and how many ranks send tokens to each."""

    times: int
    shape: ExpertShape
    sources: int = 1


class Moved(NamedTuple):
    """What only moves bytes, so many times: bytes of each token or sequence."""

    times: int
    num_bytes: int


class Exchanged(NamedTuple):
    """What accelerators exchange, so many times: a kind of `Kernels.exchange_s`, bytes of each token or sequence, and
    between how many."""

    kind: str
    times: int
    num_bytes: int
    ranks: int


class Row(NamedTuple):
    """Kernels whose time hangs on one number: of tokens, or of sequences."""

    products: tuple[Gemm, ...] = ()
    experts: tuple[Routed, ...] = ()
    moved: tuple[Moved, ...] = ()
    exchanged: tuple[Exchanged, ...] = ()


class Work(NamedTuple):
    """What an iteration runs on a rank; of a pipeline, on one of each stage.

    Args:
        geometry: what layers hold, and how they attend.
        tokens: kernels over all tokens; none where the cache alone is priced.
        sequences: over those that get logits, one a sequence.
        stages: layers of each stage of a pipeline; none where there is none.
    """

    geometry: KVGeometry
    tokens: Row = Row()
    sequences: Row = Row()
    stages: tuple[int, ...] = ()

    @property
    def num_stages(self) -> int:
        """Of the pipeline, or 1."""
        return max(len(self.stages), 1)

    @property
    def is_whole(self) -> bool:
        """Whether it is of a whole model, and not of the cache alone."""
        return self.tokens != Row()


def work_of(geometry: KVGeometry, passed: Model, whole: Model, parallel: Parallel = ALONE) -> Work:
    """The work of a model's rank.

    Where attention is replicated (`parallel.data`) over ranks that share experts, each sends its tokens to the experts
    and has the answers sent back; else a rank's experts see the tokens that it sees itself, and what ranks sum up after
    a layer has what the experts of all of them gave.

    Args:
        geometry: what its layers hold and see, those of all stages.
        passed: the rank with the layers of all stages.
        whole: the model itself.
        parallel: how it is laid over ranks.
    """
    hidden, width = passed.hidden_size, DTYPE_BYTES[geometry.dtype]
    routed = routed_of(passed, whole, parallel)
    body = tuple(_product(each) for each in passed.matrices if each.kind == BODY)
    head = tuple(_product(each) for each in passed.matrices if each.kind == HEAD)
    written = max((written_bytes(each.dtype, width) for each in body), default=width)
    moved = [*moved_of(geometry, passed.num_layers, hidden, written), *_activations(passed, width)]
    exchanged = [*exchanged_of(geometry, passed.num_layers, hidden, parallel)]
    if parallel.data > 1 and parallel.expert > 1:
        for each in routed:
            sent = round(each.shape.top_k * parallel.expert * hidden * width / parallel.tensor)
            exchanged.append(Exchanged("all_to_all", 2 * each.times, sent, parallel.expert))
    logits = sum(each.outputs for each in head)
    return Work(
        geometry,
        Row(body, routed, tuple(moved), tuple(exchanged)),
        Row(head, moved=tuple(Moved(1, logits * each) for each in LOGIT_BYTES), exchanged=_gathered(head, parallel)),
    )


def routed_of(passed: Model, whole: Model, parallel: Parallel) -> tuple[Routed, ...]:
    """Experts that lie on a rank, those together that a layer has: as three matrices, whichever they are."""
    num_experts = {each.name: each.num_experts for each in whole.matrices}
    num_active = {each.name: each.num_active for each in whole.matrices}
    found: dict[tuple[str, int, int, str], list[Matrix]] = {}
    for each in passed.matrices:
        if each.kind == EXPERTS and each.num_active:
            path = each.name.rpartition(".")[0]
            found.setdefault((path, each.times, each.num_experts, each.dtype), []).append(each)
    routed = []
    for (_, times, here, dtype), matrices in found.items():
        name, hidden = matrices[0].name, matrices[0].inputs
        values = sum(each.inputs * each.outputs for each in matrices)
        top_k = num_active[name] * here / num_experts[name]
        shape = ExpertShape(here, top_k, hidden, max(round(values / hidden / 3), 1), experts_as_tables(dtype))
        routed.append(Routed(times, shape, -(-parallel.expert // parallel.tensor)))
    return tuple(routed)


def _product(matrix: Matrix) -> Gemm:
    return Gemm(matrix.times, matrix.inputs, matrix.outputs, held_as_tables(matrix.dtype))


def _activations(passed: Model, width: int) -> Iterator[Moved]:
    """What lies between the products of feed-forward parts; experts' kernels do theirs."""
    for matrix in passed.matrices:
        if matrix.kind == BODY and matrix.name.endswith("up_proj"):
            gated = matrix.name.endswith("gate_up_proj")
            written = written_bytes(held_as_tables(matrix.dtype), width)
            values, outputs = (GATED_VALUES, matrix.outputs // 2) if gated else (UNGATED_VALUES, matrix.outputs)
            yield Moved(matrix.times, round(outputs * ((values - 1) * width + written)))


def _gathered(head: tuple[Gemm, ...], parallel: Parallel) -> tuple[Exchanged, ...]:
    """Logits, which each tensor rank has a part of."""
    if parallel.tensor == 1 or not head:
        return ()
    return (Exchanged("all_gather", 1, 2 * parallel.tensor * sum(each.outputs for each in head), parallel.tensor),)


def work_of_parameters(geometry: KVGeometry, weights: ModelParameters, parallel: Parallel = ALONE) -> Work:
    """The work of a model of which no more is known than how many parameters it has: each layer a gated feed-forward of
    as many, and those that a token does not need in experts of which it takes one.

    Args:
        geometry: of a rank's layers, those of all stages.
        weights: its parameters.
        parallel: how the model is laid over ranks.
    """
    hidden, num_layers = weights.hidden_size, geometry.num_layers
    held = _dtype_of(weights)
    dtype = held_as_tables(held)
    width = max(round(weights.num_active_parameters / num_layers / hidden / 3), 1)
    num_experts = round(weights.num_parameters / weights.num_active_parameters)
    value = DTYPE_BYTES[geometry.dtype]
    written = written_bytes(dtype, value)
    moved = moved_of(geometry, num_layers, hidden, value if num_experts > 1 else written)
    exchanged = exchanged_of(geometry, num_layers, hidden, parallel)
    if num_experts > 1:
        shape = ExpertShape(num_experts, 1.0, hidden, width, experts_as_tables(held))
        return Work(geometry, Row(experts=(Routed(num_layers, shape),), moved=moved, exchanged=exchanged))
    products = Gemm(num_layers, hidden, 2 * width, dtype), Gemm(num_layers, width, hidden, dtype)
    activation = Moved(num_layers, round(width * ((GATED_VALUES - 1) * value + written)))
    return Work(geometry, Row(products, moved=(*moved, activation), exchanged=exchanged))


def written_bytes(dtype: str, width: int) -> float:
    """Of a number for a product of a dtype, as tables call it, by the kernel before; else so many."""
    return min(OPERANDS[dtype].input_bytes, width)


def moved_of(geometry: KVGeometry, num_layers: int, hidden: int, written: float) -> tuple[Moved, ...]:
    """Norms, the row of the embedding, and the turning of queries and keys by their positions.

    Args:
        geometry: of the layers.
        num_layers: of them.
        hidden: width of the hidden state.
        written: bytes of a number that a layer's norms write for its products.
    """
    width = DTYPE_BYTES[geometry.dtype]
    turned = [
        Moved(group.num_layers, ROTARY_VALUES * group.key_dim * (group.num_heads + group.num_kv_heads) * width)
        for group in geometry.groups
        if group.holds_tokens
    ]
    last = Moved(1, NORM_VALUES * hidden * width)
    norms = Moved(NORMS_A_LAYER * num_layers, round(hidden * ((NORM_VALUES - 1) * width + written)))
    if norms.num_bytes == last.num_bytes:
        ends: tuple[Moved, ...] = (Moved(norms.times + 1, norms.num_bytes),)
    else:
        ends = (norms, last)
    return (*ends, Moved(1, 2 * hidden * width), *turned)


def exchanged_of(geometry: KVGeometry, num_layers: int, hidden: int, parallel: Parallel) -> tuple[Exchanged, ...]:
    """What ranks say to each other of each token: sums after attention and feed-forward of every layer, and of the
    embedding; from a stage of a pipeline to the next, its hidden state."""
    num_bytes = hidden * DTYPE_BYTES[geometry.dtype]
    found = []
    if parallel.tensor > 1:
        found.append(Exchanged("all_reduce", SUMS_A_LAYER * num_layers + 1, num_bytes, parallel.tensor))
    if parallel.pipeline > 1:
        found.append(Exchanged("send", parallel.pipeline - 1, num_bytes, 2))
    return tuple(found)


def held_as_tables(dtype: str) -> str:
    """What tables of kernels call a dtype of weights."""
    return BY_TABLES.get(dtype, dtype)


def experts_as_tables(dtype: str) -> str:
    """The same of experts: those that are published in fp8 have scales by block, and tables' kernel of one scale is a
    poor choice, which says nothing of a machine."""
    return "fp8_block" if dtype == "fp8" else held_as_tables(dtype)


def _dtype_of(weights: ModelParameters) -> str:
    """How most of the parameters are held."""
    if weights.active_by_dtype:
        return max(weights.active_by_dtype, key=lambda each: each[1])[0]
    bits = 8 * weights.bytes_per_parameter
    return min(WEIGHT_BITS, key=lambda name: (abs(WEIGHT_BITS[name] - bits), name))
