"""What one rank holds of a model that is laid over several."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvbench.checks import check_one_of
from kvbench.model.groups import LATENT, RECURRENT, STATE, LayerGroup
from kvbench.model.matrices import INPUTS, OUTPUTS, cut_of
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.weights import EMBEDDING, EXPERTS, HEAD, KV_HEADS, REPLICATED, Product, WeightPart

VLLM, IDEAL = "vllm", "ideal"
PADDED_ROWS = 64
"""A vocabulary is padded to a multiple of so many rows."""


def rank_of(model: Model, parallel: Parallel, divides: str = VLLM) -> Model:
    """The rank that holds most, which is a model too: fewer heads, layers and parameters.

    Args:
        model: the whole.
        parallel: how it is laid over accelerators.
        divides: "vllm": heads divide by the tensor ranks, or are refused; KV heads divide, or lie on several ranks.
            "ideal": a rank has the next whole number of each, and nothing is refused for its heads.
    Raises:
        ValueError: there are more stages than layers, or something is divided that does not divide.
    Source: vLLM 0.25, vllm/distributed/utils.py (get_pp_indices), vllm/config/model.py (get_num_kv_heads),
        vllm/model_executor/layers/vocab_parallel_embedding.py.
    Departs: a state's groups that are fewer than ranks count as divided.
    """
    check_one_of("divides", divides, (VLLM, IDEAL))
    if model.num_layers and parallel.pipeline > model.num_layers:
        raise ValueError(
            f"parallel.pipeline is at most the {model.num_layers} layers of {model.name}, got {parallel.pipeline}"
        )
    if divides == VLLM:
        for group in model.groups:
            _check_heads(model.name, group, parallel)
    _check_experts(model, parallel)
    stages = [_stage(model, parallel, number, divides) for number in range(parallel.pipeline)]
    if len(stages) == 1:
        return stages[0]
    return max(stages, key=lambda rank: rank.weights_bytes + rank.held_bytes(rank.max_tokens or 0))


def stage_layers(num_layers: int, stages: int, divides: str = VLLM) -> list[int]:
    """Layers of each pipeline stage.

    vLLM gives what is left over to the stages before the last, which has the head; ideally the first have it.
    """
    each, rest = divmod(num_layers, stages)
    counts = [each] * stages
    for number in range(rest):
        counts[number if divides == IDEAL else -2 - number] += 1
    return counts


def kv_heads_of(num_kv_heads: int, tensor: int, divides: str = VLLM) -> int:
    """KV heads of a tensor rank."""
    return max(1, num_kv_heads // tensor) if divides == VLLM else -(-num_kv_heads // tensor)


def _check_heads(name: str, group: LayerGroup, parallel: Parallel) -> None:
    tensor, kv_heads = parallel.tensor, group.num_kv_heads
    if group.num_heads % tensor:
        raise ValueError(f"parallel.tensor divides the {group.num_heads} heads of {name}, got {tensor}")
    if group.kind != LATENT and kv_heads and kv_heads % tensor and tensor % kv_heads:
        raise ValueError(
            f"parallel.tensor divides the {kv_heads} KV heads of {name}, or is a multiple of them, got {tensor}"
        )
    alike = tensor if group.kind == LATENT else max(1, tensor // (kv_heads or tensor))
    if kv_heads and alike % parallel.decode_context:
        raise ValueError(
            f"parallel.decode_context divides the {alike} tensor ranks that hold the same KV heads of {name}, got "
            f"{parallel.decode_context}"
        )
    for held in group.state:
        # A convolution's channels are made to divide, those of groups that are fewer than ranks by repeating them.
        if held.name == RECURRENT and held.rows % tensor:
            raise ValueError(f"parallel.tensor divides the {held.rows} rows of {name}'s states, got {tensor}")


def _check_experts(model: Model, parallel: Parallel) -> None:
    ranks = parallel.tensor * parallel.data
    if ranks % parallel.expert:
        raise ValueError(
            f"parallel.expert divides the ranks of a stage, tensor times data, here {ranks}, got {parallel.expert}"
        )
    experts = [part.num_experts for part in model.weights if part.kind == EXPERTS]
    if experts and parallel.expert > max(experts):
        raise ValueError(
            f"parallel.expert is at most the {max(experts)} experts of {model.name}, got {parallel.expert}"
        )


def _stage(model: Model, parallel: Parallel, number: int, divides: str) -> Model:
    """A rank of a pipeline stage; its layers count from 0."""
    counts = stage_layers(model.num_layers, parallel.pipeline, divides)
    first = sum(counts[:number])
    here = range(first, first + counts[number])
    is_first, is_last = number == 0, number == parallel.pipeline - 1
    groups = [held for group in model.groups if (held := _group(group, here, parallel, divides)) is not None]
    parts = [part for part in model.weights if part.layers or (is_first if part.kind == EMBEDDING else is_last)]
    if is_last and not is_first:
        parts += _tied(model.weights)
    if not is_last:  # of which the first stage looks up rows only
        parts = [replace(part, products=()) if part.kind == EMBEDDING else part for part in parts]
    weights = [own for part in parts if (own := _part(model, part, here, parallel, divides)) is not None]
    return replace(
        model,
        groups=tuple(groups),
        weights=tuple(weights),
        num_layers=len(here),
        intermediate_size=-(-model.intermediate_size // parallel.tensor),
    )


def _tied(weights: Sequence[WeightPart]) -> list[WeightPart]:
    """What the last stage needs of the embedding where it is the head too: the largest of its parts."""
    rows = [part for part in weights if part.kind == EMBEDDING]
    if not rows or any(part.kind == HEAD for part in weights):
        return []
    return [max(rows, key=lambda part: part.num_parameters)]


def _numbers(layers: tuple[int, ...], here: range) -> tuple[int, ...]:
    if here.start == 0 and (not layers or layers[-1] < here.stop):
        return layers
    return tuple(layer - here.start for layer in layers if layer in here)


def _group(group: LayerGroup, here: range, parallel: Parallel, divides: str) -> LayerGroup | None:
    layers = _numbers(group.layers, here)
    if not layers:
        return None
    if group.kind == STATE:
        state = tuple(replace(each, rows=-(-each.rows // parallel.tensor)) for each in group.state)
        return replace(group, layers=layers, state=state)
    if not group.num_kv_heads:
        return replace(group, layers=layers)
    kv_heads = 1 if group.kind == LATENT else kv_heads_of(group.num_kv_heads, parallel.tensor, divides)
    # A rank's queries are those of its KV heads; where several ranks hold the same, these share them.
    heads = -(-group.num_heads // max(parallel.tensor, 1))
    heads = -(-heads // kv_heads) * kv_heads
    return replace(group, layers=layers, num_heads=heads, num_kv_heads=kv_heads)


def _part(model: Model, part: WeightPart, here: range, parallel: Parallel, divides: str) -> WeightPart | None:
    layers = _numbers(part.layers, here)
    if part.layers and not layers:
        return None
    tensor, num_experts = parallel.tensor, part.num_experts
    if part.kind == EXPERTS and parallel.expert > 1:
        num_experts = -(-num_experts // parallel.expert)
        tensor = max(1, tensor // parallel.expert)
    share = _share(model, part, tensor, divides)
    return replace(
        part,
        layers=layers,
        num_parameters=share(part.num_parameters),
        products=tuple(_product(part, product, share) for product in part.products),
        num_experts=num_experts,
        num_active=min(part.num_active, num_experts),
    )


def _share(model: Model, part: WeightPart, tensor: int, divides: str) -> Callable[[int], int]:
    """How many a rank has of so many of a part: of its parameters in one layer, or of a product's side."""
    rows, heads = model.vocab_size, _kv_heads(model, part) if part.split == KV_HEADS else 0
    if part.split == REPLICATED:
        return lambda count: count
    if heads:
        return lambda count: -(-count * kv_heads_of(heads, tensor, divides) // heads)
    if part.kind in (EMBEDDING, HEAD) and rows and part.num_parameters % rows == 0 and divides == VLLM:
        padded = -(-rows // PADDED_ROWS) * PADDED_ROWS
        return lambda count: count // rows * -(-padded // tensor)
    return lambda count: -(-count // tensor)


def _product(part: WeightPart, product: Product, share: Callable[[int], int]) -> Product:
    cut = cut_of(part, product)
    if cut == INPUTS:
        return product._replace(inputs=share(product.inputs))
    return product._replace(outputs=share(product.outputs)) if cut == OUTPUTS else product


def _kv_heads(model: Model, part: WeightPart) -> int:
    """KV heads of the layers that have a part; 0 where they hold none."""
    found = (group.num_kv_heads for group in model.groups if set(group.layers) & set(part.layers))
    return next(found, 0)
