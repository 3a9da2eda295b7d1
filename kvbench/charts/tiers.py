"""Whether tiers below the device paid: what loading took beside what computing the same tokens would have."""

import pandas as pd

from kvbench.charts.rows import row_names
from kvbench.charts.text import duration, number
from kvbench.results.tier_columns import TIERS, tier_column


def break_even(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """A sentence a row and tier that something was loaded from.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        swept: columns that tell jobs apart.
    """
    said = []
    for tier, place in TIERS.items():
        columns = [tier_column(tier, figure) for figure in ("load_s", "saved_s")]
        rows = summary[summary[columns[0]].gt(0)]
        for name, (load_s, saved_s) in zip(row_names(rows, swept), rows[columns].to_numpy(dtype=float), strict=True):
            times = f"{number(saved_s / load_s)} times" if saved_s >= load_s else f"1/{number(load_s / saved_s)} of"
            said.append(
                f"{name}: loading from {place} took its link {duration(load_s)}; computing those "
                f"tokens would have taken {duration(saved_s)}, {times} that."
            )
    return said
