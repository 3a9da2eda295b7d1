"""A fleet's replicas over time, a table a figure: from rows of a stretch, replica and strategy."""

from typing import NamedTuple

import numpy as np
import pandas as pd

COLUMNS = ("num_live", "num_waiting", "allocated_bytes", "queried_tokens", "found_tokens")


class ReplicaFigures(NamedTuple):
    """One strategy's replicas: edges of stretches in s, one more than there are, and [replicas, stretches] of each.

    Args:
        edges_s: of the stretches.
        load: requests live and waiting.
        held: bytes that requests hold, as a share of what is available to a replica's caches; NaN where that is not
            known.
        found: prompt tokens found in its cache, as a share of those looked for; NaN where none were.
        found_shares: [replicas]; the same of the whole run.
    """

    edges_s: np.ndarray
    load: np.ndarray
    held: np.ndarray
    found: np.ndarray
    found_shares: np.ndarray

    def of(self, figure: str) -> np.ndarray:
        """A figure by its name."""
        values: np.ndarray = getattr(self, figure)
        return values


def share_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What share is found of what is looked for; NaN where nothing is."""
    shares: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def figures_of_replicas(replicas: pd.DataFrame, summary: pd.DataFrame) -> dict[str, ReplicaFigures]:
    """Each strategy's replicas.

    Args:
        replicas: a row a stretch, replica and strategy, by replica and time.
        summary: a row a strategy.
    """
    found = {}
    names = summary["strategy"].astype(str)
    makespans = dict(zip(names, summary["makespan_s"].astype(float), strict=True))
    available = dict(zip(names, summary["available_bytes"].astype(float), strict=True))
    for name, own in replicas.groupby(replicas["strategy"].astype(str), sort=False):
        num_replicas = int(own["replica"].max()) + 1
        starts = own["time_s"].to_numpy(dtype=float)[: len(own) // num_replicas]
        width = starts[1] - starts[0] if len(starts) > 1 else makespans.get(str(name), 0.0) or 1.0
        tables = {column: own[column].to_numpy(dtype=float).reshape(num_replicas, -1) for column in COLUMNS}
        found[str(name)] = ReplicaFigures(
            edges_s=np.append(starts, starts[-1] + width),
            load=tables["num_live"] + tables["num_waiting"],
            held=num_replicas * tables["allocated_bytes"] / available.get(str(name), np.nan),
            found=share_of(tables["found_tokens"], tables["queried_tokens"]),
            found_shares=share_of(tables["found_tokens"].sum(axis=1), tables["queried_tokens"].sum(axis=1)),
        )
    return found
