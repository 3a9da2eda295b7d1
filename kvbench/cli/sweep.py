"""The end of a sweep: its jobs' rows become one frame and one set of charts."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from kvbench.api.sweep import together
from kvbench.cli.asked import again
from kvbench.cli.failure import Failure, noted
from kvbench.cli.job import keep
from kvbench.decide.sweep import swept_values
from kvbench.results.environment import environment
from kvbench.results.results import Results, load


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
    made: dict[str, object] = {} if jobs else environment() | failures[0].asked
    made |= {"jobs": [str(job.folder.relative_to(folder)) for job in jobs if job.folder], "overrides": given}
    made["failed"] = [failure.job for failure in failures]
    finished = together(jobs, swept, made)
    asked = finished.environment
    lines = [f"failed: job {' '.join(failure.overrides) or failure.job}: {failure.error}" for failure in failures]
    about: dict[str, object] = {"header": [*asked["header"], *lines]}
    if "arguments" in asked:
        about["again"] = again(asked["working_directory"], asked["arguments"])
    configuration = OmegaConf.to_yaml({"overrides": given})
    finished = replace(finished, environment={**asked, **about}, configuration=configuration)
    rows = _with_failed(finished.summary, failures, swept)
    said = f"sweep: {len(jobs)} jobs in {folder}{f', {len(failures)} failed' if failures else ''}"
    keep(finished, folder, replace(finished, summary=rows), said)
    return len(jobs), failures


def _row(failure: Failure, swept: list[str]) -> dict[str, object]:
    own = {"scenario": failure.scenario, "strategy": ", ".join(failure.strategies), "outcome": failure.outcome}
    return own | swept_values(failure.overrides, swept)


def _with_failed(summary: pd.DataFrame, failures: list[Failure], swept: list[str]) -> pd.DataFrame:
    """The rows of finished jobs, and of each that failed one with its error."""
    if not failures:
        return summary
    failed = pd.DataFrame([_row(failure, swept) for failure in failures])
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
    jobs.sort(key=lambda job: _order(_name(job, folder)))
    return jobs, sorted(failures, key=lambda failure: _order(failure.job))


def _name(job: Results, folder: Path) -> str:
    """A job's folder below that of the sweep."""
    assert job.folder is not None  # it was read from there
    return str(job.folder.relative_to(folder))


def _order(name: str) -> tuple[int, str]:
    return len(name), name
