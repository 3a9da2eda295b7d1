"""One accelerator of those that a replica is laid over: what it holds, and what a token passes."""

from typing import NamedTuple

from kvbench.backend.choice import Conditions
from kvbench.model.geometry import KVGeometry, geometry_in
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import ModelParameters, parameters_of
from kvbench.model.ranks import rank_of, stage_layers
from kvbench.timing.work import Work, work_of, work_of_parameters


class Rank(NamedTuple):
    """The accelerator of a replica that holds most.

    Args:
        geometry: what its layers hold.
        weights: its parameters; None where they are not known.
        work: what is priced: of a pipeline, that of all stages; where parameters are not known, the cache's alone.
        model: of it; None where only a geometry is known.
        num_accelerators: of the replica.
        about: what it holds of the whole, for people; "" where that is all.
    """

    geometry: KVGeometry
    weights: ModelParameters | None
    work: Work
    model: Model | None
    num_accelerators: int
    about: str = ""


def rank_in(conditions: Conditions) -> Rank:
    """The rank that a run prices.

    Raises:
        ValueError: something is divided that does not divide, or tokens are, or a run has a geometry of its own.
    """
    model, parallel, geometry = conditions.model, conditions.parallel, conditions.geometry
    if parallel == Parallel(data=parallel.data):
        return Rank(geometry, conditions.weights, _work(conditions, geometry, model), model, 1)
    if parallel.decode_context > 1:
        raise ValueError(
            "parallel.decode_context divides tokens over ranks, which no time is modelled for; got "
            f"{parallel.decode_context}"
        )
    if model is None or geometry != geometry_in(model):
        raise ValueError("parallel lays the configured model over accelerators; this run has a geometry of its own")
    divides = "vllm" if conditions.engine is None else conditions.engine.divides
    rank = rank_of(model, parallel, divides)
    whole = rank_of(model, Parallel(tensor=parallel.tensor, expert=parallel.expert, data=parallel.data), divides)
    work = _work(conditions, geometry_in(whole), whole)
    if work.is_whole and parallel.pipeline > 1:
        work = work._replace(stages=tuple(stage_layers(model.num_layers, parallel.pipeline, divides)))
    about = (
        f"an accelerator holds {rank.weights_bytes:,} of {model.weights_bytes:,} bytes of weights, "
        f"and {rank.bytes_per_token:,} of {model.bytes_per_token:,} bytes a token"
    )
    return Rank(geometry_in(rank), parameters_of(rank), work, rank, parallel.num_ranks, about)


def _work(conditions: Conditions, geometry: KVGeometry, passed: Model | None) -> Work:
    """By its products, where they are known; else by how many parameters it has."""
    if conditions.weights is None:
        return Work(geometry)
    if passed is not None and conditions.model is not None and passed.matrices:
        return work_of(geometry, passed, conditions.model, conditions.parallel)
    weights = conditions.weights if passed is None else parameters_of(passed) or conditions.weights
    return work_of_parameters(geometry, weights, conditions.parallel)
