"""A sweep's jobs as one: their rows, and what they were run on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from kvbench.decide.sweep import joined, swept_values
from kvbench.results.results import Results

MAX_LINES = 4


def together(jobs: Sequence[Results], swept: Sequence[str], made: Mapping[str, object]) -> Results:
    """One `Results` of a sweep's jobs.

    Args:
        jobs: those that finished, in order.
        swept: keys that differ between them.
        made: its environment, where that is not the first job's.
    """
    values = [swept_values(job.environment["overrides"], swept) for job in jobs]
    return replace(joined(jobs, values), environment=described([job.environment for job in jobs], swept, made))


def described(
    environments: Sequence[Mapping[str, Any]], swept: Sequence[str], made: Mapping[str, object]
) -> dict[str, Any]:
    """The environment of a sweep: the first job's, with what all were run on.

    Args:
        environments: of the jobs that finished, in order.
        swept: keys that differ between them.
        made: what takes the place of the first job's.
    """
    about: dict[str, Any] = {"swept": list(swept), "others_share": [each.get("others_share") for each in environments]}
    about["subject"] = _subject(environments)
    first = environments[0] if environments else {}
    own = ", each with a report in its own folder" if "experiment" in first else ""
    number = len(environments)
    about["header"] = [f"sweep over {', '.join(swept) or 'nothing'}: {number} jobs{own}", *_headers(environments)]
    return {**first, **about, **made}


def _subject(environments: Sequence[Mapping[str, Any]]) -> str:
    """What all jobs were run on: the second line of their headers, where it is one."""
    lines = {str(line) for each in environments for line in each.get("header", [])[1:2]}
    return lines.pop() if len(lines) == 1 else ""


def _headers(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the jobs were run on: a line that all have once, of others the first few."""
    lines = zip_longest(*(each.get("header", []) for each in environments))
    told: list[str] = []
    for same_line in lines:
        distinct = list(dict.fromkeys(str(line) for line in same_line if line is not None))
        told += distinct[:MAX_LINES]
        if len(distinct) > MAX_LINES:
            told.append(f"and {len(distinct) - MAX_LINES} more lines of this kind; each job's report has its own")
    return told
