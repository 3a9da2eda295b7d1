"""Step times: over the steps of a run, and how they are distributed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import INK, SMALL, Look
from kvbench.charts.text import duration, markdown_escape, number, shown_unit
from kvbench.results.front import splitters
from kvbench.results.provenance import require_one_kind, whole_steps
from kvbench.results.schema import STEPS
from kvbench.results.series import appending, band, distribution, median_steps

MANY_STEPS = 300
STRETCHES = 60
MAX_MARKS = 100
MAX_POINTS = 1_000
NUM_MARKERS = 7
SHADE = 0.16
STEP = STEPS["step_us"]
NOTHING = "no strategy appended a token"


@dataclass(frozen=True, kw_only=True)
class LatencyChart(Chart):
    """Step time over steps, and the share of steps that are no slower.

    Left: the median over repetitions of each step (the last repetition's where repetitions differ in their steps),
    resizes marked unless they exceed 100. Of more than 300 steps a line is the median of each of 60 stretches, with a
    band from the 10th to the 90th percentile. Right: all steps of all repetitions. Warm-up is left out of both.

    Args:
        summary: a row a strategy.
        steps: rows of all strategies and repetitions; of a whole model, an iteration is shown as one step.
    Raises:
        ValueError: rows of the summary differ in source, scope or simulated_by.
    """

    name: str = "latency"
    heading: str = "Step time"
    summary: pd.DataFrame
    steps: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        require_one_kind(self.summary, "a chart of step times")
        scenario = self.summary["scenario"].iloc[0]
        sheet = Sheet.of(self.summary, f"Step time: {scenario}", self.subject)
        steps = whole_steps(self.steps, str(self.summary["scope"].iloc[0]))
        rows = appending(steps)
        over, share = sheet.panels(1, 2, 4.2)
        if rows.empty:
            for axes in (over, share):
                label(axes, "Step (number)", STEP.axis())
                empty(axes, NOTHING)
            return sheet.finish()
        unit = shown_unit(STEP, rows["step_us"].quantile(0.9))
        label(share, STEP.axis(unit.name), "Share of steps no slower", "Distribution, all repetitions")
        found = {name: median_steps(steps, name) for name in sheet.names}
        medians = {is_median for own, is_median in found.values() if len(own)}
        drawn, shares = {}, {}
        for turn, name in sorted(enumerate(sheet.names), key=lambda pair: not sheet.is_rest(pair[1])):
            own, look = found[name][0], sheet.looks[name]
            if own.empty:
                sheet.lacks("Appended nothing", name)
                continue
            drawn[name] = _over_steps(over, own, unit.divisor, look, turn / len(sheet.names))
            times = rows.loc[(rows["strategy"] == name).to_numpy(), "step_us"].dropna()
            shares[name] = ecdf(share, times.to_numpy() / unit.divisor, look)
            if not _resizes(over, own, unit.divisor, look):
                sheet.lacks("Resizes are too many to mark", name)
        for name in sheet.names:
            if name in drawn:
                sheet.entry(drawn[name], name)
        sheet.legend.append((_mark(INK, [], []), "resize"))
        smaller = ", ".join(splitters(self.summary))
        sheet.notes += [f"Splits appends, so that its steps are smaller than others': {smaller}."] if smaller else []
        whats = {True: "Median over repetitions", False: "Last repetition"}
        kinds = list(medians)
        what = whats[kinds[0]] if len(kinds) == 1 else "Median over repetitions, or the last where they differ"
        is_long = any(len(own) > MANY_STEPS for own, _ in found.values())
        label(over, "Step (number)", STEP.axis(unit.name), f"{what}{'; band p10 to p90' if is_long else ''}")
        number_axis(over, "y", rows["step_us"].to_numpy() / unit.divisor)
        number_axis(share, "x", rows["step_us"].to_numpy() / unit.divisor)
        number_axis(over, "x", [], log=False, whole=True)
        over.margins(x=0.03)
        name_ends(over, [(drawn[name], sheet.short[name]) for name in drawn if sheet.is_rest(name)])
        mark_shares(share, [(shares[name], sheet.short[name]) for name in shares if sheet.is_rest(name)])
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Whose slowest step stands out most from its middle one, and whose least."""
        rows = self.summary.dropna(subset=["step_max_us"])
        if rows.empty:
            return ["No strategy appended a token."]
        middle = rows["step_p50_us"].fillna(rows["step_mean_us"])
        words = np.where(rows["step_p50_us"].notna(), "median", "mean")
        times = rows["step_max_us"] / middle
        found = []
        for what, at in dict.fromkeys((("Steadiest", times.argmin()), ("Least steady", times.argmax()))):
            row = rows.iloc[at]
            found.append(
                f"{what}: {markdown_escape(row['strategy'])}, whose slowest step takes "
                f"{duration(row['step_max_us'] / 1e6)}, {number(times.iloc[at])} times the {words[at]}."
            )
        return found[: len(rows)]


def _over_steps(axes: Axes, rows: pd.DataFrame, divisor: float, look: Look, shift: float) -> Line2D:
    """A point a step; of many, the median and the spread of stretches."""
    values = rows["step_us"].to_numpy() / divisor
    x, y = np.arange(1, len(rows) + 1), values
    if len(rows) > MANY_STEPS:
        x, y, low, high = band(values, STRETCHES)
        axes.fill_between(x, low, high, color=look.colour, alpha=SHADE, linewidth=0)
    every = max(1, len(x) // NUM_MARKERS)
    (line,) = axes.plot(
        x,
        y,
        **look.of_line(),
        markevery=(int(shift * every), every),
        markersize=6.5,
        linewidth=1.4,
    )
    return line


def _mark(colour: str, x: ArrayLike, y: ArrayLike) -> Line2D:
    return Line2D(x, y, linestyle="", marker="o", markersize=8.5, markerfacecolor="none", markeredgecolor=colour)


def _resizes(axes: Axes, rows: pd.DataFrame, divisor: float, look: Look) -> bool:
    """Ring the steps that resized; False where they are too many."""
    numbers = np.flatnonzero(rows["num_resizes"].to_numpy() > 0)
    if len(numbers) > MAX_MARKS:
        return False
    axes.add_line(_mark(look.colour, numbers + 1, rows["step_us"].to_numpy()[numbers] / divisor))
    return True


def ecdf(axes: Axes, values: np.ndarray, look: Look) -> Line2D:
    """Draw the share of values that are no larger; of many values, those at even steps of the share.

    Args:
        axes: the panel.
        values: finite, at least one.
        look: of the line.
    """
    x, y = distribution(values, MAX_POINTS)
    (line,) = axes.plot(
        x,
        y,
        drawstyle="steps-post",
        **look.of_line(),
        markevery=max(1, len(x) // 6),
        markersize=6.5,
        linewidth=1.6,
    )
    return line


def mark_shares(axes: Axes, lines: Iterable[tuple[Line2D, str]] = ()) -> None:
    """Mark the median and the 99th percentile along the axis of shares, and name lines, each at a height of its own.

    Args:
        axes: the panel.
        lines: from `ecdf`, each with the name that is written on it.
    """
    number_axis(axes, "y", [], log=False)
    axes.set_ylim(0, 1.03)
    for height, text in ((0.5, "p50"), (0.99, "p99")):
        axes.axhline(height, color="#888888", linewidth=0.8, linestyle=":", zorder=0)
        axes.text(
            1.005, height, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center", color="#555555"
        )
    lines = sorted(lines, key=lambda pair: float(np.median(np.asarray(pair[0].get_xdata()))))
    for turn, (line, text) in enumerate(lines, start=1):
        x, y = map(np.asarray, line.get_data())
        at = min(int(np.searchsorted(y, 0.92 * turn / (len(lines) + 1))), len(x) - 1)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        axes.text(x[at], y[at], text, fontsize=SMALL, color=INK, ha="center", va="center", bbox=box, zorder=5)
