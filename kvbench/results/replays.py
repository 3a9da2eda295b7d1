"""Replays of a simulation with other times of work: a row a strategy and replay, joined to the summary where it judges.

Replay i of every strategy has the same times of work, so that what two strategies share cancels in their difference.
"""

import numpy as np
import pandas as pd

REPLAY = "replay"
DRAWS = "_draws"
"""Ends the name of a column that has, in each row, an array of a figure's values in the replays."""


def with_draws(summary: pd.DataFrame, replays: pd.DataFrame | None) -> pd.DataFrame:
    """A summary with, beside each figure that was replayed, its values in the replays; of rows without, none.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        replays: a row a row of the summary and replay, in the order of replays; None: there were none.
    """
    if replays is None or replays.empty or summary.empty:
        return summary
    figures = [name for name in map(str, replays) if name in summary and f"{name}_low" in summary]
    keys = [name for name in map(str, replays) if name in summary and name not in figures]
    found = dict(iter(replays.groupby(_keys(replays, keys), sort=False)))
    nothing = np.zeros(0)
    told = {
        name + DRAWS: [
            found[key][name].to_numpy(dtype=float) if key in found else nothing for key in _keys(summary, keys)
        ]
        for name in figures
    }
    return summary.assign(
        **{name: pd.Series(values, index=summary.index, dtype=object) for name, values in told.items()}
    )


def draws_of(summary: pd.DataFrame, column: str) -> np.ndarray | None:
    """A figure's values in the replays, [rows, replays]; NaN in rows without; None where no row has any."""
    if column + DRAWS not in summary:
        return None
    rows = summary[column + DRAWS].tolist()
    number = max(map(len, rows), default=0)
    if not number:
        return None
    return np.array([row if len(row) == number else np.full(number, np.nan) for row in rows])


def _keys(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """What tells rows apart, as one text a row."""
    text = pd.Series("", index=frame.index)
    for name in names:
        values = frame[name].astype(object)
        text = text + "\n" + values.where(values.notna(), "").astype(str)
    return text
