"""What bound each strategy's service, in words."""

from collections.abc import Sequence

import pandas as pd

from kvbench.charts.text import listed, markdown_escape, percent
from kvbench.results.columns import LIMITS as NAMES

_WORDS = (
    "nobody waited",
    "for a place in the batch",
    "for memory",
    "for blocks of a pool that is smaller than the budget",
    "for computing",
)
LIMITS = {f"{name}_share": words for name, words in zip(NAMES, _WORDS, strict=True)}
"""What the head of the queue waited for, by the summary's column."""
LEAST = 5e-4
"""Smaller shares are not told."""
MOST_ROWS = 12


def is_bound(summary: pd.DataFrame) -> bool:
    """Whether requests waited for each other, or for anything else, in some row."""
    return any(column in summary and summary[column].gt(LEAST).any() for column in list(LIMITS)[1:])


def binding_limits(summary: pd.DataFrame) -> list[str]:
    """What bound each row most, and for how much of the time, such as "batch 83 %"; empty where nothing tells."""
    shares = summary[list(LIMITS)].astype(float)
    known = _tells(summary)
    largest = shares[known].idxmax(axis=1).reindex(shares.index)
    return [
        f"{column.removesuffix('_share')} {percent(shares.loc[row, column])}" if known[row] else ""
        for row, column in largest.items()
    ]


def bound_by(rows: pd.DataFrame, names: Sequence[str] | None = None) -> list[str]:
    """What the next request waited for in each row, the longest first; nothing where nothing tells.

    Args:
        rows: of a summary.
        names: theirs, in Markdown; None: their strategies'.
    """
    if not set(LIMITS) <= set(rows):
        return []
    names = [markdown_escape(name) for name in rows["strategy"]] if names is None else names
    pairs = zip(names, rows.to_dict("records"), _tells(rows), strict=True)
    told = list(dict.fromkeys(f"{name}: {_told(row)}" for name, row, is_known in pairs if is_known))
    if not told:
        return []
    said = told[:MOST_ROWS]
    said += [f"{len(told) - MOST_ROWS} more rows in the table"] if len(told) > MOST_ROWS else []
    return [f"What the next request waited for, as shares of the time. {'; '.join(said)}."]


def _tells(rows: pd.DataFrame) -> pd.Series:
    """Which rows' shares say something: they were recorded, and of a service, not of refusals alone."""
    return rows[list(LIMITS)].notna().all(axis=1) & rows["num_completed"].ne(0)


def _told(row: dict[str, float]) -> str:
    shares = {words: row[column] for column, words in LIMITS.items()}
    ordered = sorted(shares, key=shares.get, reverse=True)
    return listed([f"{words} {percent(shares[words])}" for words in ordered if shares[words] >= LEAST])
