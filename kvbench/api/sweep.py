"""A sweep's jobs as one: their rows, and what they were run on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

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
    about = {"swept": list(swept), "others_share": [job.environment.get("others_share") for job in jobs]}
    about["subject"] = _subject(jobs)
    first = jobs[0].environment if jobs else {}
    own = ", each with a report in its own folder" if "experiment" in first else ""
    about["header"] = [f"sweep over {', '.join(swept) or 'nothing'}: {len(jobs)} jobs{own}", *_headers(jobs)]
    return replace(joined(jobs, values), environment={**first, **about, **made})


def _subject(jobs: Sequence[Results]) -> str:
    """What all jobs were run on: the second line of their headers, where it is one."""
    lines = {str(line) for job in jobs for line in job.environment.get("header", [])[1:2]}
    return lines.pop() if len(lines) == 1 else ""


def _headers(jobs: Sequence[Results]) -> list[str]:
    """What the jobs were run on: a line that all have once, of others the first few."""
    lines = zip_longest(*(job.environment.get("header", []) for job in jobs))
    told: list[str] = []
    for same_line in lines:
        distinct = list(dict.fromkeys(str(line) for line in same_line if line is not None))
        told += distinct[:MAX_LINES]
        if len(distinct) > MAX_LINES:
            told.append(f"and {len(distinct) - MAX_LINES} more lines of this kind; each job's report has its own")
    return told
