"""How many tokens, and how many users, fit: from a configuration to the answer."""

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvbench.api.fit import Context, Fit
from kvbench.configuration.chosen import strategies_of, workload_of
from kvbench.configuration.composed import composed
from kvbench.configuration.engine import engine_of, parallel_of
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.model import accelerator_of, model_of
from kvbench.engine.capacity import Capacity, smallest_parallel
from kvbench.engine.capacity import capacity as capacity_of
from kvbench.engine.vllm import VLLM
from kvbench.model.parallel import Parallel
from kvbench.workload.request import Session

if TYPE_CHECKING:
    from kvbench.engine.base import Engine
    from kvbench.model.accelerator import Accelerator
    from kvbench.model.model import Model
    from kvbench.strategy.base import Strategy
    from kvbench.workload.scenario import Scenario

STRATEGIES = ("static", "dynamic", "paged", "int8", "int4", "sinks")
"""Those that are told where none are named: the maximum at once, growth, blocks, few bits, and a window."""
WEIGHTS, CACHE = "model.weights_dtype", "model.kv_dtype"
NARROWER = ((WEIGHTS, "fp8"), (CACHE, "fp8_e4m3"), (WEIGHTS, "int4"))
"""Precisions that are tried, in this order, where a model does not fit."""
P95 = 95


def capacity(
    model: "str | PathLike[str] | Mapping[str, object] | Model",
    *,
    hardware: "str | PathLike[str] | Mapping[str, object] | Accelerator",
    engine: "str | Mapping[str, object] | Engine" = "vllm",
    parallel: "Mapping[str, int] | Parallel | None" = None,
    scenario: "str | PathLike[str] | Scenario | None" = None,
    strategies: "Iterable[str | Strategy] | Mapping[str, str | Strategy] | str | Strategy | None" = STRATEGIES,
    trusted: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
) -> Fit:
    """Say how many tokens, and how many requests, fit beside a model, as `python -m kvbench capacity` does.

    Args:
        model: a name, such as "llama3_8b", a published config.json, its folder, a YAML file, or its keys.
        hardware: a name, such as "h100", a YAML file, or a machine; one.
        engine: "vllm", "sglang", "trtllm" or "ideal", or one with settings.
        parallel: degrees: {"tensor": 2}; None: one accelerator.
        scenario: whose own lengths are told too; None: none.
        strategies: to be told beside the engine, or (); a mapping names them.
        trusted: packages of yours that files may name.
        settings: further keys of the command line, such as {"model.kv_dtype": "fp8_e4m3"}.
    Returns:
        What fits; `text`, `as_dict()` and `chart` show it.
    Raises:
        ValueError: the input is wrong; the message is the command line's.
        FileNotFoundError: the scenario's trace is missing.
    """
    if isinstance(hardware, list | tuple):
        raise UsageError(f"hardware is one accelerator, got {hardware!r}; of several, ask once for each")
    chosen = {"model": model, "hardware": hardware, "engine": engine, "parallel": parallel, "scenario": scenario}
    return _fit(chosen, strategies, dict(settings or {}), tuple(trusted))


def _fit(
    chosen: Mapping[str, Any], strategies: object, settings: Mapping[str, object], trusted: tuple[str, ...]
) -> Fit:
    config = composed(chosen, strategies, settings, trusted)
    hardware = accelerator_of(config)
    if hardware is None:
        raise UsageError("hardware: name an accelerator, such as hardware=h100, or a file of yours")
    model, engine, parallel = model_of(config), engine_of(config) or VLLM(), parallel_of(config)
    with refusing():
        found = capacity_of(model, hardware, engine, parallel)
    instead: tuple[str, ...] = ()
    if not found.fits:
        instead = tuple(_instead(found, engine, chosen, settings, trusted))
    return Fit(
        name=_name(chosen["hardware"], hardware),
        capacity=found,
        lengths=_lengths(config),
        strategies=strategies_of(config) if config["strategy"] else {},
        instead=instead,
    )


def _name(chosen: object, hardware: "Accelerator") -> str:
    return Path(chosen).stem if isinstance(chosen, str | PathLike) else hardware.name


def _instead(
    found: Capacity,
    engine: "Engine",
    chosen: Mapping[str, Any],
    settings: Mapping[str, object],
    trusted: tuple[str, ...],
) -> Iterator[str]:
    """Settings with which one request of max_model_len would fit: fewer tokens, more accelerators, fewer bits."""
    if found.longest_tokens:
        yield f"engine.{found.length_flag}={found.longest_tokens}"
    wider = smallest_parallel(found.model, found.hardware, engine, found.parallel)
    if wider is not None:
        yield _degrees(wider, found.parallel)
    for key, dtype in NARROWER:
        if key in settings:
            continue
        try:
            config = composed(chosen, (), {**settings, key: dtype}, trusted)
            narrower = capacity_of(model_of(config), found.hardware, engine, found.parallel)
        except ValueError:  # the engine has no such kernels there
            continue
        if narrower.fits and narrower.model != found.model:
            yield f"{key}={dtype}"


def _degrees(wider: Parallel, parallel: Parallel) -> str:
    degrees = {name: (getattr(wider, name), getattr(parallel, name)) for name in ("tensor", "pipeline")}
    return " ".join(f"parallel.{name}={new}" for name, (new, old) in degrees.items() if new != old)


def _lengths(config: Mapping[str, Any]) -> tuple[Context, ...]:
    """The mean and the 95th percentile of the tokens of a scenario's sessions."""
    scenario = config.get("scenario")
    if scenario is None or (isinstance(scenario, Mapping) and "_target_" not in scenario):
        return ()
    sessions = workload_of(config)[1].sessions
    tokens = [session.num_tokens for session in sessions]
    share = sum(_decoded(session) for session in sessions) / sum(tokens)
    shown = {"mean": round(float(np.mean(tokens))), "p95": round(float(np.percentile(tokens, P95)))}
    return tuple(
        Context(name=name, num_tokens=each, num_output_tokens=round(share * each)) for name, each in shown.items()
    )


def _decoded(session: Session) -> int:
    return session.num_tokens - session.num_prompt_tokens
