"""What bound each strategy's service, in words: what the next request waited for, and pools that held requests up."""

import pandas as pd

from kvbench.charts.rows import row_names
from kvbench.charts.text import listed, mib, number, percent
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
NOBODY = next(iter(LIMITS))
HALF = 0.5
LEAST = 5e-4
"""Smaller shares are not told."""


def is_bound(summary: pd.DataFrame) -> bool:
    """Whether requests waited for each other, or for anything else, in some row."""
    return any(column in summary and summary[column].gt(LEAST).any() for column in list(LIMITS)[1:])


def binding_limits(summary: pd.DataFrame) -> list[str]:
    """What bound each row most, and for how much of the time, such as "batch 83 %"; empty where nothing tells."""
    shares = summary[list(LIMITS)].astype(float)
    known = _tells(summary)
    largest = shares[known].idxmax(axis=1).reindex(shares.index)
    return [
        f"{str(column).removesuffix('_share')} {percent(share)}" if is_known else ""
        for column, share, is_known in zip(largest, shares.max(axis=1), known, strict=True)
    ]


def bound_by(rows: pd.DataFrame, parameters: list[str]) -> str:
    """What the next request waited for longest, and whose; that nobody waited, where that was so most of the time.

    "" where nothing tells. Markdown.

    Args:
        rows: of a summary.
        parameters: columns that tell jobs apart.
    """
    if not set(LIMITS) <= set(rows):
        return ""
    known = _tells(rows)
    shares = rows.loc[known, list(LIMITS)].astype(float)
    names = pd.Series(row_names(rows, parameters), index=rows.index)[known]
    shares[NOBODY] = shares[NOBODY].where(shares[NOBODY] >= HALF, 0.0)
    held: dict[str, list[str]] = {}
    for name, column, share in zip(names, shares.idxmax(axis=1), shares.max(axis=1), strict=True):
        held.setdefault(LIMITS[str(column)], []).append(f"{name} {percent(share)}")
    return "; ".join(f"{words}: {listed(who)}" for words, who in held.items())


def _tells(rows: pd.DataFrame) -> pd.Series:
    """Which rows' shares say something: they were recorded, and of a service, not of refusals alone."""
    return rows[list(LIMITS)].notna().all(axis=1) & rows["num_completed"].ne(0)


WHOLE = 0.99
"""Of the memory beside staging buffers: a pool of this share is all of it, but for a part of a block."""


def pool_notes(summary: pd.DataFrame, parameters: list[str]) -> list[str]:
    """A sentence for each row that its own pool held up; it comes before all that compares.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart.
    Returns:
        Markdown.
    """
    if not {"pool_bytes", "available_bytes"} <= set(summary.columns):
        return []
    names = row_names(summary, parameters)
    return [_sentence(name, row) for name, (_, row) in zip(names, summary.iterrows(), strict=True) if _is_held_up(row)]


def _is_held_up(row: pd.Series) -> bool:
    left_bytes = row["available_bytes"] - max(row.get("workspace_bytes", 0), 0)
    is_short = row.get("pool_share", 0) > LEAST or row["num_preemptions"] > 0 or row["outcome"] != "completed"
    return bool(is_short and 0 < row["pool_bytes"] < WHOLE * left_bytes)


def _sentence(name: str, row: pd.Series) -> str:
    preemptions = f"{number(row['num_preemptions'])} preemption{'' if row['num_preemptions'] == 1 else 's'}"
    return (
        f"{name} is bound by its pool of {mib(row['pool_bytes'])}, not by the {mib(row['available_bytes'])} caches "
        f"may have: {preemptions}; {row['outcome']}. pool_tokens=null is all that staging buffers leave of them."
    )
