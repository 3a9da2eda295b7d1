"""Which of the keys that were searched a goal depends on: how much of its spread goes once a key's value is known."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kvbench.decide.objectives import Goal

LEAST = 20
"""Deployments that a share takes, and half as many beyond the values of its key: of fewer it is chance."""
MOST_VALUES = 8
QUARTERS = 4
"""Stretches with equal numbers of deployments, of a key with more values than that."""


def importance(rows: pd.DataFrame, keys: Sequence[str], goal: Goal) -> dict[str, float]:
    """By key the share of the goal's spread that goes with its value, the largest first.

    Of a logarithm, where all figures are above 0: a factor counts alike at any size. It is corrected for what as many
    values take of a spread by chance. What two keys do together is in neither.

    Args:
        rows: of a search.
        keys: that were searched; one that some deployments lack is judged among those that have it.
        goal: what is wanted.
    Returns:
        Shares from 0 to 1; {} where too few were served, or they do not differ.
    """
    figures = rows[goal.column].to_numpy(dtype=float)
    served = (rows["error"] == "").to_numpy() & np.isfinite(figures)
    told = figures[served]
    spread = np.log(told) if (told > 0).all() else told
    found = {}
    for key in keys:
        groups = _groups(rows.loc[served, key])
        share = _share(spread[groups >= 0], groups[groups >= 0])
        if share is not None:
            found[key] = share
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _groups(values: pd.Series) -> np.ndarray:
    """The number of each value, -1 where there is none; of many numbers, of a quarter of them."""
    numbers = pd.to_numeric(values, errors="coerce")
    if values.nunique() > MOST_VALUES and numbers.notna().sum() == values.notna().sum():
        values = pd.qcut(numbers, QUARTERS, labels=False, duplicates="drop")
    found: np.ndarray = pd.factorize(values)[0]
    return found


def _share(spread: np.ndarray, groups: np.ndarray) -> float | None:
    number, several = len(spread), len(np.unique(groups))
    if several < 2 or number < max(LEAST, several + LEAST // 2):  # noqa: PLR2004
        return None
    total = float(((spread - spread.mean()) ** 2).sum())
    if total <= 1e-18 * number:
        return None
    means = np.bincount(groups, spread)[groups] / np.bincount(groups)[groups]
    within = float(((spread - means) ** 2).sum())
    return max(0.0, 1 - within / (number - several) * (number - 1) / total)
