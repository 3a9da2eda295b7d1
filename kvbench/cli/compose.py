"""From a composed configuration to what a run needs: scenario, strategies, backend, model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kvbench.backend.base import Backend
from kvbench.cli.errors import UsageError
from kvbench.cli.targets import build
from kvbench.geometry import KVGeometry
from kvbench.naming import unknown
from kvbench.strategy.base import Strategy
from kvbench.workload.scenario import Scenario, Workload

Config = Mapping[str, object]


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built.

    Args:
        workload: the requests to run.
        strategies: by name.
        backend: where plans are carried out.
        budget_bytes: what live requests may hold together.
        max_concurrency: requests live at once.
    """

    workload: Workload
    strategies: Mapping[str, Strategy]
    backend: Backend
    budget_bytes: int
    max_concurrency: int


def geometry_of(config: Config) -> KVGeometry:
    """The model's geometry, in the configured dtype.

    Raises:
        UsageError: a number or a name is wrong.
    """
    model = dict(config["model"])
    if config["dtype"] is not None:
        model["dtype"] = config["dtype"]
    try:
        return KVGeometry(**model)
    except TypeError as error:
        raise UsageError(
            f"model: {unknown('parameter', str(error).split()[-1], KVGeometry.__annotations__)}"
        ) from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def workload_of(config: Config) -> tuple[Scenario, Workload]:
    """The scenario, and its requests drawn from the run's seed.

    Raises:
        UsageError: the scenario refuses its parameters, or cannot read its trace.
        FileNotFoundError: its trace is missing.
    """
    scenario = build(config["scenario"], "scenario", "scenario", config["trusted"])
    if not isinstance(scenario, Scenario):
        raise UsageError(f"scenario: _target_ is no scenario but a {type(scenario).__name__}")
    try:
        return scenario, scenario.workload(np.random.default_rng(seed_of(config)))
    except ValueError as error:
        raise UsageError(str(error)) from error


def seed_of(config: Config) -> int:
    """The run's seed.

    Raises:
        UsageError: it is no integer of 0 or more.
    """
    seed = config["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed is an integer of 0 or more, got {seed!r}")
    return seed


def strategies_of(config: Config) -> dict[str, Strategy]:
    """The chosen strategies, by name.

    Raises:
        UsageError: a strategy refuses its parameters.
    """
    strategies = {}
    for name, node in (config.get("strategy") or {}).items():
        where = f"strategy.{name}"
        if not isinstance(node, Mapping):
            raise UsageError(f"{where} is a mapping with a _target_, got {node!r}")
        strategies[str(name)] = build(node, "strategy", where, config["trusted"])
        if not isinstance(strategies[str(name)], Strategy):
            raise UsageError(f"{where}: _target_ is no strategy but a {type(strategies[str(name)]).__name__}")
    return strategies


def backend_of(config: Config, geometry: KVGeometry) -> Backend:
    """The backend, on the configured device.

    Raises:
        UsageError: no such device, or a parameter is wrong.
    """
    if not isinstance(config["attend"], bool):
        raise UsageError(f"attend is true or false, got {config['attend']!r}")
    given = {"geometry": geometry, "device": config["device"], "attend": config["attend"], "seed": seed_of(config)}
    return build(config["backend"], "backend", "backend", config["trusted"], **given)


def parts_of(config: Config) -> Parts:
    """Build all that a run of a scenario needs.

    Raises:
        UsageError: what is wrong with the configuration.
    """
    for name, least in (("repetitions", 1), ("warmup", 0), ("budget_bytes", 1)):
        value = config[name]
        optional = name == "budget_bytes" and value is None
        if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{name} is an integer of at least {least}, got {value!r}")
    strategies = strategies_of(config)
    scenario, workload = workload_of(config)
    backend = backend_of(config, geometry_of(config))
    budget_bytes = config["budget_bytes"]
    if budget_bytes is None:
        budget_bytes = backend.memory_bytes()
    return Parts(workload, strategies, backend, budget_bytes, scenario.max_concurrency)
