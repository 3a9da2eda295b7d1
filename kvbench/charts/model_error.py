"""Modelled times against measured ones of the same runs: the one chart in which the two stand together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, finish, label
from kvbench.charts.rows import strategy_names
from kvbench.charts.style import INK, SMALL, Look, looks, short_names
from kvbench.charts.tradeoff import point_mark
from kvbench.charts.units import number, number_axis, shown_unit
from kvbench.results.intervals import halves_of
from kvbench.results.schema import STEPS

STEP = STEPS["step_us"]
EQUAL = (0, (4, 2))
BAR_IN = 0.3
ROOM = 1.25


def model_error_chart(errors: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Left: each run's modelled time a step over the measured one; right: each strategy's mean absolute error.

    Args:
        errors: strategy, measured_us and the ends of its interval, modelled_us and error, from provenance.model_errors;
            a row a run.
        notes: sentences at the foot.
    """
    names = strategy_names(errors)
    style, short = looks(names), short_names(names)
    figure, (points, bars) = canvas(1, 2, max(3.6, 1.2 + BAR_IN * len(names)))
    _points(points, errors, style)
    off = (100 * errors["error"].abs()).groupby(errors["strategy"].astype(str)).mean()[names]
    label(bars, "Mean |modelled - measured| ÷ measured (%)", "", "Error of a step's time")
    for row, (name, percent) in enumerate(off.items()):
        look = style[name]
        bars.barh(row, percent, 0.7, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0.5)
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": SMALL, "color": INK}
        bars.annotate(number(percent), (percent, row), **beside)
    bars.set_yticks(range(len(names)), [short[name] for name in names])
    bars.set_ylim(len(names) - 0.4, -0.6)
    bars.grid(False, axis="y")
    number_axis(bars, "x", [], log=False)
    bars.set_xlim(0, ROOM * off.max() or 1.0)
    legend = [(point_mark(style[name], True), short[name]) for name in names]
    legend.append((Line2D([], [], color=INK, linestyle=EQUAL, linewidth=1.0), "equal"))
    what = f"{len(errors)} run{'' if len(errors) == 1 else 's'}"
    return finish(figure, f"Modelled against measured: mean time a step of {what}", legend, notes)


def _points(axes: Axes, errors: pd.DataFrame, style: dict[str, Look]) -> None:
    times = errors[["measured_us", "modelled_us"]].to_numpy(dtype=float)
    unit = shown_unit(STEP, times)
    times = times / unit.divisor
    half = np.nan_to_num(halves_of(errors, "measured_us")) / unit.divisor
    for name, (x, y), spread in zip(errors["strategy"].astype(str), times, half, strict=True):
        mark = point_mark(style[name], True)
        mark.set(xdata=[x], ydata=[y], zorder=4)
        axes.add_line(mark)
        if spread > 0:
            axes.errorbar(x, y, xerr=spread, ecolor=style[name].colour, elinewidth=1, capsize=2, fmt="none")
    low, high = times.min() / ROOM, times.max() * ROOM
    axes.plot([low, high], [low, high], color=INK, linestyle=EQUAL, linewidth=1.0, zorder=2)
    label(axes, f"Measured ({unit.name})", f"Modelled ({unit.name})", "Mean time a step")
    for which in ("x", "y"):
        number_axis(axes, which, times)
        axes.set(**{f"{which}lim": (low, high)})
