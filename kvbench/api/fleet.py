"""A scenario on a fleet: its requests as columns, served under each strategy from event to event."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from kvbench.api.job import Job, Stopped
from kvbench.api.progress import watched
from kvbench.api.quality import quality_columns
from kvbench.backend.modelled import machines_named
from kvbench.configuration.chosen import scenario_of, strategies_of
from kvbench.configuration.errors import refusing
from kvbench.configuration.model import geometry_of, model_of
from kvbench.configuration.parts import Config, backend_of, check_budget, check_numbers, said_budget
from kvbench.fleet.bounds import last_arrival_ns
from kvbench.fleet.fleet import SUMMARY, FleetServer
from kvbench.fleet.frames import FleetRun, fleet_frames
from kvbench.fleet.histogram import PRECISION
from kvbench.fleet.rules import check_rule
from kvbench.fleet.serving import keeps_windows
from kvbench.results.environment import environment
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace import Trace
from kvbench.workload.trace_columns import TraceColumns

REQUEST_S = 1e-4
"""That simulating a request takes, about."""
COMPILED_FIRST = "{} (compiled first, for minutes, where it never ran)"
"""What is shown before anything was served."""
KEPT = "strategy.{name}: blocks that windows have left are kept, as a fleet has it (window_blocks: null is keep here)"
"""Of a strategy that gives them back elsewhere."""
IN_POOL = "strategy.{name}: states lie in blocks of its pool, so that up to {most} are live at once on a replica"
"""Of a strategy that keeps states, where fewer are live if they lie beside the pool."""


def fleet_job(name: str, config: Config, config_text: str, asked: Config) -> Job:
    """The configured strategies on a scenario, from event to event; see `engines.job_of`.

    Raises:
        UsageError: the configuration is wrong; nothing was run.
    """
    strategies, fleet, taken, num_available, budget_bytes = fleet_parts(config, asked["overrides"])
    with refusing():
        columns = fleet.arriving(taken)
    header = header_lines(name, fleet, columns, num_available, budget_bytes)
    header += [f"assumed: {sentence}" for sentence in (*columns.notes, *model_of(config).assumed)]
    by_engine = columns.contents is not None and fleet.serving.caches_prefixes
    kept = [each for each, own in strategies.items() if keeps_windows(own, fleet.geometry, by_engine)]
    header += [KEPT.format(name=each) for each in kept]
    if fleet.serving.most_live > fleet.max_batch:
        stated = [each for each, own in strategies.items() if own.keeps_prefixes(by_engine)]
        header += [IN_POOL.format(name=each, most=fleet.serving.most_live) for each in stated]

    def run() -> Results:
        runs, stopped = _simulated(strategies, fleet, columns, budget_bytes)
        quality = quality_columns(config, {own: strategies[own] for own in runs}, columns)
        runs = {own: each._replace(facts={**each.facts, **quality[own]}) for own, each in runs.items()}
        told = [*header, f"stopped: {stopped}"] if stopped else header
        made = {"scenario": name, "seed": config["seed"], "budget_bytes": budget_bytes, **asked}
        made = environment() | fleet.describe() | made | {"header": told}
        results = replace(fleet_frames(runs, name, fleet.chosen.objective), environment=made, configuration=config_text)
        if stopped:
            raise Stopped(stopped, results)
        return results

    return Job(header, run)


class FleetParts(NamedTuple):
    """What a configuration describes, built.

    Args:
        strategies: by name.
        fleet: what serves.
        columns: the requests, at their own speed.
        num_available: how many requests the scenario has.
        budget_bytes: each replica's memory for caches.
    """

    strategies: Mapping[str, Strategy]
    fleet: FleetServer
    columns: TraceColumns
    num_available: int
    budget_bytes: int


def fleet_parts(config: Config, overrides: Sequence[str], taken: TraceColumns | None = None) -> FleetParts:
    """What is served by what, checked.

    Args:
        config: composed and resolved.
        overrides: lines KEY=VALUE of what was asked for.
        taken: the requests, where they were drawn before; None: they are drawn now.
    Raises:
        UsageError: the configuration is wrong.
        FileNotFoundError: a trace is missing.
    """
    check_numbers(config)
    strategies = strategies_of(config)
    fleet = backend_of(config, geometry_of(config))
    assert isinstance(fleet, FleetServer)
    _check_rules(strategies)
    columns, num_available = requests_of(config, overrides) if taken is None else (taken, taken.num_requests)
    budget_bytes = said_budget(config) or fleet.memory_bytes
    check_budget(budget_bytes, fleet.memory_bytes, fleet.machine.name)
    return FleetParts(strategies, fleet, columns, num_available, budget_bytes)


def _simulated(
    strategies: Mapping[str, Strategy], fleet: FleetServer, columns: TraceColumns, budget_bytes: int
) -> tuple[dict[str, FleetRun], str]:
    """What each strategy makes of the requests; and how many had their turn, where a signal ended it.

    Raises:
        KeyboardInterrupt: none had.
    """
    runs: dict[str, FleetRun] = {}
    num_requests, turns = columns.num_requests * fleet.chosen.repeats, 1 + fleet.chosen.replays
    total = num_requests * len(strategies) * turns
    try:
        with watched(total, "requests", total * REQUEST_S) as advance:
            for name, strategy in strategies.items():
                advance(name if runs else COMPILED_FIRST.format(name), 0)
                runs[name] = _served(name, strategy, fleet, columns, budget_bytes, partial(advance, name, num_requests))
                advance(name, num_requests)
    except KeyboardInterrupt:
        if not runs:
            raise
        return runs, f"{len(runs)} of {len(strategies)} strategies are done"
    return runs, ""


def _served(
    name: str,
    strategy: Strategy,
    fleet: FleetServer,
    columns: TraceColumns,
    budget_bytes: int,
    on_turn: Callable[[], object],
) -> FleetRun:
    """What one strategy makes of the requests."""
    with refusing(f"strategy.{name}: "):
        return fleet.serve(name, strategy, columns, budget_bytes, on_turn)


def _check_rules(strategies: Mapping[str, Strategy]) -> None:
    """Refuse strategies that a fleet cannot run before anything is read."""
    for name, strategy in strategies.items():
        with refusing(f"strategy.{name}: "):
            check_rule(strategy)


def requests_of(config: Config, overrides: Sequence[str]) -> tuple[TraceColumns, int]:
    """The requests that are served, and how many the scenario has. A trace is served whole unless it was cut by the
    command line: what its file says is for runs on tensors.

    Raises:
        UsageError: the scenario refuses its parameters.
        FileNotFoundError: a trace is missing.
    """
    scenario = scenario_of(config)
    asked = any(line.lstrip("+").startswith("scenario.max_requests=") for line in overrides)
    with refusing():
        columns = scenario.columns(np.random.default_rng(config["seed"]))
        most = scenario.max_requests if asked and isinstance(scenario, Trace) else None
        return columns if most is None else columns.first(most), columns.num_requests


def header_lines(
    name: str, fleet: FleetServer, columns: TraceColumns, num_available: int, budget_bytes: int
) -> list[str]:
    """What was served, on what."""
    chosen, num_run, replicas = fleet.chosen, columns.num_requests, fleet.replicas
    span_s = (last_arrival_ns(columns, chosen.repeats) - int(columns.arrivals_ns[0])) / NS_PER_S
    times = f", {chosen.repeats} times" if chosen.repeats > 1 else ""
    late = f" as known every {chosen.routing_delay_s:g} s" if chosen.routing_delay_s else ""
    machines = "1 replica" if replicas == 1 else f"{replicas} replicas, routed by {chosen.routing}{late}, each"
    group = machines_named(fleet.machine, fleet.num_accelerators // replicas)
    span = f"arriving over {span_s:,.4g} s"
    if columns.num_clients is not None:
        span = f"sent by {columns.num_clients:,} at once, each its next when its last has ended"
    kept = [f"no rows of requests are kept: {PRECISION}"] if chosen.keep == SUMMARY else []
    return [
        f"{name}: {num_run * chosen.repeats:,} requests ({num_run:,} of {num_available:,}{times}) {span}, "
        f"at most {fleet.max_batch} live at once on a replica",
        f"{fleet.geometry.about}; {machines}{' ' if replicas > 1 else ' of '}{group}",
        *([fleet.about] if fleet.about else []),
        f"budget {budget_bytes:,} bytes {'an accelerator' if fleet.about else 'a replica'}; preemption by "
        f"{chosen.preemption}; modelled, scope model, simulated by fleet{fleet.serving.about}",
        *kept,
    ]
