"""The interval of a figure, at one level of confidence everywhere: where it ends, and what it comes from."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from kvbench.results.columns import FROM, PERCENT, TAILS, ends

REPETITIONS, VALIDATION = "repetitions", "validation"
REPLAYED = RESIDUALS, SHEETS = "residuals", "data sheets"
"""What a row's intervals come from. The last two are of replays with other times of work: what kernels of the machine
were measured to be off by, and, of one that nobody measured, the widest that data sheets of others were off by."""

Reaching = Callable[[str, float, float, float], tuple[Any, Any]]

T = TypeVar("T", float, pd.Series)

# Student's t, two-sided, by degrees of freedom from 1; beyond the table the normal's is within 1 %.
_T = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812),
    *(1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725),
    *(1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697),
)
_NORMAL = 1.645
_PER_ERROR = _NORMAL / math.sqrt(2 / math.pi)
"""Half an interval over the mean distance from its middle, of a normal error."""


def half_width(values: Iterable[float]) -> float:
    """Half width of the interval of the mean: t · s / √n; NaN under two finite values.

    Args:
        values: one a repetition.
    """
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    if len(finite) < 2:  # noqa: PLR2004
        return math.nan
    quantile = _T[len(finite) - 2] if len(finite) - 2 < len(_T) else _NORMAL
    return float(quantile * finite.std(ddof=1) / math.sqrt(len(finite)))


def around(column: str, value: T, half: T) -> dict[str, T]:
    """The ends of an interval by column, of a figure or of a column of them; empty (NaN) where half its width is."""
    return dict(zip(ends(column), (value - half, value + half), strict=True))


def of_row(
    row: Mapping[str, Any],
    columns: Iterable[str],
    repeated: Mapping[str, Iterable[float]],
    replayed: Mapping[str, np.ndarray] | None = None,
    drawn_from: str = RESIDUALS,
    reaching: Reaching = lambda name, value, low, high: (low, high),
) -> dict[str, object]:
    """The ends of a row's intervals, and what they come from.

    Args:
        row: figures by column of the summary; modelled times are as far off as its step_error says.
        columns: those that have intervals, all of them times or rates.
        repeated: their values a repetition each, where there are repetitions.
        replayed: their values a replay each, with other times of work; None: none were made.
        drawn_from: RESIDUALS or SHEETS.
        reaching: the ends of a column's interval, of a figure and the ends of its replays.
    """
    if replayed:
        own = {
            name: reaching(name, row[name], *ends_of(row[name], values))
            for name, values in replayed.items()
            if name in columns
        }
        return {FROM: drawn_from} | {
            end: at for name, both in own.items() for end, at in zip(ends(name), both, strict=True)
        }
    error = float(row.get("step_error", math.nan))
    if row["source"] == "modelled" and math.isfinite(error):
        source: str | None = VALIDATION
        halves = {name: _PER_ERROR * error * row.get(name, math.nan) for name in columns if name in row}
    else:
        halves = {name: half_width(repeated[name]) for name in columns if name in repeated}
        source = REPETITIONS if any(map(math.isfinite, halves.values())) else None
    found: dict[str, object] = {FROM: source}
    for name, half in halves.items():
        found |= around(name, row[name], half)
    return found


def ends_of(value: float, replayed: np.ndarray) -> tuple[float, float]:
    """The ends of what a figure was in replays, itself among them."""
    if not np.isfinite(value) or not np.isfinite(replayed).all():
        return math.nan, math.nan
    low, high = np.quantile(replayed, TAILS)
    return min(float(low), value), max(float(high), value)


def halves_of(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Half the width of a column's interval, a value a row; NaN where none is known."""
    low, high = ends(column)
    if low not in frame or high not in frame:
        return np.full(len(frame), math.nan)
    return (frame[high] - frame[low]).to_numpy(dtype=float, na_value=math.nan) / 2


def is_replayed(frame: pd.DataFrame) -> pd.Series:
    """Which rows have intervals of replays with other times of work."""
    told = frame.get(FROM, pd.Series(None, index=frame.index, dtype=object))
    return told.isin(REPLAYED)


def has_interval(frame: pd.DataFrame, column: str) -> bool:
    """Whether the ends of a column's interval stand beside it."""
    return all(end in frame for end in (column, *ends(column)))


def sentence(frames: Iterable[pd.DataFrame]) -> str:
    """What ± means in frames that have intervals; "" where none has."""
    sources = [source for frame in frames if FROM in frame for source in frame[FROM].dropna().unique()]
    if not sources:
        return ""
    return f"± is half the width of the {PERCENT} % interval, from {' or '.join(dict.fromkeys(map(str, sources)))}."
