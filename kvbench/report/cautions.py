"""What the reader must know before comparing rows."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from kvbench.provenance import is_fleet, is_modelled
from kvbench.report.jobs import THROUGHPUT, Metric, completed, jobs_of, row_names
from kvbench.report.modelled import doubts
from kvbench.report.table import is_lossy, parameters_of
from kvbench.report.text import listed, markdown_escape, mib, number, percent

LARGE_SPREAD = 0.10
MAX_PAIRS = 6
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
    """What the reader must know before comparing: large spread, and pairs that cannot be told apart.

    Two rows of one job cannot be told apart in a time when their 95 % confidence intervals overlap.
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
    if timed.any() and summary.loc[timed, "tokens_per_s_ci"].isna().all():
        found.append("One repetition only: there are no intervals, and no difference in time can be judged.")
    found += [] if is_fleet(summary) else [*_contention(summary, names), *_smaller_steps(summary, swept)]
    found += _inactive(summary, names)
    found += _not_told_apart(summary, swept, f"{THROUGHPUT.column}_ci", "their 95 % confidence intervals overlap")
    error = summary["tokens_per_s"] * summary.get("step_error", pd.Series(np.nan, summary.index)).astype(float) / 2
    found += _not_told_apart(summary.assign(error=error), swept, "error", "the model's error is as large")
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


def _not_told_apart(summary: pd.DataFrame, swept: list[str], half: str, why: str) -> list[str]:
    """Pairs of one job whose throughputs are nearer than the sum of a column of theirs."""
    pairs = []
    for where, rows in jobs_of(summary, swept):
        pairs += [f"{listed(pair)}{where}" for pair in _alike(rows, THROUGHPUT, half)]
    if not pairs:
        return []
    shown = f"{'; '.join(pairs[:MAX_PAIRS])}{_and_more(len(pairs) - MAX_PAIRS)}"
    return [f"By {THROUGHPUT.words}, these cannot be told apart, since {why}: {shown}."]


def _contention(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """What requests did to each other: preemptions, and peaks that depend on how many met."""
    found = []
    rows = zip(names, summary["num_preemptions"], summary["recomputed_tokens"], strict=True)
    preempted = [f"{name} {number(times)} times ({number(again)} tokens)" for name, times, again in rows if times > 0]
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
    found = []
    for _, rows in jobs_of(completed(summary[summary["scope"] == "cache"]), swept):
        least = rows["num_steps"].min()
        for name, count in zip(rows["strategy"], rows["num_steps"], strict=True):
            if count > least:
                counts = f"{number(count, 6)} steps for what takes others {number(least, 6)}"
                rest = "its steps are smaller, and not to be compared with theirs"
                found.append(f"{markdown_escape(name)} takes {counts}: {rest}.")
    return list(dict.fromkeys(found))


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


def _and_more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""


def _alike(rows: pd.DataFrame, metric: Metric, half_column: str) -> list[list[str]]:
    """Pairs of completed rows whose intervals of a metric overlap; a column has their half widths."""
    done = completed(rows).dropna(subset=[metric.column, half_column])
    names = [markdown_escape(name) for name in done["strategy"]]
    values, half = done[metric.column].to_numpy(), done[half_column].to_numpy()
    return [
        [names[a], names[b]]
        for a, b in combinations(range(len(done)), 2)
        if abs(values[a] - values[b]) <= half[a] + half[b]
    ]
