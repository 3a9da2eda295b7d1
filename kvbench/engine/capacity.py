"""What fits: a rank's memory, the pool that an engine makes of it, and how many sequences that holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from kvbench.engine.base import Engine
from kvbench.engine.memory import RankMemory
from kvbench.engine.pool import Pool
from kvbench.engine.precision import precision_notes
from kvbench.model.accelerator import Accelerator
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.ranks import IDEAL, rank_of

CONTEXTS = tuple(2**power for power in range(10, 21))
"""Tokens of the contexts that are told: 1k to 1M."""
LENGTH_FLAGS = ("max_model_len", "context_length", "max_seq_len")
"""What engines call the longest sequence."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a model leaves of accelerators, and what fits into it.

    Args:
        model: the whole of it.
        rank: the rank that holds most.
        hardware: each accelerator.
        engine: with a value for each of its settings.
        parallel: how the model is laid over accelerators.
        memory: where a rank's goes.
        pool: what the rest becomes.
        notes: what the engine does that one might not expect, a sentence each.
    """

    model: Model
    rank: Model
    hardware: Accelerator
    engine: Engine
    parallel: Parallel
    memory: RankMemory
    pool: Pool
    notes: tuple[str, ...] = ()

    @property
    def num_blocks(self) -> int:
        """Blocks of a rank; 0 where not one sequence of a token fits."""
        return self.pool.num_blocks if self.pool.requests(1) else 0

    @property
    def num_tokens(self) -> int:
        """Tokens, as the engine's version prints them; 0 where there are no blocks."""
        return self.pool.num_tokens if self.num_blocks else 0

    @property
    def max_concurrency(self) -> float:
        """Sequences of max_model_len at once, as it prints them."""
        return self.pool.max_concurrency if self.num_blocks else 0.0

    @property
    def needed_bytes(self) -> int:
        """Bytes of a rank's cache that one sequence of max_model_len takes."""
        return self.pool.sequence_bytes(self.pool.max_model_len)

    @property
    def short_bytes(self) -> int:
        """Bytes that a rank lacks for one sequence of max_model_len, where nothing fits at all; else 0."""
        return 0 if self.num_blocks else self.needed_bytes - self.memory.available_bytes

    @property
    def fits(self) -> bool:
        """Whether one sequence of max_model_len fits, without which engines do not start."""
        return self.longest_tokens >= self.pool.max_model_len

    @cached_property
    def longest_tokens(self) -> int:
        """The longest sequence that fits alone, at most max_model_len."""
        low, high = 0, self.pool.max_model_len
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.pool.requests(middle) else (low, middle - 1)
        return low

    @property
    def length_flag(self) -> str:
        """What the engine calls the longest sequence."""
        return next(flag for flag in LENGTH_FLAGS if hasattr(self.engine, flag))

    @property
    def most_requests(self) -> int | None:
        """Requests that are live at once at most, in all replicas, whatever memory holds; None: as many as fit."""
        found = self.engine.scheduling.sequences
        return None if found is None else found * self.parallel.data

    def requests(self, num_tokens: int) -> int:
        """Sequences of so many tokens that fit at once, in all replicas."""
        return self.pool.requests(num_tokens) * self.parallel.data


def capacity(model: Model, hardware: Accelerator, engine: Engine, parallel: Parallel | None = None) -> Capacity:
    """What a model leaves of accelerators, and what an engine fits into it.

    Args:
        model: the whole of it.
        hardware: each accelerator.
        engine: its settings; what is left to it, it decides for this hardware and model.
        parallel: how the model is laid over accelerators; None: on one.
    Raises:
        ValueError: a degree does not divide, there are more ranks than accelerators, the hardware or the engine does
            not take a precision, or the model's parameters or longest context are not known.
    """
    if not model.weights:
        raise ValueError(f"model {model.name} does not say how many parameters it has, which decide what is left")
    parallel = parallel or Parallel()
    if engine.divides != IDEAL:
        _check_node(parallel, hardware)
    notes = precision_notes(engine, hardware, model)
    resolved = engine.resolved(hardware, model, parallel)
    rank = rank_of(model, parallel, divides=engine.divides)
    memory = resolved.memory(rank, hardware, parallel)
    pool = resolved.pool(rank, max(memory.available_bytes, 0), parallel)
    return Capacity(
        model=model,
        rank=rank,
        hardware=hardware,
        engine=resolved,
        parallel=parallel,
        memory=memory,
        pool=pool,
        notes=(*notes, *resolved.notes(pool)),
    )


def smallest_parallel(model: Model, hardware: Accelerator, engine: Engine, parallel: Parallel) -> Parallel | None:
    """The fewest accelerators on which one sequence of max_model_len fits; None where there is no such number.

    Tensor ranks are doubled while a node has as many accelerators, then stages; what the engine refuses is passed over.

    Args:
        model: the whole of it.
        hardware: each accelerator.
        engine: its settings, as for `capacity`.
        parallel: where the search begins.
    """
    for wider in _wider(parallel, model):
        try:
            found = capacity(model, hardware, engine, wider)
        except ValueError:
            continue
        if found.fits:
            return wider
    return None


def _wider(parallel: Parallel, model: Model) -> Iterator[Parallel]:
    """Further degrees, the fewest ranks first, and of those the fewest stages."""
    degrees = [
        (stages, tensor)
        for stages in _doubled(parallel.pipeline, model.num_layers)
        for tensor in _doubled(parallel.tensor, 64)
    ]
    for stages, tensor in sorted(degrees, key=lambda degree: (degree[0] * degree[1], degree[0]))[1:]:
        yield replace(parallel, tensor=tensor, pipeline=stages)


def _doubled(degree: int, most: int) -> Iterator[int]:
    while degree <= most:
        yield degree
        degree *= 2


def _check_node(parallel: Parallel, hardware: Accelerator) -> None:
    """Refuse more tensor ranks than a node has accelerators, where that is stated."""
    most = hardware.accelerators_per_node
    if most is not None and parallel.tensor > most:
        raise ValueError(
            f"parallel.tensor is at most the {most} accelerators of a node of {hardware.name}, got {parallel.tensor}; "
            "parallel.pipeline lays further layers on other nodes"
        )
