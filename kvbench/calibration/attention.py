"""Figures of attention's kernels, fitted to measured ones; and what a table's rows of attention take by them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.robust import fitted
from kvbench.calibration.tables import is_held_out
from kvbench.model.dtypes import kv_dtype
from kvbench.model.hardware import Hardware
from kvbench.timing.attention import CACHES, FLAGS, MADE, WIDE_CACHES, Attention, attention_figures
from kvbench.timing.kernels import Kernels
from kvbench.timing.rooflines import Peaks
from kvbench.timing.shapes import AttentionShape

Numbers = NDArray[np.float64]

OPS = {"prefill": "prefill_attention", "decode": "decode_attention"}
HEADS = ("num_heads", "num_kv_heads", "head_dim", "dtype", "kv_dtype", "window")
MOST = {"share": 1.0, "memory_share": 1.0, "tiring": 0.2}
"""Of figures. Accelerators tire by a power of 0.05 at most; a large one made long kernels endless by short ones."""
DIGITS = 3


class Alike(NamedTuple):
    """Rows of a table of one operation and heads.

    Args:
        at: their places.
        op: of OPS.
        shape: their heads.
        batch: sequences, a row.
        new: tokens of each that are computed.
        before: tokens of each before those.
    """

    at: NDArray[np.intp]
    op: str
    shape: AttentionShape
    batch: Numbers
    new: Numbers
    before: Numbers


def fit_attention(frame: pd.DataFrame, hardware: Hardware) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of prefill and decode attention, from the rows of a table that are not held out.

    Args:
        frame: from `tables.read_kernels`. Rows of other operations are left.
        hardware: that it was measured on, whose peaks figures are shares of.
    Returns:
        What a hardware file's `kernels` has of `attention`: by kind of attention and the cache's dtype.
    Raises:
        ValueError: it has no rows of attention that fit.
    """
    peaks = Peaks(hardware.memory_bytes_per_s, hardware.flops_per_s)
    figures_of = dict.fromkeys(WIDE_CACHES, CACHES[0]) | {name: name for name in CACHES}
    caches = frame["kv_dtype"].map(figures_of)
    rows = frame[frame["op"].isin(OPS.values()) & caches.notna()]
    rows = rows[~is_held_out(rows)]
    if rows.empty:
        raise ValueError(f"no rows of {' or '.join(OPS.values())} to fit, of a cache of {' or '.join(figures_of)}")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, op in OPS.items():
        for cache in CACHES:
            own = rows[(rows["op"] == op) & (caches[rows.index] == cache)]
            if len(own):
                figures.setdefault(kind, {})[cache] = _figures(kind, cache, own, peaks)
    return figures


def attention_s(rows: pd.DataFrame, attention: Attention | Kernels) -> Numbers:
    """What a table's rows of attention take by an accelerator's figures.

    Args:
        rows: of a table, of OPS.
        attention: of the accelerator.
    """
    return _ours(_alike(rows), len(rows), attention)


def attention_shape(
    num_heads: int, num_kv_heads: int, head_dim: int, dtype: str, cache: str, window: int
) -> AttentionShape:
    """Heads as a table's columns say them."""
    return AttentionShape(
        int(num_heads), int(num_kv_heads), int(head_dim), int(head_dim), dtype, kv_dtype(cache), int(window)
    )


def _figures(kind: str, cache: str, own: pd.DataFrame, peaks: Peaks) -> dict[str, float]:
    """The nearest figures, of both ways that a kernel may go about it."""
    measured = own["seconds"].to_numpy(np.float64)
    typical: dict[str, float] = dict(MADE[kind]._field_defaults)
    (flag,) = (name for name in typical if name in FLAGS)
    del typical[flag]
    alike = _alike(own)

    def predicted(figures: Mapping[str, float]) -> Numbers:
        made = attention_figures("fit", {kind: {cache: figures}})
        return _ours(alike, len(own), Attention(peaks, made))

    def error(figures: Mapping[str, float]) -> float:
        return float(np.abs(predicted(figures) / measured - 1).mean())

    tried = []
    for value in (0.0, 1.0):
        way = {flag: value}
        most = {name: bound for name, bound in MOST.items() if name in typical}
        found = fitted(partial(_with, predicted, way), typical, measured, most)
        tried.append({name: float(f"{each:.{DIGITS}g}") for name, each in {**found, **way}.items()})
    return min(tried, key=error)


def _with(
    predicted: Callable[[Mapping[str, float]], Numbers], way: Mapping[str, float], figures: Mapping[str, float]
) -> Numbers:
    return predicted({**figures, **way})


def _alike(rows: pd.DataFrame) -> list[Alike]:
    found = []
    codes, keys = pd.factorize(pd.MultiIndex.from_frame(rows[["op", *HEADS]]))
    for code, (op, *heads) in enumerate(keys):
        at = np.flatnonzero(codes == code)
        own = rows.iloc[at]
        batch, new, before = (own[name].to_numpy(np.float64) for name in ("batch", "new_tokens", "context_tokens"))
        found.append(Alike(at, op, attention_shape(*heads), batch, new, before))
    return found


def _ours(alike: Sequence[Alike], number: int, attention: Attention | Kernels) -> Numbers:
    found = np.empty(number)
    for rows in alike:
        if rows.op == OPS["prefill"]:
            found[rows.at] = attention.prefill_s(rows.new, rows.before, rows.shape, rows.batch)
        else:
            most = rows.shape.window or np.inf
            found[rows.at] = attention.decode_s(rows.batch * np.minimum(rows.before + 1, most), rows.batch, rows.shape)
    return found
