"""Step times: over the steps of a run, and how they are distributed."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.ecdf import ecdf, mark_shares
from kvbench.charts.rows import appending, median_steps, notes_of, strategy_names, thinned
from kvbench.charts.style import INK, Look, looks, short_names
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.front import splitters
from kvbench.results.provenance import require_one_kind, whole_steps
from kvbench.results.schema import STEPS

MAX_MARKS = 100
NUM_MARKERS = 7
STEP = STEPS["step_us"]


def latency_chart(summary: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Step time over steps, and the share of steps that are no slower.

    Left: the median over repetitions of each step (the last repetition's where repetitions differ in their steps),
    resizes marked unless they exceed 100. Right: all steps of all repetitions. Warm-up is left out of both.

    Args:
        summary: a row a strategy.
        steps: rows of all strategies and repetitions; of a whole model, an iteration is shown as one step.
    Raises:
        ValueError: rows of the summary differ in source, scope or engine.
    """
    require_one_kind(summary, "a chart of step times")
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    figure, (over, share) = canvas(1, 2, 4.2)
    notes = notes_of(summary)
    steps = whole_steps(steps, str(summary["scope"].iloc[0]))
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
        own = rows.loc[(rows["strategy"] == name).to_numpy(), "step_us"].dropna()
        ecdf(share, own.to_numpy() / unit.divisor, style[name])
        legend.append((line, short[name]))
        if not _resizes(over, line_rows, unit.divisor, style[name]):
            notes.append(f"Resizes of {name} are too many to mark.")
    legend.append((_mark(INK, [], []), "resize"))
    smaller = ", ".join(splitters(summary))
    notes += [f"Splits appends, so that its steps are smaller than others': {smaller}."] if smaller else []
    times = rows["step_us"].to_numpy() / unit.divisor
    number_axis(over, "y", times)
    number_axis(share, "x", times)
    number_axis(over, "x", [], log=False, whole=True)
    over.margins(x=0.03)
    mark_shares(share)
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
