"""Which rows of the frames a chart shows, and how many points of a long line."""

import numpy as np
import pandas as pd

from kvbench.charts.style import plain
from kvbench.charts.units import tick_text
from kvbench.results.front import is_reference
from kvbench.results.provenance import model_notes

MAX_POINTS = 5_000


def appending(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps that appended tokens, warm-up left out."""
    return steps[~steps["warmup"].to_numpy(dtype=bool) & (steps["num_tokens"].to_numpy() > 0)]


def last_repetitions(steps: pd.DataFrame, names: list[str]) -> dict[str, pd.DataFrame]:
    """Each strategy's appending steps in its last repetition that is no warm-up.

    Returns:
        Name to rows, with a column `appended_tokens`: tokens appended up to and including the step, over all
        requests. A strategy without such steps is left out.
    """
    by_name = {str(name): rows for name, rows in appending(steps).groupby("strategy", observed=True, sort=False)}
    shown = {}
    for name in names:
        if name in by_name:
            rows = by_name[name]
            last = rows[rows["repetition"] == rows["repetition"].max()]
            shown[name] = last.assign(appended_tokens=last["num_tokens"].cumsum())
    return shown


def median_steps(steps: pd.DataFrame, name: str) -> tuple[pd.DataFrame, bool]:
    """A strategy's appending steps, step_us as the median over repetitions where all ran the same steps in one order.

    Returns:
        The rows of the last repetition, with that step_us; and whether it is a median over more than one. Repetitions
        differ in their steps where requests arrive by the clock: then step_us is the last repetition's own.
    """
    rows = appending(steps)
    rows = rows[(rows["strategy"] == name).to_numpy()]
    parts = [part for _, part in rows.groupby("repetition", sort=True)]
    if not parts:
        return rows, False
    last = parts[-1]
    what = last[["session", "num_tokens"]].to_numpy()
    if len(parts) == 1 or any(not np.array_equal(part[["session", "num_tokens"]], what) for part in parts[:-1]):
        return last, False
    times = np.stack([part["step_us"].to_numpy(dtype=float) for part in parts])
    return last.assign(step_us=np.median(times, axis=0)), True


def notes_of(summary: pd.DataFrame) -> list[str]:
    """What stands at the foot of every chart of a summary: what modelled times are worth, who failed, references."""
    references = strategy_names(summary[is_reference(summary)])
    hollow = [f"For reference, on no front and never the best: {', '.join(references)}."] if references else []
    return [*model_notes(summary), *failures(summary), *hollow]


def failures(summary: pd.DataFrame) -> list[str]:
    """A sentence for each outcome other than completed, with the strategies that it befell."""
    failed = summary[summary["outcome"].astype(str) != "completed"]
    names = failed["strategy"].astype(str)
    if "scenario" in summary and summary["scenario"].nunique() > 1:
        names = names + " on " + failed["scenario"].astype(str)
    befell: dict[str, list[str]] = {}
    for name, outcome in zip(names, failed["outcome"].astype(str), strict=True):
        befell.setdefault(outcome, []).append(name)
    return [f"Not completed ({outcome}): {', '.join(dict.fromkeys(who))}." for outcome, who in sorted(befell.items())]


def strategy_names(summary: pd.DataFrame) -> list[str]:
    """The strategies of a summary, each once, in its order."""
    return list(dict.fromkeys(summary["strategy"].astype(str)))


def value_text(value: object) -> str:
    """A swept parameter's value, as shown."""
    if value is None or value is pd.NA or value != value:
        return "none"
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return tick_text(value) if numeric else plain(value)


def thinned(x: np.ndarray, y: np.ndarray, limit: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A line of at most about `limit` points that keeps every stretch's lowest and highest, and both ends.

    Args:
        x: positions in order.
        y: values; NaN counts as neither lowest nor highest.
        limit: points to keep, >= 4.
    """
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    if len(x) <= limit:
        return x, y
    stretch = -(-2 * len(x) // (limit - 2))
    starts = np.arange(0, len(x), stretch)
    padded = np.full(len(starts) * stretch, np.nan)
    padded[: len(y)] = y
    table = padded.reshape(len(starts), stretch)
    lowest = np.argmin(np.where(np.isnan(table), np.inf, table), axis=1) + starts
    highest = np.argmax(np.where(np.isnan(table), -np.inf, table), axis=1) + starts
    kept = np.unique(np.concatenate([[0], lowest, highest, [len(x) - 1]]))
    return x[kept], y[kept]
