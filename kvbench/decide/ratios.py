"""Figures of one run as times those of another, with the interval of the ratio: what both share cancels in it."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.results.columns import FROM, TAILS
from kvbench.results.conditions import EQUAL, UNTOLD
from kvbench.results.front import ERROR, half_widths
from kvbench.results.intervals import REPETITIONS
from kvbench.results.replays import draws_of
from kvbench.results.schema import MORE_IS_BETTER, SUMMARY, WITH_INTERVAL

BETTER, WORSE, DIFFERENT = "better", "worse", "differs"
"""What a ratio says beside EQUAL and UNTOLD; of a figure that has no good side, that it differs."""

LEAST_S = 1e-9
"""Of a time; what is below is rounding."""


class Ratio(NamedTuple):
    """A figure over the same figure of another run.

    Args:
        value: after ÷ before; 1 where both are 0, infinite where only the figure before is.
        low: the lower end of its interval; the value itself where both figures are exact.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def verdict(self, column: str, judged: bool) -> str:
        """What it says of a figure, beyond doubt.

        Args:
            column: the figure's.
            judged: whether less, or more, of it is better.
        """
        if self.low == self.high == 1:
            return EQUAL
        if math.isnan(self.low) or self.low <= 1 <= self.high:
            return UNTOLD
        if not judged:
            return DIFFERENT
        return BETTER if (self.low > 1) == (column in MORE_IS_BETTER) else WORSE


def ratio_of(column: str, before: pd.DataFrame, after: pd.DataFrame, is_paired: bool) -> Ratio:
    """How many times a figure is what it was.

    Args:
        column: of the summary.
        before: one row, with the figure's values in replays where it has any.
        after: likewise, of the other run.
        is_paired: whether replay i of both has the same times of work.
    """
    old, new = float(before[column].iloc[0]), float(after[column].iloc[0])
    if SUMMARY[column].unit == "s" and max(old, new) < LEAST_S:
        old = new = 0.0
    value = _over(new, old)
    if old == new == 0 or (column not in WITH_INTERVAL and column != ERROR):
        return Ratio(value, value, value)
    draws = _draws(column, before, after, is_paired)
    if draws is not None:
        low, high = np.quantile(draws, TAILS)
        return Ratio(value, min(float(low), value), max(float(high), value))
    halves = [float(half_widths(row, column)[0]) for row in (before, after)]
    if old <= 0 or new <= 0:
        return Ratio(value, value, value) if old == new else Ratio(value, math.nan, math.nan)
    shares = halves[0] / old, halves[1] / new
    if {before[FROM].iloc[0], after[FROM].iloc[0]} == {REPETITIONS}:
        reach = math.exp(math.hypot(*shares))  # each was measured by itself
        return Ratio(value, value / reach, value * reach)
    reach = (1 + shares[1]) / max(1 - shares[0], 0) if shares[0] < 1 else math.inf
    return Ratio(value, value * max(1 - shares[1], 0) / (1 + shares[0]), value * reach)


def _draws(column: str, before: pd.DataFrame, after: pd.DataFrame, is_paired: bool) -> np.ndarray | None:
    """The ratio in replays: of each with the same one, or of each with all; None where there are none."""
    old, new = (draws_of(row, column) for row in (before, after))
    if old is None or new is None or not (np.isfinite(old).all() and np.isfinite(new).all()):
        return None
    paired = is_paired and old.shape == new.shape
    pairs = (new[0], old[0]) if paired else (new[0][:, None], old[0][None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(pairs[0] == pairs[1], 1.0, pairs[0] / pairs[1]).ravel()
    return found


def _over(new: float, old: float) -> float:
    if old == new:
        return 1.0
    return new / old if old else math.inf
