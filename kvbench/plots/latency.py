"""Step times: over the steps of a run, and how they are distributed."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.plots.canvas import canvas, empty, finish, label
from kvbench.plots.rows import appending, failures, median_steps, strategy_names, thinned
from kvbench.plots.style import INK, SMALL, Look, looks, short_names
from kvbench.plots.units import number_axis, shown_unit
from kvbench.schema import STEPS

MAX_MARKS = 100
MAX_ECDF_POINTS = 1_000
NUM_MARKERS = 7
STEP = STEPS["step_us"]


def latency_chart(summary: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Step time over steps, and the share of steps that are no slower.

    Left: the median over repetitions of each step (the last repetition's where repetitions differ in their steps),
    resizes marked unless they exceed 100. Right: all steps of all repetitions. Warm-up is left out of both.

    Args:
        summary: a row a strategy.
        steps: rows of all strategies and repetitions.
    """
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    figure, (over, share) = canvas(1, 2, 4.2)
    notes = failures(summary)
    rows = appending(steps)
    label(over, "Step (number)", STEP.axis(), "Over the run")
    label(share, STEP.axis(), "Share of steps no slower", "Distribution")
    if rows.empty:
        empty(over, "no strategy appended a token")
        empty(share, "no strategy appended a token")
        return finish(figure, "Step time", notes=notes)
    unit = shown_unit(STEP, rows["step_us"].quantile(0.9))
    label(over, "Step (number)", STEP.axis(unit.name), "Over the run")
    label(share, STEP.axis(unit.name), "Share of steps no slower", "Distribution, all repetitions")
    legend, medians = [], set()
    for turn, name in enumerate(names):
        line_rows, is_median = median_steps(steps, name)
        if line_rows.empty:
            notes.append(f"Appended nothing: {name}.")
            continue
        medians.add(is_median)
        line = _over_steps(over, line_rows, unit.divisor, style[name], turn / len(names))
        _ecdf(share, rows.loc[(rows["strategy"] == name).to_numpy(), "step_us"] / unit.divisor, style[name])
        legend.append((line, short[name]))
        if not _resizes(over, line_rows, unit.divisor, style[name]):
            notes.append(f"Resizes of {name} are too many to mark.")
    legend.append((_mark(INK, [], []), "resize"))
    times = rows["step_us"].to_numpy() / unit.divisor
    number_axis(over, "y", times)
    number_axis(share, "x", times)
    number_axis(over, "x", [], log=False, whole=True)
    over.margins(x=0.03)
    _shares(share)
    what = {(True,): "median over repetitions", (False,): "last repetition"}.get(
        tuple(medians), "median over repetitions, or the last where they differ"
    )
    return finish(figure, f"Step time, {what}", legend, notes)


def _over_steps(axes: Axes, rows: pd.DataFrame, divisor: float, look: Look, shift: float) -> Line2D:
    x, y = thinned(np.arange(1, len(rows) + 1), rows["step_us"].to_numpy() / divisor)
    every = max(1, len(x) // NUM_MARKERS)
    (line,) = axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=look.line if len(x) <= MAX_MARKS else "-",
        marker=look.marker,
        markevery=(int(shift * every), every),
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.3,
    )
    return line


def _mark(colour: str, x: object, y: object) -> Line2D:
    return Line2D(x, y, linestyle="", marker="o", markersize=8.5, markerfacecolor="none", markeredgecolor=colour)


def _resizes(axes: Axes, rows: pd.DataFrame, divisor: float, look: Look) -> bool:
    """Ring the steps that resized; False where they are too many."""
    numbers = np.flatnonzero(rows["num_resizes"].to_numpy() > 0)
    if len(numbers) > MAX_MARKS:
        return False
    axes.add_line(_mark(look.colour, numbers + 1, rows["step_us"].to_numpy()[numbers] / divisor))
    return True


def _ecdf(axes: Axes, times: pd.Series, look: Look) -> None:
    """The share of steps that took at most a time; of many steps, evenly chosen ones with both ends."""
    ordered = np.sort(times.dropna().to_numpy())
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_ECDF_POINTS)).round().astype(int))
    axes.plot(
        ordered[kept],
        (kept + 1) / len(ordered),
        drawstyle="steps-post",
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markevery=max(1, len(kept) // 6),
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.6,
    )


def _shares(axes: Axes) -> None:
    """Mark the median and the 99th percentile."""
    axes.set_ylim(0, 1.03)
    for height, text in ((0.5, "p50"), (0.99, "p99")):
        axes.axhline(height, color="#888888", linewidth=0.8, linestyle=":", zorder=0)
        axes.text(
            1.005, height, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center", color="#555555"
        )
