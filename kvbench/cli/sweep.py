"""The end of a sweep: its jobs' rows become one frame and one set of charts."""

import json
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from pandas.api.types import union_categoricals

from kvbench.cli.asked import again
from kvbench.plots import save, sweep_charts
from kvbench.report import findings_markdown, findings_text, of_busy_machine, report_markdown, table_text, warnings
from kvbench.results import Results, load, write_environment, write_frames, write_text

MAX_LINES = 4
OWN_COLUMNS = ("strategy", "scenario")
"""Swept groups that the rows name already."""


class CollectSweep(Callback):
    """Collects a sweep's jobs when the last has ended, whatever launcher ran them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Write the sweep's folder from its jobs' folders."""
        folder = Path(config.hydra.sweep.dir)
        given = list(config.hydra.overrides.task)
        parsed = OverridesParser.create().parse_overrides(given)
        collect(folder, [override.key_or_group for override in parsed if override.is_sweep_override()], given)


def collect(folder: Path, swept: list[str], given: list[str]) -> None:
    """Join the finished jobs in a sweep's folder, draw its charts and write its report.

    Args:
        folder: holds a folder a job.
        swept: keys of the parameters that differ between jobs.
        given: the sweep's overrides.
    """
    jobs = _finished_jobs(folder)
    if not jobs:
        print(f"the sweep has no finished job; {folder} holds no results", flush=True)
        return
    values = [_overrides(job) for job in jobs]
    parameters = [key for key in swept if key not in OWN_COLUMNS or key == "scenario"]
    columns = [{key: value.get(key) for key in parameters if key not in OWN_COLUMNS} for value in values]
    summary = _joined([job.summary.assign(**column) for job, column in zip(jobs, columns, strict=True)])
    requests, steps, timeline = (
        _joined([_told_apart(getattr(job, name), job, column) for job, column in zip(jobs, columns, strict=True)])
        for name in ("requests", "steps", "timeline")
    )
    write_frames(folder, summary, requests, steps, timeline=timeline if len(timeline) else None)
    write_text(folder / "config.yaml", OmegaConf.to_yaml({"overrides": given}))
    made = jobs[0].environment
    made |= {"jobs": [job.folder.name for job in jobs], "swept": swept, "overrides": given}
    made["others_share"] = [job.environment.get("others_share") for job in jobs]
    made["again"] = again(made["working_directory"], made["arguments"])
    write_environment(folder, made)
    busy = of_busy_machine(made["others_share"])
    if "experiment" in made:
        _report_experiment(folder, jobs, summary, swept, busy)
        return
    charts = sweep_charts(summary, parameters)
    for name, figure in charts.items():
        save(figure, folder / "charts", name)
    header = [f"sweep over {', '.join(swept) or 'nothing'}: {len(jobs)} jobs", *_headers(jobs)]
    write_text(folder / "report.md", report_markdown("sweep", header, summary, list(charts), parameters, busy))
    print("\n".join([table_text(summary, parameters), *busy]))
    num_warnings = len(warnings(summary, parameters)) + len(busy)
    more = f" ({num_warnings} warning{'' if num_warnings == 1 else 's'} in it)" if num_warnings else ""
    print(f"sweep: {len(jobs)} jobs in {folder}\ncharts: {folder / 'charts'}", flush=True)
    print(f"report: {folder / 'report.md'}{more}", flush=True)


def _headers(jobs: list[Results]) -> list[str]:
    """What the jobs were run on: a line that all have once, of others the first few."""
    lines = zip_longest(*(job.environment.get("header", []) for job in jobs))
    told = []
    for same_line in lines:
        distinct = list(dict.fromkeys(line for line in same_line if line is not None))
        told += distinct[:MAX_LINES]
        if len(distinct) > MAX_LINES:
            told.append(f"and {len(distinct) - MAX_LINES} more lines of this kind; each job's report has its own")
    return told


def _report_experiment(
    folder: Path, jobs: list[Results], summary: pd.DataFrame, swept: list[str], busy: list[str]
) -> None:
    """An experiment's table has a form of its own: it is shown as it is; the charts are in the jobs' folders."""
    first = f"sweep over {', '.join(swept) or 'nothing'}: {len(jobs)} jobs, each with a report in its own folder"
    header = [first, *_headers(jobs)]
    tables = {"summary": summary}
    write_text(folder / "report.md", findings_markdown("sweep", header, busy, tables, []))
    print(findings_text([*header, *busy], tables))
    print(f"sweep: {len(jobs)} jobs in {folder}", flush=True)


def _finished_jobs(folder: Path) -> list[Results]:
    jobs = []
    for path in sorted(folder.glob("*/report.md"), key=lambda path: (len(path.parent.name), path.parent.name)):
        jobs.append(load(path.parent))
    return jobs


def _told_apart(frame: pd.DataFrame | None, job: Results, parameters: dict[str, object]) -> pd.DataFrame:
    """A job's rows with its scenario and its parameters as columns; an experiment's rows name their own scenario.

    Words are kept as categories: a fleet's job may have a row for each of millions of requests.
    """
    if frame is None:
        return pd.DataFrame()
    told = ({"scenario": job.environment["scenario"]} if "scenario" in job.environment else {}) | parameters
    nothing = np.zeros(len(frame), dtype=np.int8)
    for key, value in told.items():
        told[key] = pd.Categorical.from_codes(nothing, [value]) if isinstance(value, str) else value
    return frame.assign(**told, strategy=frame["strategy"].astype("category"))


def _overrides(job: Results) -> dict[str, object]:
    pairs = (str(line).partition("=")[::2] for line in job.environment["overrides"])
    return {key.lstrip("+"): _number(value) for key, value in pairs}


def _number(text: str) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all frames; a column that is of categories in each stays so. Frames without rows say nothing."""
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    words = [name for name in frames[0] if all(_is_words(frame.get(name)) for frame in frames)]
    categories = {name: union_categoricals([frame[name] for frame in frames]) for name in words}
    joined = pd.concat([frame.drop(columns=words) for frame in frames], ignore_index=True)
    return joined.assign(**categories)[[*frames[0], *(name for name in joined if name not in frames[0])]]


def _is_words(column: pd.Series | None) -> bool:
    return column is not None and isinstance(column.dtype, pd.CategoricalDtype)
