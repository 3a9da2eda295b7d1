"""The public call that holds finished runs against each other, and what it returns."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kvbench.api.shown import busy
from kvbench.configuration.errors import UsageError, refusing
from kvbench.decide.comparison import MACHINE, MODEL, WORKLOAD, Compared, comparison, failing
from kvbench.results.conditions import stated
from kvbench.results.results import Results, load

EXAMPLE = "fail_if='ttft_p99>1.1,paged.peak_bytes>105%'"
PRECISIONS = ("dtype", "weights_dtype", "kv_dtype")
"""Of a model, what is a choice of how to serve it."""
NO_WORK = ("description", "repetitions")
"""Of a scenario, what changes no request."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Runs held against the first of them.

    Args:
        rows: a row a run, strategy and metric: before, after, ratio, ratio_low, ratio_high, verdict; see
            `decide.comparison`.
        baseline: what the first run is called.
        cautions: sentences about runs that were measured while others took the processors.
        failed: conditions of `fail_if` that hold, whatever the interval leaves open.
        untold: conditions of which it cannot be told.
    """

    rows: pd.DataFrame
    baseline: str
    cautions: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A table for a terminal: what differs, and below it what is equal and what cannot be told apart."""
        from kvbench.charts.comparison import comparison_text

        return "\n".join([comparison_text(self.rows, self.baseline), *self.cautions])

    @property
    def markdown(self) -> str:
        """The same for a pull request."""
        from kvbench.charts.comparison import comparison_markdown
        from kvbench.charts.text import markdown_escape

        return "\n\n".join([comparison_markdown(self.rows, self.baseline), *map(markdown_escape, self.cautions)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: what is not finite is null."""
        rows = json.loads(self.rows.to_json(orient="records", double_precision=15))
        return {
            "baseline": self.baseline,
            "rows": rows,
            "cautions": list(self.cautions),
            "failed": list(self.failed),
            "untold": list(self.untold),
        }


def compare(
    *runs: "Results | str | PathLike[str]",
    across: Iterable[str] = (),
    metrics: Iterable[str] = (),
    fail_if: str | None = None,
) -> Comparisons:
    """Hold finished runs against the first of them, as `python -m kvbench compare results/A results/B` does.

    Rows are matched by strategy, and in sweeps by what was swept in both; two runs of one strategy each are compared
    whatever these are called. Where both are modelled on one machine, replay i of both has the same times of work, so
    that what they share cancels.

    Args:
        runs: results, or their folders, two at least.
        across: in what they may differ: "source" (measured or modelled), "machine", "model", "workload".
        metrics: columns of the summary, their units may be left out; none: the usual ones.
        fail_if: conditions on ratios with commas between them, such as "ttft_p99>1.1"; words before a metric name
            strategies. One fails where its whole interval is beyond.
    Returns:
        The ratio of each figure with its interval, and what it says; `text`, `markdown` and `as_dict()` show it.
    Raises:
        ValueError: there is nothing to compare, a metric is unknown, or runs differ where they may not.
        FileNotFoundError: a folder has no finished results.
    """
    with refusing():
        conditions = stated(fail_if, "fail_if", EXAMPLE) if fail_if else ()
        compared = [_compared(run, number) for number, run in enumerate(runs, start=1)]
        compared = _named_apart(compared)
        found = comparison(compared, across, metrics)
        failed, untold = failing(conditions, found)
        return Comparisons(
            rows=found,
            baseline=compared[0].name,
            cautions=tuple(f"{run.name}: {said}" for run in compared for said in busy(run.results)),
            failed=tuple(failed),
            untold=tuple(untold),
        )


def _compared(run: "Results | str | PathLike[str]", number: int) -> Compared:
    results = run if isinstance(run, Results) else load(Path(run).expanduser())
    name = f"run {number}" if results.folder is None else results.folder.name
    return Compared(name=name, results=results, told=_told(results))


def _named_apart(runs: Sequence[Compared]) -> list[Compared]:
    """Runs by their folders' last names, or their whole paths where those are not enough."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    named = [Compared(name=str(run.results.folder or run.name), results=run.results, told=run.told) for run in runs]
    if len({run.name for run in named}) < len(named):
        raise UsageError(f"compare takes different runs, got {', '.join(run.name for run in named)}")
    return named


def _told(results: Results) -> dict[str, dict[str, object]]:
    """What a run was on and with, by aspect: settings by their keys."""
    about, config = results.environment, yaml.safe_load(results.configuration) if results.configuration else {}
    config = config if isinstance(config, dict) else {}
    machine: dict[str, object] = {"device": about.get("device_name")}
    if about.get("device") == "modelled":
        machine |= _settings(config.get("hardware"))
    else:
        machine["cpu"] = about.get("cpu")
    model = {key: value for key, value in _settings(config.get("model")).items() if key not in PRECISIONS}
    work = {key: value for key, value in _settings(config.get("scenario")).items() if key not in NO_WORK}
    if isinstance(work.get("path"), str):
        work["path"] = Path(str(work["path"])).name
    work = {"scenario": about.get("scenario"), "seed": about.get("seed"), "data": config.get("data"), **work}
    return {MACHINE: machine, MODEL: model, WORKLOAD: work}


def _settings(node: object) -> dict[str, object]:
    return dict(node) if isinstance(node, Mapping) else {}
