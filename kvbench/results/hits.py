"""What prompts find in the cache over time, by tier, and the queue of each tier's link: from rows of a timeline."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.results.replicas import share_of
from kvbench.results.series import FOUND, stretches_of

LOADS = {"host": "host_loads", "disk": "disk_loads", "remote": "remote_loads"}
"""Columns of loads under way, by tier."""


class Hits(NamedTuple):
    """One strategy's hits: edges of stretches in s, one more than there are, and by tier, but for those without any.

    Args:
        edges_s: of the stretches.
        shares: of prompt tokens looked for in each stretch, those found in a tier; NaN where none were looked for.
        loads: loads that wait for a tier's link, or are on their way, over the stretch.
        whole: as the shares, of the whole run.
    """

    edges_s: np.ndarray
    shares: dict[str, np.ndarray]
    loads: dict[str, np.ndarray]
    whole: dict[str, float]


def hits_of(timeline: pd.DataFrame, summary: pd.DataFrame, most: int) -> dict[str, Hits]:
    """Each strategy's hits, of those that look for blocks.

    Args:
        timeline: a row a stretch and strategy.
        summary: a row a strategy.
        most: stretches to keep of a strategy.
    """
    if "queried_tokens" not in timeline or not timeline["queried_tokens"].gt(0).any():
        return {}
    found = {}
    for name, own in stretches_of(timeline, summary, most).items():
        rows = timeline[(timeline["strategy"].astype(str) == name).to_numpy()]
        looked, num_looked = own.values["queried_tokens"], float(rows["queried_tokens"].sum())
        if num_looked > 0:
            tiers = [tier for tier, column in FOUND.items() if tier == "device" or rows[column].gt(0).any()]
            found[name] = Hits(
                edges_s=own.edges_s,
                shares={tier: share_of(own.values[FOUND[tier]], looked) for tier in tiers},
                loads={tier: own.values[LOADS[tier]] for tier in tiers if tier in LOADS},
                whole={tier: float(rows[FOUND[tier]].sum()) / num_looked for tier in tiers},
            )
    return found
