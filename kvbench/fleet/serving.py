"""How a replica serves: by the settings of a fleet, or by those of a serving engine."""

from dataclasses import replace
from typing import NamedTuple

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import memory_left
from kvbench.backend.rank import Rank
from kvbench.engine.base import Engine
from kvbench.engine.pool import Pool
from kvbench.engine.scheduling import Scheduling
from kvbench.ledger import Limits
from kvbench.ledger.costs import area_cost
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import STAGING_TOKENS
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import Paged

MEMORY_FRACTION, MAX_BATCH = 0.9, 256
"""Where neither a fleet nor an engine says otherwise."""
FLAGS = {
    "memory_fraction": ("gpu_memory_utilization", "mem_fraction_static", "free_gpu_memory_fraction"),
    "max_batch": ("max_num_seqs", "max_running_requests", "max_batch_size"),
    "prefill_chunk_tokens": ("max_num_batched_tokens", "chunked_prefill_size", "max_num_tokens"),
}
"""What engines call a fleet's settings."""
STATES_SHARE = 2
"""Of memory with blocks, states beside them take one part in so many at most: fewer requests are live where they would
take more."""


class Said(NamedTuple):
    """What a fleet's own settings say; None of each: an engine decides, or what is usual.

    Args:
        memory_fraction: share of an accelerator's memory for weights and caches.
        max_batch: requests live at once on a replica.
        prefill_chunk_tokens: prompt tokens of an iteration.
    """

    memory_fraction: float | None
    max_batch: int | None
    prefill_chunk_tokens: int | None


class Serving(NamedTuple):
    """What decides which requests are live.

    Args:
        memory_bytes: of an accelerator, for caches.
        max_batch: requests live at once on a replica.
        most_live: the same where their states lie in blocks.
        scheduling: how an iteration is filled.
        engine: whose rules these are; None: a fleet's own.
        pool: what the engine makes of that memory; None without an engine.
    """

    memory_bytes: int
    max_batch: int
    most_live: int
    scheduling: Scheduling
    engine: Engine | None = None
    pool: Pool | None = None

    @property
    def name(self) -> str:
        """The engine's name; "" without one."""
        return "" if self.engine is None else self.engine.name

    @property
    def caches_prefixes(self) -> bool:
        """Whether the engine keeps blocks for requests that begin alike."""
        return self.engine is not None and self.engine.caches_prefixes

    @property
    def window_interval(self) -> int:
        """As of `Engine`; without one, all."""
        return 1 if self.engine is None else self.engine.window_interval

    @property
    def about(self) -> str:
        """The engine's part, for people; "" without one."""
        if self.engine is None:
            return ""
        return f"; engine {self.engine.name}, {self.scheduling.about}"


def served_as(said: Said, conditions: Conditions, rank: Rank, machine: Hardware) -> Serving:
    """How a fleet's replicas serve.

    Raises:
        ValueError: nothing is left for caches, or a fleet and its engine both say the same thing.
    """
    if conditions.engine is None:
        fraction = MEMORY_FRACTION if said.memory_fraction is None else said.memory_fraction
        memory_bytes = memory_left(machine, rank.geometry, rank.weights, fraction)
        rules = Scheduling(said.prefill_chunk_tokens).of_stages(rank.work.num_stages)
        return Serving(memory_bytes, said.max_batch or MAX_BATCH, said.max_batch or MAX_BATCH, rules)
    model, parallel = rank.model, conditions.parallel
    if model is None or conditions.model is None:
        raise ValueError("an engine serves a configured model; this run has a geometry of its own")
    engine = conditions.engine.resolved(machine, conditions.model, parallel)
    _check_said_once(said, engine)
    memory_bytes = engine.memory(model, machine, parallel).available_bytes
    if memory_bytes < 1:
        raise ValueError(
            f"engine={engine.name} leaves nothing of {machine.name} for caches: weights, activations and the rest take "
            f"{-memory_bytes:,} bytes more than its share; python -m kvbench capacity says which"
        )
    rules = engine.scheduling.of_stages(rank.work.num_stages)
    max_batch = most_live = rules.most_live(MAX_BATCH)
    if model.state_bytes:
        max_batch = max(min(max_batch, memory_bytes // STATES_SHARE // model.state_bytes), 1)
    pool = engine.pool(model, memory_bytes, parallel)
    return Serving(memory_bytes, max_batch, most_live, rules, engine, pool)


def in_pool(strategy: Strategy, serving: Serving, known: Limits) -> Strategy:
    """A strategy of blocks without a pool's size, in the engine's blocks and pool; others as they are.

    Blocks of which staging buffers hold no whole number stay as they are, but where states are kept: engines make such
    where pages of states and of tokens are equal.

    Args:
        strategy: what decides.
        serving: how replicas serve.
        known: what an accelerator's layers hold, and what blocks may take, if that is less than the engine's pool.
    Raises:
        ValueError: strategy and engine both say how large a block is.
    """
    pool = serving.pool
    if pool is None or not isinstance(strategy, Paged) or strategy.pool_tokens is not None:
        return strategy
    own, block_tokens, fitted = strategy.block_size, pool.block_tokens, strategy.fitted(known)
    if isinstance(fitted, Paged) and fitted.cuts_prompts:
        block_tokens = fitted.block_size
    elif STAGING_TOKENS % block_tokens:
        block_tokens = own
    elif own not in (Paged.block_size, block_tokens):
        raise ValueError(f"block_size is {own}, and engine={serving.name} has blocks of {block_tokens}: say one")
    area = fitted.areas[0]  # where groups of layers have tables, that of those that look at all
    assert known.budget_bytes is not None
    slots = min(pool.usable_bytes, known.budget_bytes) // area_cost(area, known.geometry, 1).unit_bytes
    return replace(strategy, block_size=block_tokens, pool_tokens=max(slots // block_tokens, 1) * block_tokens)


def keeps_windows(strategy: Strategy, geometry: KVGeometry, by_engine: bool) -> bool:
    """Whether a strategy that says nothing of windows' blocks, and gives them back elsewhere, keeps them in a fleet.

    Args:
        strategy: as configured.
        geometry: of the model.
        by_engine: whether prefixes are kept where it says nothing of them; then they are not.
    """
    if not isinstance(strategy, Paged) or strategy.window_blocks is not None or strategy.keeps_prefixes(by_engine):
        return False
    (area,) = strategy.areas
    return area_cost(area, geometry, 1).frees_windows


def _check_said_once(said: Said, engine: Engine) -> None:
    for key, value in said._asdict().items():
        if value is not None:
            flags = FLAGS[key]
            own = next((f"set engine.{flag} and leave it null" for flag in flags if hasattr(engine, flag)), "")
            raise ValueError(
                f"{key}={value} says what engine={engine.name} decides: "
                f"{own or 'it has no such setting; leave it null'}"
            )
