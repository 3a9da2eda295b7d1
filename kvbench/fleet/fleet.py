"""The fleet as configuration describes it: replicas of a model on an accelerator, and how they serve."""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kvbench.backend.choice import BackendChoice, Conditions
from kvbench.backend.modelled import machines_named
from kvbench.backend.rank import rank_in
from kvbench.checks import check_flag, check_int, check_number, check_share
from kvbench.fleet.bounds import MOST_BYTES, MOST_FACTOR, MOST_TOKENS, check_repeats, scaled
from kvbench.fleet.frames import FleetRun, figures_of
from kvbench.fleet.histogram import Histogram, SampleList
from kvbench.fleet.hits import HitSums
from kvbench.fleet.replays import replayed
from kvbench.fleet.result import FleetResult, Served
from kvbench.fleet.serving import MAX_BATCH, Said, in_pool, served_as
from kvbench.fleet.simulate import check_settings, simulate
from kvbench.fleet.state import OUTCOMES
from kvbench.fleet.sums import Objective, RequestSums
from kvbench.fleet.upkeep import Upkeep
from kvbench.ledger import Limits
from kvbench.ledger.costs import area_cost, held_as, workspace_bytes
from kvbench.messages import unknown
from kvbench.plan.area import Area, Blocks, Contiguous
from kvbench.results.provenance import origin
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import Paged
from kvbench.timing.doubt import MOST_DRAWS, REPLAYS
from kvbench.timing.links import Link, link_of
from kvbench.timing.prices import Prices
from kvbench.timing.pricing import prices_of
from kvbench.timing.shapes import AS_IT_IS, Factors
from kvbench.workload.trace_columns import TraceColumns

REQUESTS, SUMMARY = KEEPS = ("requests", "summary")


@dataclass(frozen=True, kw_only=True)
class Fleet(BackendChoice):
    """Serve a trace by continuous batching on replicas of a model, priced event by event, without the runner.

    Args:
        memory_fraction: share of a machine's memory that may hold weights and caches, above 0 and at most 1; None: 0.9,
            or an engine's own rules.
        max_batch: requests live at once on a replica, > 0; None: 256, or an engine's.
        prefill_chunk_tokens: prompt tokens computed in an iteration, at most, oldest request first; None: whole
            prompts, or an engine's.
        preemption: recompute, or swap: slots go to the host's memory (which is not bounded) in the iteration that takes
            them, and come back in one of their own.
        replicas: machines that each serve a share of the requests, > 0.
        routing: round_robin; least_loaded: to the replica with the fewest requests not finished at the arrival, of
            several to the next in turn; power_of_two: to the less loaded of two that are drawn; session: to where the
            session's first turn went, and that to the least loaded; or prefix: to where blocks of its prompt that are
            missing, those of who waits, each as long as this one, and those that others hold are the fewest.
        routing_seed: what power_of_two draws with.
        routing_load: what a block that others hold counts for prefix, of one that is to be computed, >= 0.
        routing_delay_s: for prefix, the router learns every so often which blocks each replica has, and goes by that
            until the next time; who waits, and what is held, it knows. 0: it sees them, >= 0.
        space: where contiguous slots lie: counting (anywhere), buddy or best_fit: an address space of the budget's
            slots, in which a resize takes its new range before it frees the old one. Others are counted.
        repeats: the trace so many times, one after another, > 0.
        rate_scale: requests arrive so many times as fast, > 0.
        ttft_objective_s: goodput counts requests whose TTFT is at most this; None for any.
        tpot_objective_s: and whose TPOT is at most this; None for any.
        split: whether slots that no token will fill are told from those that tokens to come will.
        keep: requests, a row of each; or summary: what they come to, in memory that does not grow with them.
        replays: times that the trace is served again with other times of work, for intervals; 0: there are none.
    Raises:
        ValueError: a setting is out of its range.
    """

    memory_fraction: float | None = None
    max_batch: int | None = None
    prefill_chunk_tokens: int | None = None
    preemption: str = "recompute"
    replicas: int = 1
    routing: str = "round_robin"
    routing_seed: int = 0
    routing_load: float = 1.0
    routing_delay_s: float = 0.0
    space: str = "counting"
    repeats: int = 1
    rate_scale: float = 1.0
    ttft_objective_s: float | None = 1.0
    tpot_objective_s: float | None = 0.05
    split: bool = True
    keep: str = REQUESTS
    replays: int = REPLAYS

    def __post_init__(self) -> None:
        if self.memory_fraction is not None:
            check_share("memory_fraction", self.memory_fraction)
        max_batch = MAX_BATCH if self.max_batch is None else self.max_batch
        check_settings(max_batch, self.preemption, self.replicas, self.routing, self.space, self.routing_delay_s)
        if self.prefill_chunk_tokens is not None:
            check_int("prefill_chunk_tokens", self.prefill_chunk_tokens, 1, MOST_TOKENS)
        check_int("repeats", self.repeats, 1)
        check_int("routing_seed", self.routing_seed, 0, MOST_TOKENS)
        check_int("replays", self.replays, 0, MOST_DRAWS)
        check_number("routing_load", self.routing_load, 0, MOST_FACTOR)
        for name in ("rate_scale", "ttft_objective_s", "tpot_objective_s"):
            value = getattr(self, name)
            if value is not None or name == "rate_scale":
                check_number(name, value, 0, above=True)
        check_flag("split", self.split)
        if self.keep not in KEEPS:
            raise ValueError(unknown("keep", self.keep, KEEPS))

    @property
    def objective(self) -> Objective:
        """What goodput counts."""
        return Objective(*(value or math.inf for value in (self.ttft_objective_s, self.tpot_objective_s)))

    def made(self, conditions: Conditions) -> "FleetServer":
        """See `FleetServer`."""
        return FleetServer(self, conditions)


class FleetServer:
    """A fleet of one model on machines of one kind.

    Args:
        chosen: its settings.
        conditions: the run's; a fleet takes its model and machine.
    Raises:
        ValueError: there is no machine, or it cannot hold the model.
    """

    def __init__(self, chosen: Fleet, conditions: Conditions) -> None:
        machine, rank = conditions.machine, rank_in(conditions)
        geometry, weights = rank.geometry, rank.weights
        if machine is None:
            raise ValueError("it serves on a machine: name one, such as hardware=h100")
        if machine.curves is not None and machine.kernels is None:
            raise ValueError(f"{machine.name} was calibrated for the cache alone; a fleet serves whole models")
        if weights is None:
            raise ValueError(
                f"model {geometry.name or 'without a name'} has no num_parameters: name one that has, such as "
                "model=llama3_8b"
            )
        check_int("hardware.memory_bytes", machine.memory_bytes, 1, MOST_BYTES)
        self.chosen, self.machine, self.geometry, self.weights = chosen, machine, geometry, weights
        self.replicas = chosen.replicas * conditions.parallel.data
        self.num_accelerators = self.replicas * rank.num_accelerators
        self._work, self.about, self._seed = rank.work, rank.about, conditions.seed
        said = Said(chosen.memory_fraction, chosen.max_batch, chosen.prefill_chunk_tokens)
        self.serving = served_as(said, conditions, rank, machine)
        self.max_batch = self.serving.max_batch
        self.memory_bytes = self.serving.memory_bytes

    def serving_as(self, **settings: Any) -> "FleetServer":
        """The same machines with other settings of how requests come, and of what is kept of them.

        Args:
            settings: such as rate_scale, keep, replays.
        Raises:
            ValueError: a setting is out of its range.
        """
        other = copy(self)
        other.chosen = replace(self.chosen, **settings)
        return other

    def prices(self, area: Area, factors: Factors = AS_IT_IS) -> Prices:
        """The model's prices on the machine, its K and V held as an area holds them.

        Args:
            area: the strategy's.
            factors: what each kind of work's time is multiplied by.
        """
        work = self._work._replace(geometry=held_as(area, self._work.geometry))
        return prices_of(self.machine, work, held=held_as(area, self.geometry), factors=factors)

    def arriving(self, columns: TraceColumns) -> TraceColumns:
        """The trace as fast as this fleet meets it, once of as many times as it does.

        Raises:
            ValueError: its arrivals, or its rows, are more than there is room for, or they come when others have ended
                and are to come faster.
        """
        if columns.arrival_ns is None or not columns.arrival_ns.size:
            return columns
        if columns.num_clients is not None and self.chosen.rate_scale != 1:
            raise ValueError(
                f"rate_scale={self.chosen.rate_scale:g} is of requests that arrive at their times, and these are sent "
                f"when others have ended: set the scenario's arrivals.concurrency, {columns.num_clients} now"
            )
        if self.chosen.rate_scale != 1:
            columns = replace(columns, arrival_ns=scaled(columns.arrival_ns, self.chosen.rate_scale))
        if self.chosen.repeats > 1:
            check_repeats(columns, self.chosen.repeats, has_rows=self.chosen.keep == REQUESTS)
        return columns

    def run(
        self,
        columns: TraceColumns,
        strategy: Strategy,
        budget_bytes: int,
        fold: Callable[[Served], object] | None = None,
        factors: Factors = AS_IT_IS,
    ) -> FleetResult:
        """Serve requests under a strategy.

        Args:
            columns: from `arriving`.
            strategy: what decides, from `fitted` or with nothing left to the run.
            budget_bytes: each replica's memory for caches.
            fold: as in `simulate`.
            factors: as in `prices`.
        Raises:
            ValueError: the strategy has no integer rule.
        """
        rule = strategy.integer_rule
        stays = rule is not None and rule.turns is None
        is_contiguous = stays and all(isinstance(area.layout, Contiguous) for area in strategy.areas)
        return simulate(
            columns,
            strategy,
            self.prices(strategy.areas[-1], factors),
            geometry=self.geometry,
            budget_bytes=budget_bytes + self._staging_bytes(strategy),
            max_batch=self.most_live(strategy),
            scheduling=self.serving.scheduling,
            preemption=self.chosen.preemption,
            replicas=self.replicas,
            routing=self.chosen.routing,
            routing_seed=self.chosen.routing_seed,
            routing_load=self.chosen.routing_load,
            routing_delay_s=self.chosen.routing_delay_s,
            space=self.chosen.space if is_contiguous else "counting",
            split=self.chosen.split,
            links=self._links_of(strategy),
            seed=self._seed,
            repeats=self.chosen.repeats,
            fold=fold,
        )

    def serve(
        self,
        name: str,
        strategy: Strategy,
        columns: TraceColumns,
        budget_bytes: int,
        on_turn: Callable[[], object] = lambda: None,
    ) -> FleetRun:
        """Serve requests under a strategy, for `frames.fleet_frames`, keeping what `keep` says.

        Args:
            name: the strategy's.
            strategy: what decides.
            columns: from `arriving`.
            budget_bytes: each replica's memory for caches.
            on_turn: called when the trace has been served and is to be served again.
        Raises:
            ValueError: the strategy has no integer rule, or something is left to a run that a fleet does not know.
        """
        objective = self.chosen.objective
        sums = RequestSums(OUTCOMES, objective) if self.chosen.keep == SUMMARY else None
        strategy = self.fitted(strategy, columns, budget_bytes)
        hits = HitSums(columns)

        def fold(ended: Served) -> None:
            hits.add(ended)
            if sums is not None:
                sums.add(ended)

        result = self.run(columns, strategy, budget_bytes, None if sums is None else fold)
        if sums is None:
            fold(result)
        facts = self.facts_of(name, strategy, budget_bytes)

        def again(factors: Factors, fold: Callable[[Served], object]) -> FleetResult:
            on_turn()
            return self.run(columns, strategy, budget_bytes, fold, factors)

        kept = Histogram if self.chosen.keep == SUMMARY else SampleList
        upkeep = self._upkeep
        figures = partial(figures_of, upkeep)
        replays = replayed(
            self.machine, self.chosen.replays, again, lambda: RequestSums(OUTCOMES, objective, kept), figures
        )
        return FleetRun(result, facts, sums, replays, upkeep, hits)

    def most_live(self, strategy: Strategy) -> int:
        """Requests live at once on a replica, under a strategy from `fitted`."""
        return self.serving.most_live if strategy.cuts_prompts else self.max_batch

    def _links_of(self, strategy: Strategy) -> dict[str, Link]:
        """The links of tiers below the device that keep a strategy's blocks."""
        area = strategy.areas[-1]
        if not isinstance(strategy, Paged) or not isinstance(area.layout, Blocks):
            return {}
        block_bytes = area_cost(area, self.geometry, 1).whole_bytes(area.layout.num_tokens)
        return {tier: link_of(self.machine, tier, block_bytes) for tier in strategy.tier_bytes}

    def _staging_bytes(self, strategy: Strategy) -> int:
        """What reading needs beside an engine's pool, whose kernels read blocks where they lie."""
        return 0 if self.serving.pool is None else workspace_bytes(strategy.areas, self.geometry, 1)

    @property
    def _upkeep(self) -> Upkeep:
        """What all accelerators take."""
        each = self.machine.price_per_hour, self.machine.power_w
        return Upkeep(*(None if value is None else value * self.num_accelerators for value in each))

    def facts_of(self, name: str, strategy: Strategy, budget_bytes: int) -> dict[str, object]:
        """What a strategy is on this fleet, and where its times come from, by column of the summary.

        Args:
            name: in the run.
            strategy: from `fitted`.
            budget_bytes: each replica's memory for caches.
        """
        pool_bytes = sum(strategy.ledger(self.geometry).pool_bytes.values())
        held: dict[str, object] = {
            "pool_bytes": pool_bytes * self.replicas,
            "available_bytes": budget_bytes * self.replicas,
            "num_accelerators": self.num_accelerators,
            "engine": self.serving.name,
        }
        return strategy.facts(self.geometry) | held | origin(self.machine, "model", name)

    def describe(self) -> dict[str, object]:
        """What a reader must know of the machine."""
        return {
            "device": "modelled",
            "device_name": machines_named(self.machine, self.num_accelerators // self.replicas),
            "hardware_source": self.machine.source,
            "validation": self.machine.validation,
            "replicas": self.replicas,
        }

    def fitted(self, strategy: Strategy, columns: TraceColumns, budget_bytes: int) -> Strategy:
        """The strategy as this fleet has it: a pool without a size takes all of the budget, as an engine's does,
        beside the states of as many requests as can be live, where they do not lie in it, and windows' blocks are kept
        where it does not say and keeps no prefixes.

        Raises:
            ValueError: something is left to a run that a fleet does not know.
        """
        has_blocks = any(isinstance(area.layout, Blocks) for area in strategy.areas)
        longest = int((columns.num_prompt_tokens + np.maximum(columns.num_output_tokens - 1, 0)).max(initial=1))
        serving, pool = self.serving, self.serving.pool
        known = Limits(
            geometry=self.geometry,
            budget_bytes=max(budget_bytes, 1),
            live_tokens=(longest,),
            is_modelled=True,
            keeps_windows=True,
            step_tokens=serving.scheduling.tokens,
            state_interval=0 if serving.engine is None else serving.engine.state_interval,
            window_interval=serving.window_interval,
            state_block_tokens=pool.block_tokens if pool is not None and serving.caches_prefixes else None,
            caches_prefixes=columns.contents is not None and serving.caches_prefixes,
        )
        beside_bytes = self.max_batch * self.geometry.state_bytes if has_blocks else 0
        if beside_bytes and not strategy.fitted(known).cuts_prompts:
            known = replace(known, budget_bytes=max(budget_bytes - beside_bytes, 1))
        return in_pool(strategy, serving, known).fitted_to_serve(known)
