"""A timeline's rows as lines and areas: one strategy's stretches of time, and where the last one ends."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.results.schema import TIMELINE

MOST = 400
"""Stretches shown of a strategy, as many as a panel has places for."""


class Stretches(NamedTuple):
    """One strategy's timeline: edges of its stretches in s, one more than there are, and values of each column."""

    edges_s: np.ndarray
    values: dict[str, np.ndarray]

    def stepped(self, column: str) -> np.ndarray:
        """A value an edge, for a line that steps after each: the last is repeated."""
        return np.append(self.values[column], self.values[column][-1:])


def stretches_of(timeline: pd.DataFrame, summary: pd.DataFrame, most: int = MOST) -> dict[str, Stretches]:
    """Each strategy's stretches; neighbouring ones are joined into one where there are more than can be seen.

    Args:
        timeline: a row a stretch and strategy.
        summary: a row a strategy; its makespan ends a timeline of a single stretch.
        most: stretches to keep of a strategy.
    """
    found = {}
    makespans = dict(zip(summary["strategy"].astype(str), summary["makespan_s"].astype(float), strict=True))
    for name, rows in timeline.groupby(timeline["strategy"].astype(str), sort=False):
        starts = rows["time_s"].to_numpy(dtype=float)
        width = starts[1] - starts[0] if len(starts) > 1 else makespans.get(str(name), 0.0) or 1.0
        edges = np.append(starts, starts[-1] + width)
        joined = -(-len(starts) // most)
        firsts = np.arange(0, len(starts), joined)
        counts = np.diff(np.append(firsts, len(starts)))
        columns = [column for column in TIMELINE if column not in ("strategy", "time_s")]
        values = {column: _joined(column, rows[column].to_numpy(dtype=float), firsts, counts) for column in columns}
        found[str(name)] = Stretches(np.append(edges[firsts], edges[-1]), values)
    return found


def _joined(column: str, values: np.ndarray, firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of means, the most of what is the most."""
    if "_max" in column:
        return np.maximum.reduceat(values, firsts)
    return np.add.reduceat(values, firsts) / counts
