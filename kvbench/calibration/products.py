"""Figures of products, experts, traffic and sums over accelerators, fitted to measured kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.corrections import corrections_of
from kvbench.calibration.robust import fitted
from kvbench.calibration.tables import is_held_out
from kvbench.model.hardware import Hardware
from kvbench.timing import experts, products
from kvbench.timing.experts import ExpertFigures
from kvbench.timing.figures import CORRECTIONS
from kvbench.timing.memory import TrafficFigures, traffic_s
from kvbench.timing.operands import OPERANDS, flops_of
from kvbench.timing.products import ProductFigures
from kvbench.timing.rooflines import Peaks
from kvbench.timing.shapes import ExpertShape

Numbers = NDArray[np.float64]
Figures = dict[str, Any]

FEWEST_ROWS, FEWEST_TO_CORRECT = 20, 200
"""Of a dtype, without which nothing is fitted to it, and without which what is left by shape is taken to be noise."""
MOST = {"share": 1.0, "compute_share": 1.0}
MOST_TRAFFIC = {"share": 1.25}
"""More than there is: of bytes beyond what the cache holds, too, it has some that the kernel before left there."""
DIGITS = 4
SAMPLER, LAUNCHED, REPLAYED = "sampler", "vllm_eager", "vllm_graph"
"""Beginnings of the details of rows: whose bytes are a lower bound; that launches and Python take a part of; and of
sums as an engine replays them, which stand for all sums where there are any."""
BALANCED = "routing=balanced"
"""Of rows in which tokens are dealt to experts in turn."""
CURVE_ERROR = 0.02
"""What a point of a curve may be off by when it is left out."""


def fit_products(frame: pd.DataFrame, hardware: Hardware) -> Figures:
    """Figures of products, experts, traffic and sums over accelerators, from the rows that are not held out.

    Args:
        frame: from `tables.read_kernels`. Rows of other operations are left, and those of dtypes that are not known.
        hardware: that it was measured on, whose peaks figures are shares of.
    Returns:
        What a hardware file's `kernels` has of these: by kind of work, and of the first two by dtype.
    """
    rows = frame[~is_held_out(frame)]
    by_op = {str(op): own.assign(dtype=own["dtype"].replace("float16", "bfloat16")) for op, own in rows.groupby("op")}
    found = {
        "products": _by_dtype(by_op.get("gemm"), hardware, _of_products),
        "experts": _by_dtype(by_op.get("moe"), hardware, _of_experts),
        "traffic": _of_traffic(by_op.get("elementwise"), hardware),
        "all_reduce": _of_sums(by_op.get("all_reduce")),
    }
    return {work: figures for work, figures in found.items() if figures}


def touched_by_rows(rows: pd.DataFrame, shape: ExpertShape) -> Numbers:
    """Experts that a table's rows of experts touch: as many as there can be where they are balanced."""
    number = rows["m"].to_numpy(np.float64)
    most = np.minimum(shape.num_experts, number * shape.top_k)
    return np.where(rows["detail"].str.startswith(BALANCED), most, experts.touched(number, shape))


def _by_dtype(
    rows: pd.DataFrame | None, hardware: Hardware, fit: Callable[[pd.DataFrame, str, Peaks], Figures]
) -> Figures:
    found = {}
    for dtype, own in () if rows is None else rows.groupby("dtype", sort=False):
        if dtype in OPERANDS and len(own) >= FEWEST_ROWS:
            name = str(dtype)
            found[name] = fit(own, name, Peaks(hardware.memory_bytes_per_s, flops_of(hardware, name)))
    return found


def _of_products(rows: pd.DataFrame, dtype: str, peaks: Peaks) -> Figures:
    m, n, k = (rows[name].to_numpy(np.float64) for name in ("m", "n", "k"))

    def predicted(figures: Any) -> Numbers:
        return products.product_s(m, n, k, OPERANDS[dtype], peaks, ProductFigures(**figures), None)

    return _corrected(predicted, ProductFigures._field_defaults, rows, products.KNOTS, (m, n, k))


def _of_experts(rows: pd.DataFrame, dtype: str, peaks: Peaks) -> Figures:
    names = ["num_experts", "top_k", "hidden", "intermediate"]
    places: Any = rows.groupby(names, sort=False).indices
    alike = [(at, ExpertShape._make((*key, dtype))) for key, at in places.items()]
    number = rows["m"].to_numpy(np.float64)
    touched = np.empty(len(rows))
    for at, shape in alike:
        touched[at] = touched_by_rows(rows.iloc[at], shape)

    def predicted(figures: Any) -> Numbers:
        found, told = np.empty(len(rows)), ExpertFigures(**figures)
        for at, shape in alike:
            found[at] = experts.experts_s(number[at], touched[at], shape, OPERANDS[dtype], peaks, told, None)
        return found

    all_experts, top_k, width = (rows[name].to_numpy(np.float64) for name in ("num_experts", "top_k", "intermediate"))
    coordinates = (number * top_k / all_experts, width, all_experts)
    return _corrected(predicted, ExpertFigures._field_defaults, rows, experts.KNOTS, coordinates)


def _corrected(
    predicted: Callable[[Any], Numbers],
    typical: dict[str, float],
    rows: pd.DataFrame,
    knots: Sequence[Sequence[float]],
    coordinates: Sequence[Numbers],
) -> Figures:
    """A form's figures, and corrections of what is left."""
    measured = rows["seconds"].to_numpy(np.float64)
    most = {name: bound for name, bound in MOST.items() if name in typical}
    figures: Figures = _rounded(fitted(predicted, typical, measured, most))
    if len(rows) >= FEWEST_TO_CORRECT:
        left = corrections_of(knots, coordinates, np.log(measured / predicted(figures)))
        figures[CORRECTIONS] = " ".join(map(str, left))
    return figures


def _of_traffic(rows: pd.DataFrame | None, hardware: Hardware) -> Figures:
    if rows is None or len(rows := rows[~rows["detail"].str.startswith(SAMPLER)]) < FEWEST_ROWS:
        return {}
    moved, measured = (rows[name].to_numpy(np.float64) for name in ("bytes", "seconds"))

    def predicted(figures: Any) -> Numbers:
        return traffic_s(moved, hardware.memory_bytes_per_s, TrafficFigures(**figures))

    return _rounded(fitted(predicted, TrafficFigures._field_defaults, measured, MOST_TRAFFIC))


def _of_sums(rows: pd.DataFrame | None) -> Figures:
    """Points of bytes and seconds by how many accelerators, those that lie on a line left out."""
    if rows is None:
        return {}
    details = rows["detail"].astype(str)
    replayed = details.str.startswith(REPLAYED)
    rows = rows[replayed] if replayed.any() else rows[~details.str.startswith(LAUNCHED)]
    found = {}
    for ranks, own in rows.groupby("num_gpus"):
        of_size = own.groupby("bytes")["seconds"].median()
        # A sum of more bytes does not take less: what a single one is late by is left out.
        seconds = np.minimum.accumulate(of_size.to_numpy()[::-1])[::-1]
        points = list(zip(of_size.index.tolist(), seconds.tolist(), strict=True))
        if len(points) > 1:
            found[str(ranks)] = [[size, _digits(value)] for size, value in _thinned(points)]
    return found


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points without which a line between their neighbours, both axes logarithmic, is as near as may be."""
    logs = np.log(points)
    kept = [0]
    for at in range(1, len(points) - 1):
        between = np.arange(kept[-1] + 1, at + 1)
        line = np.interp(logs[between, 0], logs[[kept[-1], at + 1], 0], logs[[kept[-1], at + 1], 1])
        if (np.abs(line - logs[between, 1]) > CURVE_ERROR).any():
            kept.append(at)
    return [points[at] for at in (*kept, len(points) - 1)]


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: _digits(value) for name, value in figures.items()}


def _digits(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
