"""What data sheets are off by: typical figures held against tables of kernels, as of a machine that nobody measured."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from kvbench.calibration.validation.kernels import KINDS_OF, is_doubtful, judged_kernels
from kvbench.model.hardware import Hardware
from kvbench.timing.doubt import LEVELS, Quantiles, quantiles_of
from kvbench.timing.kernels import kernels_of

MIDDLE = 0.5


def off_by_sheets(measured: Iterable[tuple[Hardware, pd.DataFrame]]) -> dict[str, Quantiles]:
    """Quantiles of ln(measured ÷ ours) by kind of work, the widest of all machines at each level.

    Args:
        measured: machines, and their tables from `tables.read_kernels`; what was fitted to them is left out.
    """
    found: dict[str, list[Quantiles]] = {}
    for hardware, table in measured:
        rows = judged_kernels(table[~is_doubtful(table)], kernels_of(replace(hardware, kernels=None))).rows
        for kind, own in rows.groupby(rows["kind"].map(KINDS_OF), sort=False):
            found.setdefault(str(kind), []).append(quantiles_of(own["published"].to_numpy(), own["ours"].to_numpy()))
    return {kind: _widest(each) for kind, each in found.items()}


def _widest(quantiles: list[Quantiles]) -> Quantiles:
    ends = np.array(quantiles)
    low, middle, high = ends.min(axis=0), np.median(ends, axis=0), ends.max(axis=0)
    levels = np.array(LEVELS)
    widest = np.where(levels < MIDDLE, low, np.where(levels > MIDDLE, high, middle))
    return tuple(float(value) for value in widest)
