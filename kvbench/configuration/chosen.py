"""What a configuration chooses, built: the scenario and its requests, and the strategies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvbench.checks import MOST_SEED, check_int
from kvbench.configuration.catalogue import default_strategies
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.targets import build, target_of
from kvbench.strategy.base import Strategy
from kvbench.workload.columns import requests_by_turn
from kvbench.workload.scenario import Scenario, Workload
from kvbench.workload.trace_columns import TraceColumns


def scenario_of(config: Mapping[str, Any]) -> Scenario:
    """The scenario.

    Raises:
        UsageError: it refuses its parameters.
    """
    scenario = config.get("scenario")
    if isinstance(scenario, Mapping):
        scenario = build(scenario, "scenario", "scenario", config["trusted"])
    if not isinstance(scenario, Scenario):
        raise UsageError(f"scenario: it is no scenario but a {type(scenario).__name__}; name one, or a file")
    return scenario


def workload_of(config: Mapping[str, Any]) -> tuple[Scenario, Workload]:
    """The scenario, and its requests drawn from the run's seed.

    Raises:
        UsageError: the scenario refuses its parameters, cannot read its trace, or the seed is none.
        FileNotFoundError: its trace is missing.
    """
    scenario = scenario_of(config)
    with refusing():
        check_int("seed", config["seed"], 0, MOST_SEED)
        return scenario, scenario.workload(np.random.default_rng(config["seed"]))


def columns_of(config: Mapping[str, Any]) -> tuple[Scenario, TraceColumns, int]:
    """The scenario; what a run takes of it, as columns, drawn as in `workload_of`; and how many sessions it has.

    Raises:
        UsageError: as in `workload_of`; sessions may be more than turns after turns here.
        FileNotFoundError: its trace is missing.
    """
    scenario = scenario_of(config)
    with refusing():
        check_int("seed", config["seed"], 0, MOST_SEED)
        columns = scenario.columns(np.random.default_rng(config["seed"]))
        taken = columns if scenario.max_requests is None else columns.first_sessions(scenario.max_requests)
        available = int(columns.session_numbers.max(initial=-1)) + 1
        return scenario, taken, scenario.num_available or available


def requests_of(config: Mapping[str, Any]) -> tuple[Scenario, Workload]:
    """As `workload_of`; where requests share what they hold, each turn is a request of its own, with its whole prompt.

    Raises:
        UsageError: as in `workload_of`.
        FileNotFoundError: its trace is missing.
    """
    scenario, columns, num_available = columns_of(config)
    if columns.contents is None:
        return workload_of(config)
    return scenario, Workload(requests_by_turn(columns), num_available, columns.num_clients, columns.notes)


def strategies_of(config: Mapping[str, Any]) -> dict[str, Strategy]:
    """The chosen strategies, by name.

    Raises:
        UsageError: a strategy refuses its parameters.
    """
    strategies: dict[str, Strategy] = {}
    for name, node in (config.get("strategy") or {}).items():
        where = f"strategy.{name}"
        if isinstance(node, Strategy):
            strategies[str(name)] = node
            continue
        if not isinstance(node, Mapping):
            raise UsageError(f"{where} is a mapping with a _target_, got {node!r}")
        made = build(node, "strategy", where, config["trusted"])
        if not isinstance(made, Strategy):
            raise UsageError(f"{where}: _target_ is no strategy but a {type(made).__name__}")
        strategies[str(name)] = made
    if not strategies:
        raise UsageError("no strategy to run: name at least one, such as strategy=dynamic")
    return strategies


def is_fleet(config: Mapping[str, Any]) -> bool:
    """Whether the configured backend simulates a whole scenario by itself, without the runner."""
    return target_of(config["backend"]).startswith("kvbench.fleet.")


def compared(config: Mapping[str, Any]) -> list[str]:
    """Names of the strategies that are compared where none is chosen: a fleet has its own.

    Raises:
        UsageError: those of a fleet are no list.
    """
    if not is_fleet(config):
        return default_strategies()
    found = config["fleet_strategies"]
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise UsageError(f"fleet_strategies is a list of strategies, got {found!r}")
    return list(found)
