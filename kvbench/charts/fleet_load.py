"""Batch and queue of a fleet over time."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.style import Look, looks, short_names
from kvbench.charts.timeline_bins import Stretches, stretches_of
from kvbench.charts.units import Unit, number, number_axis, span_unit, tick_text
from kvbench.results.schema import TIMELINE

NUM_MARKERS = 8
CROWDED = 20.0
FEW = 3
SHADE = 0.18
MOST = (400, 160)
"""Stretches shown of a strategy where there are few, and where their lines would cover each other."""

WITHOUT = "no timeline was kept"


def fleet_load_chart(summary: pd.DataFrame, timeline: pd.DataFrame) -> Figure:
    """Requests live and requests waiting over time, a line a strategy: means, with a shade up to the most at any time.

    Args:
        summary: a row a strategy.
        timeline: a row a stretch of time and strategy.
    """
    names = strategy_names(summary)
    style, short, shown = looks(names), short_names(names), stretches_of(timeline, summary, MOST[len(names) > FEW])
    figure, panels = canvas(2, 1, 5.8)
    span = span_unit(max((own.edges_s[-1] for own in shown.values()), default=1.0))
    means = dict(zip(summary["strategy"].astype(str), summary["mean_batch"].astype(float), strict=True))
    legend: list[tuple[Line2D, str]] = []
    texts = (
        ("num_live", "live_max", "Live requests (the batch)"),
        ("num_waiting", "waiting_max", "Waiting requests (the queue)"),
    )
    for axes, (column, most, title) in zip(panels, texts, strict=True):
        label(axes, TIMELINE["time_s"].axis(span.name), "Requests (count)", title)
        if not shown:
            empty(axes, WITHOUT)
            continue
        lines = [
            (_line(axes, shown[name], column, span, style[name], names.index(name) / len(names)), name)
            for name in names
            if name in shown
        ]
        for name in shown:
            _shade(axes, shown[name], column, most, span, style[name])
        legend = [(line, f"{short[name]}: mean batch {number(means[name])}") for line, name in lines]
        _scale(axes, [shown[name].values[most] for _, name in lines])
        number_axis(axes, "x", [], log=False)
        axes.set_xlim(left=0)
    notes = notes_of(summary)
    missing = [name for name in names if name not in shown]
    if missing and shown:
        notes.append(f"No timeline was kept: {', '.join(missing)}.")
    return finish(figure, "Batch and queue over time", legend, notes)


def _line(axes: Axes, own: Stretches, column: str, span: Unit, look: Look, shift: float) -> Line2D:
    x, y = own.edges_s / span.divisor, own.stepped(column)
    every = max(1, len(x) // NUM_MARKERS)
    (line,) = axes.plot(
        x,
        y,
        drawstyle="steps-post",
        color=look.colour,
        marker=look.marker,
        markevery=(int(shift * every), every),
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.4,
    )
    return line


def _shade(axes: Axes, own: Stretches, column: str, most: str, span: Unit, look: Look) -> None:
    x = own.edges_s / span.divisor
    axes.fill_between(x, own.stepped(column), own.stepped(most), step="post", color=look.colour, alpha=SHADE, lw=0)


def _scale(axes: Axes, values: list[np.ndarray]) -> None:
    """Start at 0; where one strategy's most is far above another's, stretch the axis near 0."""
    tops = np.array([np.nanmax(own, initial=0.0) for own in values])
    positive = tops[tops > 0]
    if positive.size and positive.max() > CROWDED * positive.min():
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0, subs=[1.0]))
        axes.yaxis.set_major_formatter(FuncFormatter(tick_text))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 2 * positive.max())
        return
    number_axis(axes, "y", [], log=False, whole=True)
    axes.set_ylim(0, 1.06 * tops.max(initial=0.0) or 1.0)
