"""What tiers below the device did for requests: a strategy's figures of the summary, see tier_columns.py."""

import math

import pandas as pd

from kvbench.results.columns import UNREACHED
from kvbench.results.tier_columns import MOVED, TIERS, tier_column

LOADS = (*(f"{tier}_tokens" for tier in TIERS), "load_wait_s")
"""Columns of requests, which are summed over the turns of a session."""


def queried_tokens(requests: pd.DataFrame) -> int:
    """Prompt tokens that were looked for."""
    return int(requests.loc[requests["outcome"] != UNREACHED, "prompt_tokens"].sum())


def tier_figures(tiers: pd.DataFrame, requests: pd.DataFrame, makespan_s: float) -> dict[str, float]:
    """Of each tier that there is: shares of hits, bytes there and back, and what that took on its link.

    Args:
        tiers: a row a tier and repetition of a strategy: tier, what MOVED names, and load_s, write_s and saved_s where
            times are modelled.
        requests: of the same repetitions.
        makespan_s: mean over them.
    """
    found: dict[str, float] = {}
    queried = queried_tokens(requests)
    for tier, own in tiers.groupby("tier"):
        name = str(tier)
        figures = {"hit_share": float(requests[f"{name}_tokens"].sum()) / queried if queried else math.nan}
        figures |= {column: float(own[column].mean()) for column in MOVED}
        for what in ("load", "write"):
            if f"{what}_s" in own and makespan_s:
                figures[f"{what}_share"] = float(own[f"{what}_s"].mean()) / makespan_s
        figures |= {column: float(own[column].mean()) for column in ("load_s", "saved_s") if column in own}
        found |= {tier_column(name, figure): value for figure, value in figures.items()}
    return found
