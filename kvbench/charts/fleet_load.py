"""Batch and queue of a fleet over time."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.rows import Metric, ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import Look
from kvbench.charts.text import duration, listed, markdown_escape, number
from kvbench.charts.units import Unit, number_axis, span_unit, tick_text
from kvbench.results.schema import TIMELINE
from kvbench.results.series import Stretches, stretches_of

NUM_MARKERS = 8
CROWDED = 20.0
FEW = 3
SHADE = 0.16
MOST = (400, 160)
"""Stretches shown of a strategy where there are few, and where their lines would cover each other."""
WITHOUT = "no timeline was kept"
PANELS = (
    ("num_live", "live_max", "Live requests (the batch)"),
    ("num_waiting", "waiting_max", "Waiting requests (the queue)"),
)
QUEUE = Metric("queueing", "queue_mean_s", duration)


@dataclass(frozen=True, kw_only=True)
class FleetLoadChart(Chart):
    """Requests live and requests waiting over time, a line a strategy: means; of three strategies at most, with a shade
    up to the most at any time.

    Args:
        summary: a row a strategy.
        timeline: a row a stretch of time and strategy.
    """

    name: str = "fleet_load"
    heading: str = "Batch and queue"
    summary: pd.DataFrame
    timeline: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        summary = self.summary
        sheet = Sheet.of(summary, f"Batch and queue over time: {summary['scenario'].iloc[0]}", self.subject)
        shown = stretches_of(self.timeline, summary, MOST[len(sheet.names) > FEW])
        panels = sheet.panels(2, 1, 5.8)
        span = span_unit(max((own.edges_s[-1] for own in shown.values()), default=1.0))
        means = dict(zip(summary["strategy"].astype(str), summary["mean_batch"].astype(float), strict=True))
        for axes, (column, most, title) in zip(panels, PANELS, strict=True):
            label(axes, TIMELINE["time_s"].axis(span.name), "Requests (count)", title)
            if not shown:
                empty(axes, WITHOUT)
                continue
            lines = {}
            for turn, name in enumerate(sheet.names):
                if name in shown:
                    shift = turn / len(sheet.names)
                    lines[name] = _line(axes, shown[name], column, span, sheet.looks[name], shift)
                    if len(shown) <= FEW:
                        _shade(axes, shown[name], column, most, span, sheet.looks[name])
                    sheet.entry(lines[name], name, f"{sheet.short[name]}: mean batch {number(means[name])}")
            _scale(axes, [shown[name].values[most if len(shown) <= FEW else column] for name in lines])
            number_axis(axes, "x", [], log=False)
            axes.set_xlim(left=0)
            name_ends(axes, [(line, sheet.short[name]) for name, line in lines.items() if sheet.is_rest(name)])
        for name in sheet.names if shown else []:
            if name not in shown:
                sheet.lacks("No timeline was kept", name)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Who makes requests wait, and who preempts."""
        rows = self.summary
        found = ["No request waits for admission."]
        if rows["queue_mean_s"].gt(0).any():
            found = [f"Requests wait for admission, on average, {ends(rows, QUEUE)}."]
        preempted = [
            f"{markdown_escape(row['strategy'])} {number(row['num_preemptions'], 6)} times{_again(row)}"
            for _, row in rows[rows["num_preemptions"] > 0].iterrows()
        ]
        return [*found, f"Preempted: {listed(preempted)}." if preempted else "No request is preempted."]


def _again(row: pd.Series) -> str:
    again = row["recomputed_tokens"]
    return f" ({number(again, 6)} tokens computed again)" if again > 0 else ""


def _line(axes: Axes, own: Stretches, column: str, span: Unit, look: Look, shift: float) -> Line2D:
    x, y = own.edges_s / span.divisor, own.stepped(column)
    every = max(1, len(x) // NUM_MARKERS)
    (line,) = axes.plot(
        x,
        y,
        drawstyle="steps-post",
        **look.of_line(),
        markevery=(int(shift * every), every),
        markersize=6,
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
