"""Pools of blocks that are smaller than the memory that there is, and are what a strategy is held up by."""

import pandas as pd

from kvbench.charts.jobs import row_names
from kvbench.charts.limits import LEAST
from kvbench.charts.text import mib, number

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
