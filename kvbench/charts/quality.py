"""What lossy strategies cost: memory against the error of attention's output, and needles found by depth."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.style import Look, looks, short_names
from kvbench.charts.tradeoff import (
    PEAK,
    legend_of_points,
    name_points,
    notes_of_points,
    peak_memory,
    points_panel,
    row_texts,
)
from kvbench.charts.units import number_axis, value_ticks
from kvbench.results.front import ERROR, roundings
from kvbench.results.schema import QUALITY, SUMMARY

RECALL = "needle_recall"
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
APART = 0.022
MOST_APART = 0.15


def has_quality(summary: pd.DataFrame) -> bool:
    """Whether there is a lossy strategy, and an error to show."""
    return bool((summary["lossless"] == False).any() and summary[ERROR].notna().any())  # noqa: E712, may be missing


def quality_chart(
    summary: pd.DataFrame, quality: pd.DataFrame | None = None, parameters: list[str] | None = None
) -> Figure:
    """Peak memory against the relative error of attention's output with its Pareto front; needles found by depth.

    A strategy that did not complete, or is a reference, is hollow and on no front; rounding decides none.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        quality: needles found, columns as in schema.QUALITY; None where none was planted, or for a sweep.
        parameters: swept columns, whose values then stand beside the name.
    """
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    figure, panels = canvas(1, 1 if quality is None else 2, 4.2)
    memory, unit = peak_memory(summary)
    label(panels[0], "", f"{PEAK.label} memory ({unit.name})", "Memory against error: lower left is better")
    errors = summary[ERROR].astype(float)
    rounded = errors.to_numpy() < roundings(summary)
    shown = summary.assign(**{ERROR: errors.mask(rounded, 0.0)})
    drawn = points_panel(panels[0], shown, ERROR, memory, style)
    legend = legend_of_points(summary, style, short)
    if quality is not None:
        lines = [(line, short[name]) for name, line in _recall(panels[1], quality, names, style).items()]
        for (mark, _), (line, _) in zip(legend, lines, strict=False):
            line.set_markerfacecolor(mark.get_markerfacecolor())
        legend = [*lines, legend[-1]]
    notes = [*notes_of(summary), *notes_of_points(summary)]
    if rounded.any():
        least = " or ".join(f"{each:.2g}" for each in np.unique(roundings(summary)[rounded]))
        notes.append(f"Errors below {least}, the dtype's rounding, are drawn at 0.")
    if parameters:
        notes.append(f"Beside a name: {', '.join(parameter.removeprefix('strategy.') for parameter in parameters)}.")
    finish(figure, "What lossy strategies cost", legend, notes)
    if drawn is not None:
        name_points(figure, panels[0], drawn, row_texts(summary, parameters or []))
    return figure


def _recall(axes: Axes, quality: pd.DataFrame, names: list[str], style: dict[str, Look]) -> dict[str, Line2D]:
    """A line a strategy, the marks of those that are alike side by side. What the legend shows of each."""
    label(
        axes,
        f"{QUALITY['depth'].label} (0 start, 1 end)",
        f"{SUMMARY[RECALL].label} (share of heads)",
        "Needles found by depth",
    )
    rows = quality[quality["metric"] == RECALL]
    depths = np.unique(rows["depth"].to_numpy(dtype=float))
    own = {name: rows[rows["strategy"].astype(str) == name].sort_values("depth") for name in names}
    alike: dict[tuple[float, ...], list[str]] = {}
    for name in names:
        alike.setdefault(tuple(own[name]["value"]), []).append(name)
    legend = {}
    for values, group in alike.items():
        apart = min(APART, MOST_APART / len(group))
        for turn, name in enumerate(group):
            look = style[name]
            x = own[name]["depth"].to_numpy(dtype=float) + apart * (turn - (len(group) - 1) / 2)
            kind = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "markersize": 7}
            (legend[name],) = axes.plot(x, values, clip_on=False, **kind)
    if not depths.size:
        empty(axes, "no needle was planted")
        return {name: legend[name] for name in names}
    number_axis(axes, "x", depths, log=False)
    value_ticks(axes, "x", depths)
    number_axis(axes, "y", QUARTERS, log=False)
    value_ticks(axes, "y", QUARTERS)
    axes.set_ylim(-0.03, 1.03)
    return {name: legend[name] for name in names}
