"""Who beats whom: a difference within the intervals, or within a dtype's rounding, decides nothing.

What a chart draws as a front, a report calls one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kvbench.results.columns import COMPLETED, TAILS
from kvbench.results.intervals import halves_of, is_replayed
from kvbench.results.provenance import is_fleet, is_modelled
from kvbench.results.replays import draws_of
from kvbench.results.schema import LEAST_ERROR, MORE_IS_BETTER, WITH_INTERVAL, latency_column

MEMORY = "peak_bytes"
LEAST_MEMORY = "peak_least_bytes"
ERROR = "error_relative"
ROUNDING = "error_rounding"
MOST_COLOURED = 8
_OF_FLEET = ("goodput_per_s", "tokens_per_s", "ttft_mean_s")


class Cost(NamedTuple):
    """A cost of each point, smaller is better.

    Args:
        low: an end of its interval; NaN: it has none.
        high: the other, equal where it is exact.
        draws: [points, replays], its values in paired replays; two points that have them are told apart by their
            difference, whose interval is narrower than theirs by all that they share. None: no point has any.
    """

    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray | None = None

    @classmethod
    def around(cls, values: object, half_widths: object = 0.0) -> "Cost":
        """From values and the half widths of their intervals; an interval that is not known is none."""
        middle, half = np.asarray(values, dtype=float), np.asarray(half_widths, dtype=float)
        return cls(middle - half, middle + half)

    @property
    def is_known(self) -> np.ndarray:
        """Which points have it."""
        known: np.ndarray = np.isfinite(self.low) & np.isfinite(self.high)
        return known

    def among(self, points: np.ndarray) -> "Cost":
        """Of these points only; the others have none."""
        draws = None if self.draws is None else np.where(points[:, None], self.draws, np.nan)
        return Cost(np.where(points, self.low, np.nan), np.where(points, self.high, np.nan), draws)

    def less(self) -> np.ndarray:
        """[i, j]: whether point i's is less than j's beyond doubt."""
        return self._most_apart() < 0

    def no_more(self) -> np.ndarray:
        """[i, j]: whether point i's is at most j's beyond doubt."""
        return self._most_apart() <= 0

    def _most_apart(self) -> np.ndarray:
        """[i, j]: the upper end of the interval of point i's less j's."""
        apart: np.ndarray = self.high[:, None] - self.low
        if self.draws is None:
            return apart
        paired = np.quantile(self.draws[:, None] - self.draws, TAILS[1], axis=2)
        return np.where(np.isnan(paired), apart, paired)


def pareto_front(*costs: Cost) -> np.ndarray:
    """Whether each point is on the front: no other there is less in one cost, beyond doubt, and as little in all.

    Args:
        costs: one at least, of the same points. A point that lacks one is on no front, and beats none.
    Returns:
        A mask over the points. Who is beaten in all beyond doubt is off it, whoever did it; who is as good in one as
        far as intervals tell, only if the other is on it: of a chain of neighbours that cannot be told apart, the ends
        can be on it.
    """
    waiting = np.logical_and.reduce([cost.is_known for cost in costs])
    costs = tuple(each.among(waiting) for each in costs)
    less = np.logical_or.reduce([each.less() for each in costs])
    beats = less & ~less.T
    waiting &= ~(np.logical_and.reduce([each.no_more() for each in costs]) & less).any(axis=0)
    on_front = np.zeros(len(waiting), dtype=bool)
    while waiting.any():
        unbeaten = waiting & ~beats[waiting].any(axis=0)
        unbeaten = unbeaten if unbeaten.any() else waiting  # a circle, which decides nothing
        on_front |= unbeaten
        waiting = waiting & ~unbeaten & ~beats[unbeaten].any(axis=0)
    return on_front


def leaders(cost: Cost) -> np.ndarray:
    """Whether no other point's cost is less beyond doubt; a mask over the points."""
    return cost.is_known & ~cost.less().any(axis=0)


def alike(cost: Cost) -> list[list[int]]:
    """The largest sets of neighbours, two at least, of whom no two can be told apart."""
    found: list[set[int]] = []
    apart = cost.less() | cost.less().T
    points = [int(place) for place in np.argsort(cost.low, kind="stable") if cost.is_known[place]]
    for turn, start in enumerate(points):
        here = {start}
        for place in points[turn + 1 :]:
            if not apart[place, list(here)].any():
                here.add(place)
        if len(here) > 1 and not any(here <= other for other in found):
            found = [*(other for other in found if not other <= here), here]
    return [sorted(group) for group in found]


def contested(summary: pd.DataFrame) -> list[str]:
    """What memory is traded against: total time, stalls and admissions, and a high percentile of decode steps.

    Each is of the same work for all rows. A step is not, where a strategy splits appends, and the slowest of a few is
    chance. The percentile is the highest that has an interval; of a whole model, whose steps batch as many requests as
    a strategy has room for, of the gaps between tokens.
    """
    latency = "itl" if (summary["scope"] == "model").all() else "decode"
    columns = [latency_column(latency, statistic) for statistic in ("p99", "p90", "p50")]
    known = [column for column in columns if column in summary and summary[column].notna().any()]
    judged = [column for column in known if cost_of(summary, column).is_known.any()]
    return ["total_s", "allocation_s", *(judged or known)[:1]]


def splitters(summary: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Who takes more steps than others for the same tokens, as those do that split appends: its steps, and theirs.

    Args:
        summary: rows of one job. Of a whole model steps are iterations, and tell of batches instead.
    """
    rows = summary[(summary["outcome"].astype(str) == COMPLETED) & (summary["scope"] == "cache")]
    least = rows["num_steps"].min()
    more = rows[rows["num_steps"] > least]
    return {str(name): (count, least) for name, count in zip(more["strategy"], more["num_steps"], strict=True)}


def half_widths(summary: pd.DataFrame, column: str) -> np.ndarray:
    """Half of what a column's figures may be off by, a row each; NaN where that is not known.

    Of times, their interval where measured or replayed; where modelled otherwise half the model's error (as far as
    known), so that two on one machine differ where they are further apart than it is off; of attention's error, the
    rounding of the dtype; what is counted is exact.
    """
    values = summary[column].to_numpy(dtype=float)
    if column == ERROR:
        return roundings(summary) / 2
    if column not in WITH_INTERVAL:
        return np.zeros(len(summary))
    modelled, halves = values * np.nan_to_num(_numbers(summary, "step_error")) / 2, halves_of(summary, column)
    return np.where(is_modelled(summary) & ~is_replayed(summary), modelled, halves)


def roundings(summary: pd.DataFrame) -> np.ndarray:
    """Relative errors that rounding alone may give, a row each: those of its dtype, or of float32."""
    rounding: np.ndarray = np.fmax(_numbers(summary, ROUNDING), LEAST_ERROR)
    return rounding


def rounded_cost(values: np.ndarray, lossless: np.ndarray) -> Cost:
    """Figures of a real model, such as perplexity, as a cost: what lossless rows differ by is rounding alone.

    Args:
        values: smaller is better.
        lossless: which of them are of caches that attention reads whole and unchanged.
    """
    own = values[lossless & np.isfinite(values)]
    rounding = np.ptp(own) if own.size else 0.0
    return Cost.around(values, np.maximum(LEAST_ERROR * np.abs(values), rounding) / 2)


def cost_of(summary: pd.DataFrame, column: str, less_is_better: bool = True) -> Cost:
    """A column of a summary as a cost; of the peak, from the least of the repetitions' to the most."""
    values = summary[column].to_numpy(dtype=float)
    if column == MEMORY:
        values = np.where(values > 0, values, np.nan)  # who never held anything
        return Cost(np.fmin(_numbers(summary, LEAST_MEMORY), values), values)
    sign, draws = 1 if less_is_better else -1, draws_of(summary, column)
    cost = Cost.around(sign * values, half_widths(summary, column))
    return cost if draws is None else cost._replace(draws=sign * draws)


def may_win(summary: pd.DataFrame) -> np.ndarray:
    """Which rows compete: those that completed, and are no reference."""
    completed: np.ndarray = (summary["outcome"].astype(str) == COMPLETED).to_numpy()
    competing: np.ndarray = completed & ~is_reference(summary)
    return competing


def unserved(row: Mapping[str, Any]) -> str:
    """Why a row of a summary does not have all requests served; "" where it has."""
    outcome = str(row.get("outcome", COMPLETED))
    return "" if outcome == COMPLETED else f"not all were served: {outcome}"


def is_reference(summary: pd.DataFrame) -> np.ndarray:
    """Which rows are of strategies that are shown to compare with, and never chosen."""
    told = summary.get("reference", pd.Series(data=False, index=summary.index))
    return (told == True).to_numpy(dtype=bool)  # noqa: E712, may be missing


def front_of(summary: pd.DataFrame, column: str) -> np.ndarray:
    """Which rows are on the front of peak memory and a column of which less is better."""
    competing = may_win(summary)
    return pareto_front(cost_of(summary, MEMORY).among(competing), cost_of(summary, column).among(competing))


def leaders_of(summary: pd.DataFrame, column: str, less_is_better: bool) -> np.ndarray:
    """Which rows no other beats in a column."""
    return leaders(cost_of(summary, column, less_is_better).among(may_win(summary)))


def highlighted(summary: pd.DataFrame, most: int = MOST_COLOURED) -> list[str] | None:
    """The strategies that a crowded chart shows in colour; None where there are no more than `most`.

    They are those on a front, of time or of error, the ones on most fronts first; then those on the fronts of what is
    left, and so on. Of a fleet they are those that lead in goodput, throughput or time to first token.
    """
    names = summary["strategy"].astype(str)
    if names.nunique() <= most:
        return None
    found: list[str] = []
    while len(found) < most:
        rows = summary[~names.isin(found)]
        if is_fleet(summary):
            masks = [
                leaders_of(rows, column, column not in MORE_IS_BETTER)
                for column in _OF_FLEET
                if rows[column].notna().any()
            ]
        else:
            lossy = [ERROR] if ERROR in rows and rows[ERROR].notna().any() else []
            masks = [front_of(rows, column) for column in [*contested(rows), *lossy]]
        count = pd.Series(np.sum(masks, axis=0), names[rows.index]).groupby(level=0, sort=False).max()
        best = count[count > 0].sort_values(ascending=False, kind="stable").index.tolist()
        if not best:
            break
        found += best
    return found[:most]


def _numbers(summary: pd.DataFrame, column: str) -> np.ndarray:
    return summary[column].to_numpy(dtype=float) if column in summary else np.full(len(summary), np.nan)


def row_of_least(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The row whose value is the least, of equal ones the first.

    Args:
        rows: at least one with a value.
        values: one a row; NaN where there is none.
    """
    return rows.iloc[int(np.nanargmin(values.to_numpy(dtype=float)))]


def row_of_most(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """As `row_of_least`, of the most."""
    return row_of_least(rows, -values)
