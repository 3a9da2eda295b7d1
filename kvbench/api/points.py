"""A point of a sweep's manifest: its configuration, and what becomes of it when it is run."""

import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from kvbench.api.engines import job_of
from kvbench.api.job import Stopped
from kvbench.api.progress import hushed
from kvbench.api.shown import charts_of, report_of
from kvbench.charts.chart import save
from kvbench.configuration.catalogue import GROUPS, default_strategies
from kvbench.configuration.chosen import compared
from kvbench.configuration.errors import UsageError
from kvbench.configuration.references import filled_in
from kvbench.decide.claims import appear
from kvbench.decide.manifest import Combination, Manifest
from kvbench.decide.shards import DONE, FAILED, REFUSED, SKIPPED, PointOutcome
from kvbench.files import write_text
from kvbench.results.results import Results
from kvbench.workload.trace import TraceMissing

NAMED = ("scenario", "experiment")
"""Groups after whose choice a point is called."""


def configuration_of(manifest: Manifest, point: Combination) -> dict[str, Any]:
    """A point's configuration: what all have, with its own values set in a copy.

    Raises:
        UsageError: a key is not there, or refers to one that is not.
    """
    config: dict[str, Any] = deepcopy(dict(manifest.configuration))
    for key, value in point.values:
        place(config, key, deepcopy(value), is_group=key in GROUPS)
    if manifest.are_default and "strategy" in config:
        for name in set(default_strategies()) - set(compared(config)):
            config["strategy"].pop(name, None)
    return filled_in(config)


def place(config: dict[str, Any], key: str, value: Any, *, is_group: bool = False) -> None:
    """Set a dotted key; what was not there is added, and a mapping is merged into one that was.

    Raises:
        UsageError: what it leads through is no mapping.
    """
    *path, last = key.replace("[", ".").replace("]", "").split(".")
    node: Any = config
    for part in path:
        node = _below(node, part, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif not isinstance(node, dict):
        raise UsageError(f"{key}: {'.'.join(path)} is {node!r} here, and has nothing below it")
    elif isinstance(value, dict) and isinstance(node.get(last), dict) and not is_group:
        for each, below in value.items():
            place(node[last], str(each), below)
    else:
        node[last] = value


def name_of(manifest: Manifest, point: Combination) -> str:
    """What the rows of a point call what was run: the scenario or the experiment."""
    for line in point.lines:
        key, _, value = line.lstrip("+").partition("=")
        if key in NAMED:
            return value
    return manifest.name


def carry_out(manifest: Manifest, folder: Path, point: Combination, say: Callable[[str], object]) -> PointOutcome:
    """Run a point, whatever comes of it; a study leaves a folder of its own, with its charts and its report.

    Args:
        manifest: the sweep's.
        folder: the sweep's.
        point: which.
        say: told of one that is not done.
    Raises:
        Stopped: a signal ended it; what is done is in its `results`.
        KeyboardInterrupt: nothing is.
    """
    overrides = [*manifest.overrides, *point.lines]
    try:
        config = configuration_of(manifest, point)
        try:
            with hushed():
                results = _run(manifest, point, config, overrides)
        except Stopped as stop:
            if "experiment" not in config:
                raise
            raise KeyboardInterrupt from stop  # a part of a study is no row
        if "experiment" in config:
            appear(folder / str(point.number), lambda hidden: _write(results, hidden))
    except TraceMissing as error:
        if config["scenario"].get("path") is None:
            say(f"skipped {name_of(manifest, point)}: {error}")
            return PointOutcome(state=SKIPPED, error=str(error))
        return _failed(UsageError(str(error)), point, say)
    except (Exception, SystemExit) as error:  # whatever it is, it is this point's
        return _failed(error, point, say)
    return PointOutcome(state=DONE, results=results)


def _run(manifest: Manifest, point: Combination, config: dict[str, Any], overrides: list[str]) -> Results:
    is_study = "experiment" in config
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if is_study else ""
    asked = {**manifest.asked, "overrides": overrides} if is_study else {"overrides": overrides}
    return job_of(name_of(manifest, point), config, text, asked).run()


def _write(results: Results, folder: Path) -> None:
    results.save(folder)
    charts = charts_of(results)
    for chart in charts:
        save(chart.figure(), folder / "charts", chart.name)
    write_text(folder / "report.md", report_of(results, charts))


def _failed(error: BaseException, point: Combination, say: Callable[[str], object]) -> PointOutcome:
    is_usage = isinstance(error, UsageError)
    told = " ".join((str(error) if is_usage else f"{type(error).__name__}: {error}").split())
    say(f"job {' '.join(point.lines)}: {told}")
    state = REFUSED if isinstance(error, UsageError) and error.status == UsageError.status else FAILED
    return PointOutcome(state=state, error=told, trace="" if is_usage else "".join(traceback.format_exception(error)))


def _below(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise UsageError(f"{key}: there is nothing below {node!r}")
    return node.setdefault(part, {})


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise UsageError(f"{key}: {part!r} is no number below {len(node)}")
    return int(part)
