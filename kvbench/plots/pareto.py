"""Memory against time: which strategies no other beats in both."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.plots.canvas import canvas, finish, label
from kvbench.plots.rows import failures, notes_of, strategy_names
from kvbench.plots.style import INK, looks, short_names
from kvbench.plots.tradeoff import FRONT, PEAK, name_points, peak_memory, point_mark, points_panel, row_texts
from kvbench.plots.units import finite_max
from kvbench.provenance import require_one_kind

PANELS = (
    ("Slowest step", ("step_max_us",)),
    ("Total stall", ("stall_s",)),
    ("99th percentile", ("decode_p99_us", "step_p99_us")),
)


def pareto_chart(summary: pd.DataFrame, parameters: list[str] | None = None) -> Figure:
    """Peak memory against the slowest step, the total stall and the 99th percentile, each with its Pareto front.

    The front joins the strategies that no other beats in both. A strategy that did not complete is hollow and on no
    front. Beyond 12 points only those on the front are named. Bars are 95 % confidence intervals from repetitions.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: swept columns, whose values then stand beside the name.
    Raises:
        ValueError: rows differ in source, scope or engine.
    """
    require_one_kind(summary, "a front of memory and time")
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    figure, panels = canvas(1, len(PANELS), 3.9)
    memory, unit = peak_memory(summary)
    drawn = []
    for axes, (title, columns) in zip(panels, PANELS, strict=True):
        column = next((name for name in columns if finite_max(summary.get(name, math.nan)) > 0), columns[0])
        label(axes, "", f"{PEAK.label} memory ({unit.name})", title)
        drawn.append(points_panel(axes, summary, column, memory, style))
    legend = [(point_mark(style[name], True), short[name]) for name in names]
    legend.append((Line2D([], [], color=INK, linewidth=1.2, linestyle=FRONT), "Pareto front"))
    notes = notes_of(summary)
    if parameters:
        notes.append(f"Beside a name: {', '.join(parameter.removeprefix('strategy.') for parameter in parameters)}.")
    if failures(summary):
        notes.append("Hollow: not completed, on no front.")
    finish(figure, "Peak memory against time: lower left is better", legend, notes)
    texts = row_texts(summary, parameters or [])
    for axes, panel in zip(panels, drawn, strict=True):
        if panel is not None:
            name_points(figure, axes, panel, texts)
    return figure
