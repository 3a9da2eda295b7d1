"""What the reader must know before comparing rows."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from kvbench.charts.jobs import THROUGHPUT, jobs_of, row_names
from kvbench.charts.modelled import doubts
from kvbench.charts.table import is_lossy, parameters_of
from kvbench.charts.text import listed, markdown_escape, mib, number, percent
from kvbench.results.front import alike, cost_of, splitters
from kvbench.results.intervals import halves_of
from kvbench.results.provenance import is_fleet, is_modelled

LARGE_SPREAD = 0.10
MAX_GROUPS = 6
BUSY = 0.10


def failures(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """A sentence for each row whose outcome is not completed."""
    names = row_names(summary, parameters_of(summary, parameters))
    return [
        f"{name}: {markdown_escape(outcome)}"
        for name, outcome in zip(names, summary["outcome"], strict=True)
        if str(outcome) != "completed"
    ]


def warnings(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """What the reader must know before comparing: large spread, and rows that cannot be told apart.

    Rows cannot be told apart in a time when their 90 % intervals overlap; compared are those of one job,
    those of a strategy on a scenario in all jobs, and all where nothing but strategies' parameters differ between jobs.
    """
    swept = parameters_of(summary, parameters)
    names = row_names(summary, swept)
    spreads = zip(names, summary["spread"].to_numpy(dtype=float), strict=True)
    unsteady = [f"{name} {percent(spread)}" for name, spread in spreads if spread > LARGE_SPREAD]
    found = []
    if unsteady:
        words = "Times are unsteady; the total time's standard deviation over repetitions, as a share of its mean"
        found.append(f"{words}: {listed(unsteady)}.")
    timed = summary["tokens_per_s"].notna() & ~is_modelled(summary)
    if timed.any() and np.isnan(halves_of(summary[timed], "tokens_per_s")).all():
        found.append("One repetition only: there are no intervals, and no difference in time can be judged.")
    found += [] if is_fleet(summary) else [*_contention(summary, names), *_smaller_steps(summary, swept)]
    found += _inactive(summary, names)
    modelled = is_modelled(summary)
    validated = modelled & summary.get("step_error", pd.Series(np.nan, summary.index)).notna()
    found += _not_told_apart(summary[~modelled], swept, "their 90 % intervals overlap")
    found += _not_told_apart(summary[validated], swept, "the model's error is as large")
    return found + doubts(summary)


def of_busy_machine(shares: Iterable[float | None]) -> list[str]:
    """A sentence where others took more than a tenth of the processors while times were measured.

    Args:
        shares: what they took, of each job; None where that is not known.
    """
    shares = list(shares)
    busy = [share for share in shares if share is not None and share > BUSY]
    if not busy:
        return []
    when = "the run" if len(shares) == 1 else f"{len(busy)} of {len(shares)} jobs"
    most = f"{'' if len(shares) == 1 else 'up to '}{percent(max(busy))}"
    return [f"The machine was busy: other programs took {most} of the processors during {when}."]


def _not_told_apart(summary: pd.DataFrame, swept: list[str], why: str) -> list[str]:
    """Rows whose throughputs are as near as their intervals are wide."""
    groups = list(dict.fromkeys(_alike_within(summary, swept) if len(summary) else []))
    if not groups:
        return []
    more = len(groups) - MAX_GROUPS
    shown = f"{'; '.join(groups[:MAX_GROUPS])}{f'; and {more} more' if more > 0 else ''}"
    return [f"By {THROUGHPUT.words}, these cannot be told apart, since {why}: {shown}."]


def _alike_within(summary: pd.DataFrame, swept: list[str]) -> Iterator[str]:
    """Groups of rows that readers compare and that cannot be told apart, in words."""
    if all(parameter.startswith("strategy.") for parameter in swept):
        yield from _alike(summary, row_names(summary, swept))
        return
    for where, rows in jobs_of(summary, swept):
        yield from (f"{group}{where}" for group in _alike(rows, rows["strategy"].map(markdown_escape).tolist()))
    names = pd.Series(row_names(summary, swept), index=summary.index)
    for _, rows in summary.groupby([summary[name].astype(str) for name in ("strategy", "scenario")], sort=False):
        yield from _alike(rows, names[rows.index].tolist())


def _alike(rows: pd.DataFrame, names: list[str]) -> Iterator[str]:
    """Groups of completed rows, by their names, whose intervals of throughput overlap."""
    cost = cost_of(rows, THROUGHPUT.column).among((rows["outcome"].astype(str) == "completed").to_numpy())
    for group in alike(cost):
        told = list(dict.fromkeys(names[row] for row in group))
        if len(told) > 1:
            yield listed(told)


def _contention(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """What requests did to each other: preemptions, and peaks that depend on how many met."""
    found = []
    rows = zip(names, summary["num_preemptions"], summary["recomputed_tokens"], strict=True)
    preempted = [
        f"{name} {number(times)} time{'' if times == 1 else 's'} ({number(again)} tokens)"
        for name, times, again in rows
        if times > 0
    ]
    if preempted:
        found.append(f"Requests were preempted, and their tokens computed again: {listed(preempted)}.")
    rows = zip(names, summary["peak_least_bytes"], summary["peak_bytes"], strict=True)
    varied = [f"{name} {mib(least)} to {mib(peak)}" for name, least, peak in rows if least < peak]
    if varied:
        words = "Peak memory differs between repetitions, since the machine's speed decides which requests meet"
        found.append(f"{words}: {listed(varied)}.")
    return found


def _smaller_steps(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Who takes more steps than others for the same tokens, as those do that split appends."""
    rest = "its steps are smaller, and not to be compared with theirs"
    told = (
        f"{markdown_escape(name)} takes {number(count, 6)} steps for what takes others {number(least, 6)}: {rest}."
        for _, rows in jobs_of(summary, swept)
        for name, (count, least) in splitters(rows).items()
    )
    return list(dict.fromkeys(told))


def _inactive(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """Lossy strategies whose figures show no loss because they had nothing to do, and those that were not probed."""
    found = []
    lossy = is_lossy(summary).to_numpy()
    acted, probed = (summary[name].to_numpy(dtype=float) for name in ("altered_tokens", "probed_altered_tokens"))
    tokens, errors = (summary[name].to_numpy(dtype=float) for name in ("probed_tokens", "error_relative"))
    for name, seen, is_idle in zip(names, summary["seen_tokens"], lossy & (acted == 0), strict=True):
        if is_idle:
            words = f"{name} is lossy but never acted: it evicted and rounded nothing in this run"
            rest = "Neither its memory nor its times are those of compression."
            found.append(f"{words}, of {number(seen, 6)} tokens seen. {rest}")
    for name, size, is_idle in zip(names, tokens, lossy & (acted > 0) & (probed == 0), strict=True):
        if is_idle:
            words = f"{name} acted in the run, but not in the {number(size, 6)} tokens that were probed"
            found.append(f"{words}: its error and recall say nothing (quality_tokens sets how many are).")
    for name, size, is_missing in zip(names, tokens, (tokens > 0) & np.isnan(errors), strict=True):
        if is_missing:
            found.append(f"{name} has no quality: it does not hold the {number(size, 6)} tokens that were probed.")
    return found
