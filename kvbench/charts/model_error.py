"""Modelled times against measured ones of the same runs: the one chart in which the two stand together."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.rows import strategy_names
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK, SMALL, Look, Settings
from kvbench.charts.text import duration, markdown_escape, number, percent, shown_unit
from kvbench.charts.tradeoff import point_mark
from kvbench.results.intervals import halves_of
from kvbench.results.schema import STEPS

STEP = STEPS["step_us"]
EQUAL = (0, (4, 2))
BAR_IN = 0.3
ROOM = 1.25
US_PER_S = 1e6


@dataclass(frozen=True, kw_only=True)
class ModelErrorChart(Chart):
    """Left: each run's modelled time a step over the measured one; right: each strategy's mean absolute error.

    Args:
        errors: strategy, measured_us with its interval, modelled_us and error, from provenance.model_errors; a row a
            run.
        notes: sentences at the foot.
    """

    name: str = "model_error"
    heading: str = "Modelled against measured"
    errors: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """Draw it."""
        errors = self.errors
        what = f"{len(errors)} run{'' if len(errors) == 1 else 's'}"
        title = f"{self.heading}: mean time a step of {what}"
        sheet = Sheet(title, self.subject, strategy_names(errors), self.notes)
        points, bars = sheet.panels(1, 2, max(3.6, 1.2 + BAR_IN * len(sheet.names)))
        _points(points, errors, sheet.looks)
        off = (100 * errors["error"].abs()).groupby(errors["strategy"].astype(str)).mean()[sheet.names]
        label(bars, "Mean |modelled - measured| ÷ measured (%)", "", "Error of a step's time")
        for row, (name, share) in enumerate(off.items()):
            look = sheet.looks[str(name)]
            bars.barh(row, share, 0.7, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0.5)
            beside: Settings = {
                "xytext": (6, 0),
                "textcoords": "offset points",
                "va": "center",
                "fontsize": SMALL,
                "color": INK,
            }
            bars.annotate(number(share), (share, row), **beside)
        bars.set_yticks(range(len(sheet.names)), [sheet.short[name] for name in sheet.names])
        bars.set_ylim(len(sheet.names) - 0.4, -0.6)
        bars.grid(False, axis="y")
        number_axis(bars, "x", [], log=False)
        bars.set_xlim(0, ROOM * off.max() or 1.0)
        for name in sheet.names:
            sheet.entry(point_mark(sheet.looks[name], True), name)
        sheet.legend.append((Line2D([], [], color=INK, linestyle=EQUAL, linewidth=1.0), "equal"))
        return sheet.finish()

    def sentences(self) -> list[str]:
        """How far each strategy's modelled times are off, and all of them on average."""
        errors, sentences = self.errors, []
        for name, rows in errors.groupby(errors["strategy"].astype(str), sort=False):
            first, off = rows.iloc[0], rows["error"]
            if len(rows) == 1:
                times = [duration(first[column] / US_PER_S) for column in ("modelled_us", "measured_us")]
                more = "more" if first["error"] > 0 else "less"
                text = f"a step takes {times[0]} modelled, {times[1]} measured: {percent(abs(first['error']))} {more}"
            else:
                ends = f"from {number(100 * off.min())} to {number(100 * off.max())} %"
                mean_off = percent(off.abs().mean())
                text = f"modelled times a step are off by {mean_off} on average, {ends}, of {len(rows)} runs"
            sentences.append(f"{markdown_escape(name)}: {text}.")
        if len(sentences) > 1:
            mean = errors["error"].abs().groupby(errors["strategy"].astype(str)).mean().mean()
            sentences.append(f"Mean over the strategies: {percent(mean)}.")
        return sentences


def _points(axes: Axes, errors: pd.DataFrame, looks: dict[str, Look]) -> None:
    times = errors[["measured_us", "modelled_us"]].to_numpy(dtype=float)
    unit = shown_unit(STEP, times)
    times = times / unit.divisor
    half = np.nan_to_num(halves_of(errors, "measured_us")) / unit.divisor
    for name, (x, y), spread in zip(errors["strategy"].astype(str), times, half, strict=True):
        mark = point_mark(looks[name], True)
        mark.set(xdata=[x], ydata=[y], zorder=4)
        axes.add_line(mark)
        if spread > 0:
            axes.errorbar(x, y, xerr=spread, ecolor=looks[name].colour, elinewidth=1, capsize=2, fmt="none")
    low, high = times.min() / ROOM, times.max() * ROOM
    axes.plot([low, high], [low, high], color=INK, linestyle=EQUAL, linewidth=1.0, zorder=2)
    label(axes, f"Measured ({unit.name})", f"Modelled ({unit.name})", "Mean time a step")
    for which in ("x", "y"):
        number_axis(axes, which, times)
        axes.set(**{f"{which}lim": (low, high)})
