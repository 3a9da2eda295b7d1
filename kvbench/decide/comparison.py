"""Runs held against each other: which rows are of the same thing, whether they may be compared, and what became of
each figure."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kvbench.decide.ratios import ratio_of
from kvbench.messages import cut, printable, unknown
from kvbench.results.columns import ends
from kvbench.results.conditions import Stated, column_of
from kvbench.results.provenance import KIND, is_modelled
from kvbench.results.results import Results
from kvbench.results.schema import SUMMARY

SOURCE, MACHINE, MODEL, WORKLOAD = ASPECTS = ("source", "machine", "model", "workload")
"""What two runs must have in common, unless it is said that they need not."""
METRICS = (
    *("peak_bytes", "mean_allocated_bytes", "utilization_mean", "waste_share", "external_share"),
    *("num_resizes", "copied_bytes", "moved_bytes", "num_preemptions", "recomputed_tokens", "hit_share"),
    *("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "queue_mean_s", "step_mean_us", "stall_s"),
    *("total_s", "makespan_s", "tokens_per_s", "requests_per_s", "goodput_per_s", "attained_share"),
    *("num_completed", "kept_fraction", "error_relative", "needle_recall"),
)
"""What is compared where nothing is chosen: the figures by which strategies are judged."""
MOST, LENGTH = 3, 60
"""Settings in which runs differ that a message names, and letters of each."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A run that is held against another.

    Args:
        name: what it is called.
        results: its rows.
        told: by aspect, what is known of it: settings by their keys.
    """

    name: str
    results: Results
    told: Mapping[str, Mapping[str, object]]


def comparison(runs: Sequence[Compared], across: Iterable[str] = (), metrics: Iterable[str] = ()) -> pd.DataFrame:
    """What became of each figure from the first run to each other one.

    Args:
        runs: two at least; the first is what the others are held against.
        across: aspects in which they may differ, of ASPECTS.
        metrics: columns of the summary; none: METRICS.
    Returns:
        A row a run, strategy (and what else tells rows of sweeps apart) and metric that both have: run, strategy, the
        swept parameters, metric, unit, before, after, ratio and the ends of its interval, verdict.
    Raises:
        ValueError: there is nothing to compare, a metric is unknown, or runs differ where they may not.
    """
    allowed, chosen = set(across), list(metrics)
    for aspect in allowed:
        if aspect not in ASPECTS:
            raise ValueError(unknown("aspect", aspect, ASPECTS))
    columns = [column_of(name) for name in chosen] or list(METRICS)
    if len(runs) < 2:  # noqa: PLR2004
        raise ValueError("compare takes two runs at least")
    first, rows = runs[0], []
    for other in runs[1:]:
        _check(first, other, allowed)
        rows += list(_rows(first, other, columns))
    if not rows:
        raise ValueError(f"nothing to compare: {first.name} and the others have no figure in common")
    return pd.DataFrame(rows)


def _check(first: Compared, other: Compared, allowed: set[str]) -> None:
    """Refuse runs that differ where they may not."""
    for aspect in ASPECTS:
        before, after = (_told(run, aspect) for run in (first, other))
        if aspect not in allowed and before != after:
            keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
            what = ", ".join(f"{key} is {_short(before.get(key))} and {_short(after.get(key))}" for key in keys[:MOST])
            more = f", and {len(keys) - MOST} more" if len(keys) > MOST else ""
            raise ValueError(
                f"{first.name} and {other.name} differ in their {aspect}: {what}{more}; across={aspect} compares them "
                "all the same"
            )


def _told(run: Compared, aspect: str) -> Mapping[str, object]:
    if aspect != SOURCE:
        return run.told.get(aspect, {})
    rows = run.results.summary.reindex(columns=list(KIND)).astype(object).fillna("").astype(str)
    return {name: ", ".join(sorted(set(rows[name]))) for name in KIND}


def _short(value: object) -> str:
    return cut(printable(value), LENGTH)


def _rows(first: Compared, other: Compared, columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    before, after = (_completed(run.results.judged) for run in (first, other))
    keys = _keys(first, other)
    is_paired = _told(first, MACHINE) == _told(other, MACHINE) and bool(is_modelled(before).all())
    old, new = (_by_key(run, rows, keys) for run, rows in ((first, before), (other, after)))
    if len(old) == len(new) == 1 and keys == ["strategy"]:  # one of each: they are what is to be compared
        old = dict(zip(new, old.values(), strict=True))
    for key, row in new.items():
        if key not in old:
            continue
        for column in columns:
            if column not in row or column not in old[key]:
                continue
            values = float(old[key][column].iloc[0]), float(row[column].iloc[0])
            if any(value != value for value in values):
                continue
            ratio = ratio_of(column, old[key], row, is_paired)
            judged = bool(SUMMARY[column].label)
            yield {
                "run": other.name,
                **{name: row[name].iloc[0] for name in keys},
                "metric": column,
                "unit": SUMMARY[column].unit,
                "before": values[0],
                "after": values[1],
                "ratio": ratio.value,
                **dict(zip(ends("ratio"), (ratio.low, ratio.high), strict=True)),
                "verdict": ratio.verdict(column, judged),
            }


def _completed(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of strategies that ran: a sweep keeps one of each point that failed, without figures."""
    return summary[summary["num_requests"].notna()] if "num_requests" in summary else summary


def _keys(first: Compared, other: Compared) -> list[str]:
    """What tells rows apart: the strategy, and in sweeps what was swept in both."""
    swept = [list(map(str, run.results.environment.get("swept") or ())) for run in (first, other)]
    common = [name for name in swept[0] if name in swept[1] and name != "strategy"]
    has_several = any(run.results.summary["scenario"].nunique() > 1 for run in (first, other))
    return [*(["scenario"] if has_several else []), "strategy", *(name for name in common if name != "scenario")]


def _by_key(run: Compared, rows: pd.DataFrame, keys: Sequence[str]) -> dict[Hashable, pd.DataFrame]:
    """Rows by what tells them apart."""
    missing = [name for name in keys if name not in rows]
    if missing:
        raise ValueError(f"{run.name} has no column {missing[0]}: it is no run, or no sweep over it")
    found: dict[Hashable, pd.DataFrame] = {}
    for place in range(len(rows)):
        row = rows.iloc[[place]]
        key = tuple(str(row[name].iloc[0]) for name in keys)
        if key in found:
            raise ValueError(f"{run.name} has several rows of {', '.join(key)}: the other run was not swept as it was")
        found[key] = row
    return found


def failing(conditions: Iterable[Stated], found: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Which conditions on ratios hold beyond doubt, and of which it cannot be told.

    Args:
        conditions: of measures that are columns of the summary, or their names without a unit; words before one are
            strategies.
        found: from `comparison`.
    Returns:
        Sentences of those that hold with the whole interval, and of those that only part of it meets.
    Raises:
        ValueError: nothing is of what one names.
    """
    held, untold = [], []
    for each in conditions:
        column = column_of(each.measure)
        rows = found[found["metric"] == column]
        for word in each.of:
            if word not in set(rows["strategy"].astype(str)):
                raise ValueError(f"fail_if={each.text}: {unknown('strategy', word, set(map(str, rows['strategy'])))}")
        rows = rows[rows["strategy"].astype(str).isin(each.of)] if each.of else rows
        if rows.empty:
            raise ValueError(f"fail_if={each.text}: the runs have no {column} in common")
        for _, row in rows.iterrows():
            all_ends = [row[name] for name in ("ratio", *ends("ratio"))]
            said = f"{each.text}: {printable(row['strategy'])} of {printable(row['run'])} has {row['ratio']:.4g}"
            if all(map(each.holds, all_ends)):
                held.append(said)
            elif any(value != value or each.holds(value) for value in all_ends):
                untold.append(f"{said} ({all_ends[1]:.4g} to {all_ends[2]:.4g})")
    return held, untold
