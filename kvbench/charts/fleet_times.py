"""How a fleet's TTFT, TPOT and latency are distributed over requests."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.ecdf import ecdf, mark_shares
from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.style import INK, Look, looks, short_names
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.schema import REQUESTS

PANELS = (
    ("ttft_s", "ttft_objective_s", "Time to first token"),
    ("tpot_s", "tpot_objective_s", "Time per output token"),
    ("latency_s", None, "Latency"),
)
OBJECTIVE = (0, (5, 2))
MOST_TICKS = 6


def fleet_times_chart(summary: pd.DataFrame, requests: pd.DataFrame) -> Figure:
    """The share of completed requests that are no slower, a panel a time, a line a strategy; the objective marked.

    Args:
        summary: a row a strategy.
        requests: a row a request and strategy.
    """
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    figure, panels = canvas(1, len(PANELS), 4.2)
    strategies = requests["strategy"].astype("category")
    completed = (requests["outcome"] == "completed").to_numpy(dtype=bool)
    own = {name: requests[(strategies == name).to_numpy() & completed] for name in names}
    drawn: dict[str, Line2D] = {}
    objectives: list[Line2D] = []
    for axes, (column, objective, title) in zip(panels, PANELS, strict=True):
        values = {name: rows[column].dropna().to_numpy(dtype=float) for name, rows in own.items()}
        wanted = summary[objective].dropna().unique() if objective else np.array([])
        lines, marks = _panel(axes, title, column, values, style, wanted)
        drawn |= lines
        objectives += marks
    notes = notes_of(summary)
    missing = [name for name in names if name not in drawn]
    if missing and drawn:
        notes.append(f"No request completed: {', '.join(missing)}.")
    legend = [(drawn[name], short[name]) for name in names if name in drawn]
    legend += [(line, "objective") for line in objectives[:1]]
    return finish(figure, "Times of completed requests", legend, notes)


def _panel(
    axes: Axes, title: str, column: str, values: dict[str, np.ndarray], style: dict[str, Look], objectives: np.ndarray
) -> tuple[dict[str, Line2D], list[Line2D]]:
    """Draw one time's distributions, and its objectives; the lines of both."""
    there = {name: own for name, own in values.items() if len(own)}
    unit = shown_unit(REQUESTS[column], [np.median(own) for own in there.values()])
    label(axes, REQUESTS[column].axis(unit.name), "Share of requests no slower", title)
    if not there:
        empty(axes, "no completed request has one")
        return {}, []
    lines = {name: ecdf(axes, own / unit.divisor, style[name]) for name, own in there.items()}
    marks = [
        axes.axvline(objective / unit.divisor, color=INK, linestyle=OBJECTIVE, linewidth=1.2)
        for objective in objectives
    ]
    ends = [end / unit.divisor for own in there.values() for end in (own.min(), own.max())]
    number_axis(axes, "x", [*ends, *(objectives / unit.divisor)], most=MOST_TICKS)
    mark_shares(axes)
    return lines, marks
