"""The public calls: describe a scenario, run it, run an experiment, show results."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvbench.configuration.composed import composed

if TYPE_CHECKING:
    from kvbench.api.describing import Description
    from kvbench.backend.choice import BackendChoice
    from kvbench.engine.base import Engine
    from kvbench.model.geometry import KVGeometry
    from kvbench.model.hardware import Hardware
    from kvbench.model.parallel import Parallel
    from kvbench.results.results import Results
    from kvbench.strategy.base import Strategy
    from kvbench.workload.scenario import Scenario

CHOSEN = ("model", "backend", "hardware", "engine", "parallel")
"""What a sweep may be over besides settings."""


def run(
    scenario: "str | PathLike[str] | Scenario",
    strategies: "Iterable[str | Strategy] | Mapping[str, str | Strategy] | str | Strategy | None" = None,
    *,
    model: "str | Mapping[str, object] | KVGeometry | None" = None,
    backend: "str | Mapping[str, object] | BackendChoice | None" = None,
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | None" = None,
    engine: "str | Mapping[str, object] | Engine | None" = None,
    parallel: "Mapping[str, int] | Parallel | None" = None,
    trusted: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
) -> "Results":
    """Run strategies on a scenario, as `python -m kvbench +scenario=…` does; nothing is written.

    Args:
        scenario: a name, such as "chat_poisson", a YAML file, or a Scenario.
        strategies: names and strategies; a mapping names them; None: those compared by default.
        model: a name, such as "llama3_8b", a shape, or its keys; None: the article's.
        backend: "measured", "modelled" or "fleet", or one with settings, such as Modelled(memory_fraction=0.8); None:
            modelled where there is a hardware, else measured.
        hardware: a name, such as "h100", a YAML file, or a machine; None: none.
        engine: whose rules hold where one is asked: "vllm", "sglang", "trtllm" or "ideal", or one with settings, such
            as VLLM(block_size=32); None: none's.
        parallel: how the model is laid over accelerators: {"tensor": 2}, or Parallel(tensor=2); None: on one.
        trusted: packages of yours that files may name.
        settings: further keys of the command line: {"repetitions": 3, "scenario.max_requests": 20, "seed": 1}.
    Returns:
        The rows and their summary, with the columns of a results folder; `save` writes one.
    Raises:
        ValueError: the input is wrong; the message is the command line's, and nothing was run.
        FileNotFoundError: a trace is missing.
        Stopped: it was interrupted; what is done is in its `results`.
    """
    chosen: dict[str, object] = {"scenario": scenario, "model": model, "backend": backend, "hardware": hardware}
    chosen |= {"engine": engine, "parallel": parallel}
    return _run(scenario, chosen, strategies, settings, trusted)


def sweep(
    scenario: "str | PathLike[str] | Scenario",
    strategies: "Iterable[str | Strategy] | Mapping[str, str | Strategy] | str | Strategy | None" = None,
    *,
    over: Mapping[str, Sequence[object]],
    settings: Mapping[str, object] | None = None,
    **given: Any,
) -> "Results":
    """Run a scenario once a combination of values, as `python -m kvbench -m …` does, and join the rows.

    Args:
        scenario: as in `run`.
        strategies: as in `run`.
        over: values by key, or by an argument of `run` such as `model` or `hardware`:
            {"strategy.dynamic.growth_factor": [1.5, 2, 3]}.
        settings: as in `run`, the same in each.
        given: further arguments of `run`.
    Returns:
        The rows of all, with a column a key.
    Raises:
        ValueError: as `run`; and a key has no values.
        Stopped: it was interrupted; the jobs that are done, and what is of the one that was not, are in its `results`.
    """
    from kvbench.api.job import Stopped
    from kvbench.api.sweep import together

    empty = [key for key, values in over.items() if not values]
    if empty or not over:
        raise ValueError(f"over is a mapping from keys to at least one value each, got {dict(over)!r}")
    asked = {"overrides": [f"{key}={list(values)}" for key, values in over.items()]}
    points = list(product(*over.values()))
    jobs: list[Results] = []
    try:
        for values in points:
            own: dict[str, Any] = dict(zip(over, values, strict=True))
            chosen = {group: own.pop(group) for group in CHOSEN if group in own}
            jobs.append(run(scenario, strategies, settings={**(settings or {}), **own}, **given, **chosen))
    except KeyboardInterrupt as stop:
        part = [stop.results] if isinstance(stop, Stopped) else []
        if not jobs + part:
            raise
        how_far = f"{len(jobs)} of {len(points)} jobs are done{f', and of the next {stop}' if part else ''}"
        raise Stopped(how_far, together(jobs + part, list(over), asked)) from stop
    return together(jobs, list(over), asked)


def study(
    experiment: str,
    *,
    model: "str | Mapping[str, object] | KVGeometry | None" = None,
    backend: "str | Mapping[str, object] | BackendChoice | None" = None,
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | None" = None,
    settings: Mapping[str, object] | None = None,
) -> "Results":
    """Run an experiment, as `python -m kvbench +experiment=…` does; nothing is written.

    Args:
        experiment: its name, such as "claims".
        model: as in `run`.
        backend: as in `run`.
        hardware: as in `run`.
        settings: further keys of the command line, such as {"repetitions": 3, "experiment.scenarios": ["bursty"]}.
    Returns:
        Its tables, sentences and charts.
    Raises:
        ValueError: the input is wrong; nothing was run.
    """
    chosen = {"experiment": experiment, "model": model, "backend": backend, "hardware": hardware}
    return _run(experiment, chosen, None, settings, ())


def describe(
    scenario: "str | PathLike[str] | Scenario",
    *,
    trusted: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
) -> "Description":
    """Say what a scenario is, as `python -m kvbench scenarios NAME` does; nothing is run or written.

    Args:
        scenario: as in `run`.
        trusted: as in `run`.
        settings: further keys, such as {"scenario.max_requests": 20, "seed": 1}.
    Returns:
        Its `numbers`, by name (counts, seconds and tokens, such as `prompt_tokens_p90` a session), the same as `text`,
        and a `chart` of lengths, arrivals and live requests, whose `figure()` draws it.
    Raises:
        ValueError: the input is wrong.
        FileNotFoundError: a trace is missing.
    """
    from kvbench.api.describing import described

    return described(name_of(scenario), composed({"scenario": scenario}, None, settings, tuple(trusted)))


def _run(
    named: object,
    chosen: Mapping[str, object],
    strategies: object,
    settings: Mapping[str, object] | None,
    trusted: Iterable[str],
) -> "Results":
    from kvbench.api.engines import job_of

    config = composed(chosen, strategies, settings, tuple(trusted))
    told = {group: name_of(each) for group, each in chosen.items() if each is not None} | dict(settings or {})
    asked = {"overrides": [f"{key}={value}" for key, value in told.items()]}
    return job_of(name_of(named), config, "", asked).run()


def name_of(named: object) -> str:
    """What rows and reports call it."""
    if isinstance(named, str | PathLike):
        from pathlib import Path

        return Path(named).stem
    return type(named).__name__.lower()


def show(results: "Results", *charts: str) -> None:
    """Print the table of results; in a notebook, draw the charts too.

    Args:
        results: of a run, an experiment or a sweep, or what `load` has read.
        charts: names of those to draw in a notebook, such as "memory", without the table; none: all.
    Raises:
        ValueError: there is no such chart.
    """
    from kvbench.api.progress import is_notebook
    from kvbench.api.shown import charts_of, text_of
    from kvbench.messages import unknown

    drawn = {chart.name: chart for chart in charts_of(results)} if charts or is_notebook() else {}
    for name in charts:
        if name not in drawn:
            raise ValueError(unknown("chart", name, drawn))
    if not charts:
        print(text_of(results))
    if is_notebook():
        from IPython.display import display

        for name in charts or drawn:
            display(drawn[name].figure())
