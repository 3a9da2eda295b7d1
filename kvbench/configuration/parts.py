"""From a composed configuration to what a run needs: scenario, strategies, backend, model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kvbench.backend.base import Backend
from kvbench.backend.choice import BackendChoice, Conditions
from kvbench.checks import MOST_SEED, check_int, size_of
from kvbench.configuration.catalogue import names
from kvbench.configuration.chosen import requests_of, strategies_of, workload_of
from kvbench.configuration.data import check_data, recording_of
from kvbench.configuration.engine import engine_of, parallel_of
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.model import geometry_of, hardware_of, model_of, weights_of
from kvbench.configuration.quality import asked_quality
from kvbench.configuration.targets import build
from kvbench.integrations.text import text_of
from kvbench.model.geometry import KVGeometry
from kvbench.runner.run import check_signals, limits_of
from kvbench.strategy.base import Strategy
from kvbench.workload.scenario import Workload

if TYPE_CHECKING:
    from kvbench.backend.inputs import Recording

Config = Mapping[str, Any]
LEAST_PROBED = 64
"""Tokens; needles have room in no fewer."""


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built.

    Args:
        workload: the requests to run.
        strategies: by name, with nothing left to the run.
        backend: where plans are carried out.
        budget_bytes: what live requests may hold together.
        max_concurrency: requests live at once.
        num_repetitions: after warm-up; one where the backend takes the same time each time.
        num_warmup: repetitions before those; none there.
    """

    workload: Workload
    strategies: Mapping[str, Strategy]
    backend: Backend
    budget_bytes: int
    max_concurrency: int
    num_repetitions: int
    num_warmup: int


def check_numbers(config: Config) -> None:
    """Check what every run and experiment has.

    Raises:
        UsageError: a number is out of its range.
    """
    for name, least, most in (
        ("repetitions", 1, None),
        ("warmup", 0, None),
        ("seed", 0, MOST_SEED),
        ("quality_tokens", LEAST_PROBED, None),
    ):
        with refusing():
            check_int(name, config.get(name), least, most)
    said_budget(config)
    engine_of(config)
    parallel_of(config)
    if not isinstance(config.get("attend"), bool):
        raise UsageError(f"attend is true or false, got {config.get('attend')!r}")
    check_data(config)
    check_quality(config)
    text = config.get("text")
    if text is not None and "text" not in (config.get("experiment") or {}):
        raise UsageError(f"text={text} is for an experiment with a real model, such as +experiment=quality")


def check_quality(config: Config) -> None:
    """Check what says whether, and on what, strategies are probed for their quality.

    Raises:
        UsageError: a value is none that is allowed.
    """
    asked, data = asked_quality(config), config.get("quality_data")
    asked.proxy_path  # noqa: B018, refuses what is none
    with refusing("quality."):
        text_of(asked.text)
    if data is not None and not isinstance(data, str):
        raise UsageError(f"quality_data is a path, or null, got {data!r}")
    if data is not None and data != config.get("data") and asked.probe is False:
        raise UsageError("quality_data names K and V to probe with, and quality=false asks for no probe")


def backend_of(config: Config, geometry: KVGeometry, recording: "Recording | None" = None) -> Backend:
    """The backend, on the configured device or for the configured hardware.

    Args:
        config: the configuration.
        geometry: the model's.
        recording: what steps append; None for what the backend makes itself.
    Raises:
        UsageError: no such device, or a parameter is wrong.
    """
    chosen = config["backend"]
    if isinstance(chosen, Mapping):
        chosen = build(chosen, "backend", "backend", config["trusted"])
    if not isinstance(chosen, BackendChoice):
        raise UsageError(f"backend: it is no backend but a {type(chosen).__name__}; name one, such as backend=modelled")
    conditions = Conditions(
        geometry=geometry,
        hardware=hardware_of(config),
        weights=weights_of(config),
        model=model_of(config),
        parallel=parallel_of(config),
        engine=engine_of(config),
        recording=recording,
        **{name: config[name] for name in ("device", "attend", "cache_only", "seed")},
    )
    with refusing("backend: "):
        return cast(Backend, chosen.made(conditions))


def parts_of(config: Config) -> Parts:
    """Build all that a run of a scenario needs.

    Raises:
        UsageError: what is wrong with the configuration.
    """
    check_numbers(config)
    strategies = strategies_of(config)
    geometry = geometry_of(config)
    backend = backend_of(config, geometry) if config.get("data") is None else None
    by_engine = backend is not None and backend.caches_prefixes
    keeps_prefixes = any(strategy.keeps_prefixes(by_engine) for strategy in strategies.values())
    scenario, workload = requests_of(config) if keeps_prefixes else workload_of(config)
    backend = backend or backend_of(config, geometry, recording_of(config, geometry, workload.sessions))
    with refusing():
        check_signals(strategies, backend)
    budget_bytes, max_concurrency = budget_of(config, backend), scenario.max_concurrency
    limits, fitted = limits_of(workload.sessions, backend, max_concurrency, budget_bytes), {}
    for name, strategy in strategies.items():
        with refusing(f"strategy.{name}: "):
            fitted[name] = strategy.fitted_to_serve(limits)
            fitted[name].ledger(backend.geometry, num_rows=backend.num_rows)
    return Parts(workload, fitted, backend, budget_bytes, max_concurrency, *repetitions_of(config, backend))


def repetitions_of(config: Config, backend: Backend) -> tuple[int, int]:
    """Repetitions and those of warm-up: as configured, or one and none where each takes the same time."""
    return (1, 0) if backend.is_repeatable else (config["repetitions"], config["warmup"])


def budget_of(config: Config, backend: Backend) -> int:
    """What live requests may hold together: as configured, or the backend's own limit.

    Raises:
        UsageError: more is asked for than the modelled machine has.
    """
    budget_bytes = said_budget(config)
    if budget_bytes is None:
        return backend.memory_bytes()
    if backend.hardware is not None:
        check_budget(budget_bytes, backend.memory_bytes(), backend.hardware.name)
    return budget_bytes


def said_budget(config: Config) -> int | None:
    """What live requests may hold together, as configured; None: that is left to the backend.

    Raises:
        UsageError: it is no size.
    """
    value = config.get("budget_bytes")
    with refusing():
        return None if value is None else size_of("budget_bytes", value, 1)


def check_budget(budget_bytes: int, memory_bytes: int, machine: str) -> None:
    """Refuse a budget that a modelled machine does not have.

    Raises:
        UsageError: it is more.
    """
    if budget_bytes > memory_bytes:
        raise UsageError(
            f"budget_bytes is at most the {memory_bytes:,} that {machine} has for caches (backend.memory_fraction of "
            f"its memory, less the weights), got {budget_bytes:,}"
        )


def added_nodes(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Strategies that the user added to a run (+strategy.NAME), by name: none of kvbench's files.

    Args:
        config: composed and resolved.
    """
    shipped = names("strategy")
    return {
        str(name): node
        for name, node in (config.get("strategy") or {}).items()
        if name not in shipped or str(node.get("_target_")).partition(".")[0] in config["trusted"]
    }
