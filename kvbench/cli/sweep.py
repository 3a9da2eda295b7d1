"""The end of a sweep: its jobs' rows become one frame and one set of charts."""

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from kvbench.charts.catalogue import sweep_charts
from kvbench.charts.cautions import of_busy_machine, warnings
from kvbench.charts.report import findings_markdown, findings_text, report_markdown
from kvbench.charts.table import table_text
from kvbench.cli.asked import again
from kvbench.cli.failure import Failure, noted
from kvbench.cli.writing import draw, writing
from kvbench.decide.sweep import OWN_COLUMNS, joined, swept_values
from kvbench.results.environment import environment
from kvbench.results.results import Results, load

MAX_LINES = 4


def collect(folder: Path, swept: list[str], given: list[str]) -> tuple[int, list[Failure]]:
    """Join the jobs in a sweep's folder, each that failed as a row with its error; draw charts and write a report.

    Args:
        folder: holds a folder a job.
        swept: keys of the parameters that differ between jobs.
        given: the sweep's overrides.
    Returns:
        How many jobs finished, and those that failed. Of a sweep without any, nothing is written.
    Raises:
        WriteFailed: a file could not be written; the table was printed.
    """
    jobs, failures = _jobs(folder)
    if not jobs and not failures:
        return 0, []
    parameters = [key for key in swept if key not in OWN_COLUMNS or key == "scenario"]
    header = [f"sweep over {', '.join(swept) or 'nothing'}: {len(jobs)} jobs"]
    together = joined(jobs, [swept_values(job.environment["overrides"], parameters) for job in jobs])
    summary = together.summary if jobs else None
    is_experiment = any("experiment" in job.environment for job in jobs)
    if is_experiment:  # its table has a form of its own and is shown as it is; charts are in the jobs' folders
        header[0] += ", each with a report in its own folder"
    header += _headers(jobs)
    lines = [f"failed: job {' '.join(failure.overrides) or failure.job}: {failure.error}" for failure in failures]
    shares = [job.environment.get("others_share") for job in jobs]
    busy = of_busy_machine(shares)
    tables = {} if summary is None else {"summary": summary}
    try:
        with writing(folder):
            made = dict(jobs[0].environment) if jobs else environment() | failures[0].asked
            made |= {"jobs": [str(job.folder.relative_to(folder)) for job in jobs], "swept": swept, "overrides": given}
            made |= {"failed": [failure.job for failure in failures], "others_share": shares}
            if "arguments" in made:
                made["again"] = again(made["working_directory"], made["arguments"])
            rows = _with_failed(together.summary, failures, parameters)
            configuration = OmegaConf.to_yaml({"overrides": given})
            replace(together, summary=rows, environment=made, configuration=configuration).save(folder)
    finally:
        if is_experiment:
            print(findings_text([*header, *busy], tables))
        elif summary is not None:
            print("\n".join([table_text(summary, parameters), *busy]))
        print(f"sweep: {len(jobs)} jobs in {folder}{f', {len(failures)} failed' if failures else ''}", flush=True)
    if is_experiment or summary is None:
        text = findings_markdown("sweep", [*header, *lines], busy, tables, [], str(made.get("again", "")))
        draw(folder, list, lambda charts: text)
        return len(jobs), failures
    charts, report = draw(
        folder,
        lambda: sweep_charts(summary, parameters, _subject(jobs)),
        lambda charts: report_markdown(
            "sweep", [*header, *lines], summary, charts, parameters, busy, str(made.get("again", ""))
        ),
    )
    num_warnings = len(warnings(summary, parameters)) + len(busy)
    more = f" ({num_warnings} warning{'' if num_warnings == 1 else 's'} in it)" if num_warnings else ""
    print(f"charts: {charts}\nreport: {report}{more}", flush=True)
    return len(jobs), failures


def _subject(jobs: list[Results]) -> str:
    """What all jobs were run on: the second line of their headers, where it is one."""
    lines = {line for job in jobs for line in job.environment.get("header", [])[1:2]}
    return lines.pop() if len(lines) == 1 else ""


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


def _row(failure: Failure, parameters: list[str]) -> dict[str, object]:
    own = {"scenario": failure.scenario, "strategy": ", ".join(failure.strategies), "outcome": failure.outcome}
    return own | swept_values(failure.overrides, parameters)


def _with_failed(summary: pd.DataFrame, failures: list[Failure], parameters: list[str]) -> pd.DataFrame:
    """The rows of finished jobs, and of each that failed one with its error."""
    if not failures:
        return summary
    failed = pd.DataFrame([_row(failure, parameters) for failure in failures])
    return pd.concat([summary.astype(object), failed], ignore_index=True)


def _jobs(folder: Path) -> tuple[list[Results], list[Failure]]:
    """The jobs whose rows can be read, and those that failed, both in their order."""
    jobs, failures = [], noted(folder)
    for path in folder.rglob("environment.json"):
        if path.parent == folder:
            continue
        try:
            jobs.append(load(path.parent))
        except (OSError, ValueError) as error:  # one folder that cannot be read is one job, not all
            name = str(path.parent.relative_to(folder))
            failures.append(Failure(name, "", [], {}, " ".join(str(error).split()), is_refusal=False))
    jobs.sort(key=lambda job: _order(str(job.folder.relative_to(folder))))
    return jobs, sorted(failures, key=lambda failure: _order(failure.job))


def _order(name: str) -> tuple[int, str]:
    return len(name), name
