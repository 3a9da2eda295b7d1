"""Intervals of modelled runs: their steps' times taken apart by kind of work, and put together with other times of it.

Nothing is run again: which requests meet is taken to be the same, and all times of a strategy to grow alike.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kvbench.backend.base import Backend
from kvbench.results.columns import FROM, ends
from kvbench.results.intervals import RESIDUALS, SHEETS, ends_of
from kvbench.results.replays import REPLAY
from kvbench.results.schema import SUMMARY, WITH_INTERVAL
from kvbench.results.summary import US_PER_S
from kvbench.timing.doubt import doubt_of

CACHE_US = ["reserve_us", "append_us", "move_us"]
"""What only moves bytes."""


def with_doubt(
    summary: pd.DataFrame, steps: pd.DataFrame, backend: Backend
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """A summary of modelled rows with intervals, and the values in replays that these come from.

    Args:
        summary: a row a strategy.
        steps: from `steps_frame`.
        backend: what carried it out; of the cache on a calibrated machine, intervals are those of its validation.
    Returns:
        The summary as it was, and None, where nothing is modelled or no replays are asked for.
    """
    hardware = backend.hardware
    if hardware is None or not backend.replays or (hardware.curves is not None and backend.scope == "cache"):
        return summary, None
    doubt = doubt_of(hardware)
    draws = pd.DataFrame(doubt.draws(backend.replays))
    rows, replays = [], []
    for row in summary.to_dict("records"):
        spent = spent_s(steps[steps["strategy"] == row["strategy"]], backend)
        values = _values(row, _times(spent, draws))
        told: dict[str, object] = {FROM: RESIDUALS if doubt.is_measured else SHEETS}
        for name, own in values.items():
            told |= zip(ends(name), ends_of(row[name], own), strict=True)
        rows.append(row | told)
        replays.append(pd.DataFrame({"strategy": row["strategy"], REPLAY: range(len(draws)), **values}))
    return pd.DataFrame(rows).reindex(columns=list(summary)), pd.concat(replays, ignore_index=True)


def _times(spent: Mapping[str, float], draws: pd.DataFrame) -> np.ndarray:
    """How many times as long all takes, a value a draw."""
    total = sum(spent.values())
    weights = pd.Series(spent) / total if total else pd.Series(spent)
    return 1 + ((draws[weights.index] - 1) @ weights).to_numpy(dtype=float)


def spent_s(steps: pd.DataFrame, backend: Backend) -> dict[str, float]:
    """Seconds of a strategy's steps by kind of work."""
    done = steps[steps["num_tokens"] > 0]
    is_decode = (done["phase"] == "decode").to_numpy()
    attend_s = done["attend_us"].to_numpy(dtype=float) / US_PER_S
    found = {
        "traffic": float(steps[CACHE_US].to_numpy(dtype=float).sum()) / US_PER_S,
        "decode": float(attend_s[is_decode].sum()),
        "prefill": float(attend_s[~is_decode].sum()),
    }
    iterations = done.groupby(["repetition", "iteration"], sort=False)["num_tokens"].agg(["sum", "max", "size"])
    model_s = float(steps["model_us"].sum()) / US_PER_S
    kinds = backend.work_s(*(iterations[name].to_numpy() for name in iterations)) if model_s else {}
    for kind, own_s in kinds.items():
        found[kind] = found.get(kind, 0.0) + own_s
    return found | {"host": max(model_s - sum(kinds.values()), 0.0)}


def _values(row: Mapping[Any, Any], times: np.ndarray) -> dict[str, np.ndarray]:
    """Figures in replays, in which all takes so many times as long: times, and rates."""
    found = {}
    for name in WITH_INTERVAL:
        value, unit = row.get(name, math.nan), SUMMARY[name].unit
        if unit and isinstance(value, int | float) and math.isfinite(value):
            found[name] = value / times if unit.endswith("/s") else value * times
    return found
