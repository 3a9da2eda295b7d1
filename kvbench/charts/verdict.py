"""What to conclude, in three lines: what limits a run, who is equal within noise, and what to choose, or that it
cannot be told.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from kvbench.charts.limits import bound_by, is_bound, pool_notes
from kvbench.charts.rows import SAME, THROUGHPUT, is_lossy, jobs_of, most_of, parameters_of, row_names
from kvbench.charts.text import duration, listed, markdown_escape, mib, number, percent
from kvbench.results.front import alike, cost_of, front_of, leaders_of, may_win
from kvbench.results.intervals import is_replayed
from kvbench.results.provenance import is_fleet, is_modelled, kinds

MAX_GROUPS = 3
MAX_NAMES = 8
MAX_JOBS = 4
TIME = "total_s"
NO_INTERVALS = "one repetition has no interval"
UNKNOWN = "how far the model's times are off was never measured"


def verdict(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """The three lines that a report begins with; Markdown.

    Deployable are strategies that completed and are neither oracles nor references. What is equal within noise is not
    ranked: intervals from repetitions where measured, the model's error where modelled.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart; None finds them.
    """
    swept = parameters_of(summary, parameters)
    return [
        f"**What limits this run:** {_limit(summary, swept)}",
        f"**Equal within noise:** {_equal(summary, swept)}",
        f"**What to choose:** {_choices(summary, swept)}",
    ]


def _limit(summary: pd.DataFrame, swept: list[str]) -> str:
    told = bound_by(summary, swept) if is_bound(summary) else ""
    waits = f"waiting, in shares of the time, is {told}." if told else "nothing made a request wait for another."
    waits = waits[0].upper() + waits[1:]
    return " ".join([*pool_notes(summary, swept), waits])


def _equal(summary: pd.DataFrame, swept: list[str]) -> str:
    """Deployable rows whose throughputs are as near as their intervals are wide."""
    rows = summary[may_win(summary)]
    if rows.empty:
        return "no deployable strategy completed."
    why = _no_judgement(rows)
    if why:
        return f"cannot be told by {THROUGHPUT.words}, since {why}."
    groups = list(dict.fromkeys(_alike_within(rows, swept)))
    if not groups:
        return (
            f"none by {THROUGHPUT.words}: all intervals are apart." if len(rows) > 1 else "there is one strategy only."
        )
    more = [f"and {len(groups) - MAX_GROUPS} more"] if len(groups) > MAX_GROUPS else []
    return f"by {THROUGHPUT.words}: {'; '.join([*groups[:MAX_GROUPS], *more])}."


def _no_judgement(rows: pd.DataFrame) -> str:
    """Why no two of these rows' times can be compared; "" where some can."""
    if is_modelled(rows).all():
        is_known = rows.get("step_error", pd.Series(np.nan, rows.index)).notna() | is_replayed(rows)
        return "" if is_known.any() else UNKNOWN
    return "" if cost_of(rows, THROUGHPUT.column).is_known.any() else NO_INTERVALS


def _alike_within(summary: pd.DataFrame, swept: list[str]) -> Iterator[str]:
    """Groups of rows that readers compare and that cannot be told apart, in words.

    Compared are those of one job, those of a strategy on a scenario in all jobs, and all where nothing but strategies'
    parameters differ between jobs.
    """
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
            yield listed(told, MAX_NAMES)


def _choices(summary: pd.DataFrame, swept: list[str]) -> str:
    """The choice, or one a job where jobs do other work."""
    if len(kinds(summary)) > 1:
        return "cannot be told from rows of several kinds, whose times are not compared."
    if all(parameter.startswith("strategy.") for parameter in swept):
        return _choice(summary, pd.Series(row_names(summary, swept), index=summary.index))
    told = [
        f"{where.strip(' ()')}: {_choice(rows, rows['strategy'].astype(str).map(markdown_escape))}"
        for where, rows in jobs_of(summary, swept)
    ]
    more = [f"The table has the other {len(told) - MAX_JOBS} jobs."] if len(told) > MAX_JOBS else []
    return " ".join([*told[:MAX_JOBS], *more])


def _choice(rows: pd.DataFrame, names: pd.Series) -> str:
    """Which of rows that may be compared to choose, and why.

    Args:
        rows: of one kind and of the same work.
        names: theirs, in Markdown.
    """
    competing = rows[may_win(rows)]
    if competing.empty:
        return "nothing, since no deployable strategy completed."
    exact = competing[~is_lossy(competing)]
    chosen = exact if len(exact) else competing
    if len(chosen) == 1:
        told = f"{names[chosen.index[0]]}, the only {'lossless ' if len(competing) > 1 else ''}one that completed"
    else:
        told = _of_fleet(chosen, names) if is_fleet(rows) else _of_steps(chosen, names)
    return f"{told}.{_lossy(competing, chosen, names)}"


def _of_fleet(rows: pd.DataFrame, names: pd.Series) -> str:
    """By goodput, or by throughput where nobody has any; of equal ones, that with the least peak."""
    column, words, unit = "tokens_per_s", "throughput", "tokens/s"
    if rows["goodput_per_s"].gt(0).any():
        column, words, unit = "goodput_per_s", "goodput", "requests/s"
    doubt = _no_judgement(rows)
    errors = rows.get("step_error", pd.Series(np.nan, rows.index)).to_numpy(dtype=float)
    error = float(np.nan_to_num(errors).max())
    led = most_of(rows, column, max(SAME, error))
    why = "within the model's error" if error > SAME else "to a thousandth"
    if is_replayed(rows).any():
        unbeaten = rows.index.isin(led.index) | leaders_of(rows, column, less_is_better=False)
        why = why if unbeaten.sum() == len(led) else "within the intervals of their differences"
        led = rows[unbeaten]
    if len(led) > 1:
        least = names[led.index].iloc[int(np.nanargmin(led["peak_bytes"]))]
        rest = _named(names, led.index)
        return f"by {words} it cannot be told: {rest} are equal {why}; of them {least} holds least{_caveat(doubt)}"
    second = rows.drop(led.index)[column].max()
    more = f", {percent(led[column].iloc[0] / second - 1)} more than the next" if second > 0 else ""
    best_name, figure = names[led.index[0]], f"{number(led[column].iloc[0])} {unit}"
    return f"{best_name}, by {words} ({figure}{more}){_caveat(doubt)}"


def _of_steps(rows: pd.DataFrame, names: pd.Series) -> str:
    """By peak memory and total time: one that is best in both, or the ends of the front."""
    least = rows["peak_bytes"] == rows["peak_bytes"].min()
    lean = f"{_named(names, rows.index[least])} (peak {mib(rows['peak_bytes'].min())})"
    doubt = _no_judgement(rows)
    if doubt == NO_INTERVALS or not cost_of(rows, TIME).is_known.any():
        return f"for memory {lean}; by time it cannot be told, since {NO_INTERVALS}"
    front = rows[front_of(rows, TIME)]
    if len(front) == 1:
        row = front.iloc[0]
        both = f"peak {mib(row['peak_bytes'])}, {duration(row[TIME])} for all steps"
        return f"{names[front.index[0]]}, which no other beats in peak memory or in time ({both}){_caveat(doubt)}"
    quick = front[leaders_of(front, TIME, less_is_better=True)]
    ends = dict.fromkeys(duration(value) for value in (quick[TIME].min(), quick[TIME].max()))
    fast = f"{_named(names, quick.index)} ({' to '.join(ends)} for all steps)"
    if set(rows.index[least]) & set(quick.index):
        return f"{lean}: none of the others is faster beyond noise, and all hold more{_caveat(doubt)}"
    return f"for memory {lean}, for time {fast}{_caveat(doubt)}"


def _named(names: pd.Series, index: pd.Index) -> str:
    return listed(list(dict.fromkeys(names[index])), MAX_NAMES)


def _caveat(doubt: str) -> str:
    return f"; by the model alone: {doubt}" if doubt else ""


def _lossy(competing: pd.DataFrame, chosen: pd.DataFrame, names: pd.Series) -> str:
    """Lossy ones that hold less than those that may be chosen, where answers may change."""
    lossy = competing[is_lossy(competing) & (competing["peak_bytes"] < chosen["peak_bytes"].min())]
    if lossy.empty or len(chosen) == len(competing):
        return ""
    least = lossy.sort_values("peak_bytes", kind="stable").iloc[:3]
    told = [
        f"{names[index]} {mib(row['peak_bytes'])}"
        + (f" (error {percent(row['error_relative'])})" if np.isfinite(row.get("error_relative", np.nan)) else "")
        for index, row in least.iterrows()
    ]
    return f" Where answers may change, less peaks: {listed(told)}."
