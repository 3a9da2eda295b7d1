"""A fleet over time: requests live and waiting, a line a strategy; and where memory goes, a panel a strategy."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

from kvbench.charts.axes import from_zero, number_axis, tick_text
from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.rows import Metric, ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import EDGE, INK, NOT_SPLIT, STATES, Look, MemoryShare, Settings, state_patch
from kvbench.charts.text import (
    Unit,
    duration,
    finite_max,
    listed,
    markdown_escape,
    number,
    percent,
    shown_unit,
    span_unit,
)
from kvbench.results.schema import TIMELINE
from kvbench.results.series import Stretches, stretches_of

MAX_STRETCHES = 400
FEW_STRETCHES = 160
"""Stretches shown of a strategy where its line stands free, and where it is one of many or an area."""
NO_TIMELINE = "no timeline was kept"

LOAD_PANELS = (
    ("num_live", "live_max", "Live requests (the batch)"),
    ("num_waiting", "waiting_max", "Waiting requests (the queue)"),
)
MAX_SHADED = 3
"""Strategies whose shades, up to the most at any time, do not cover each other."""
SHADE = 0.16
NUM_MARKERS = 8
CROWDED = 20.0
"""One strategy's most over another's from which the axis is stretched near 0."""
QUEUE = Metric("queueing", "queue_mean_s", duration)

MEMORY_ROWS_IN = (3.9, 2.5, 2.1)
"""Height of a row of panels where there are one, two, or more."""
TWO_ACROSS, THREE_ACROSS = 4, 9
"""The most panels that stand two and three in a row."""
NAME_LENGTH = 24
AVAILABLE = (0, (5, 2))
FAR = 2.0
"""What is available over the most that was held, from which it would flatten the panels."""
SHARES = (
    Metric("used is", "utilization_mean", percent, False),
    Metric("internal waste", "waste_share", percent),
    Metric("external waste", "external_share", percent),
)


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
        shown = stretches_of(self.timeline, summary, FEW_STRETCHES if len(sheet.names) > MAX_SHADED else MAX_STRETCHES)
        panels = sheet.panels(2, 1, 5.8)
        span = span_unit(max((own.edges_s[-1] for own in shown.values()), default=1.0))
        means = dict(zip(summary["strategy"].astype(str), summary["mean_batch"].astype(float), strict=True))
        for axes, (column, most, title) in zip(panels, LOAD_PANELS, strict=True):
            label(axes, TIMELINE["time_s"].axis(span.name), "Requests (count)", title)
            if not shown:
                empty(axes, NO_TIMELINE)
                continue
            lines = {}
            for turn, name in enumerate(sheet.names):
                if name in shown:
                    shift = turn / len(sheet.names)
                    lines[name] = _load_line(axes, shown[name], column, span, sheet.looks[name], shift)
                    if len(shown) <= MAX_SHADED:
                        _shade(axes, shown[name], column, most, span, sheet.looks[name])
                    sheet.entry(lines[name], name, f"{sheet.short[name]}: mean batch {number(means[name])}")
            _load_scale(axes, [shown[name].values[most if len(shown) <= MAX_SHADED else column] for name in lines])
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


def _load_line(axes: Axes, own: Stretches, column: str, span: Unit, look: Look, shift: float) -> Line2D:
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


def _load_scale(axes: Axes, values: list[np.ndarray]) -> None:
    """Start at 0; where one strategy's most is far above another's, stretch the axis near 0."""
    tops = np.array([np.nanmax(own, initial=0.0) for own in values])
    positive = tops[tops > 0]
    if positive.size and positive.max() > CROWDED * positive.min():
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0, subs=[1.0]))
        axes.yaxis.set_major_formatter(FuncFormatter(tick_text))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.2, 2 * positive.max())
        return
    number_axis(axes, "y", [], log=False, whole=True)
    from_zero(axes, tops.max(initial=0.0))


@dataclass(frozen=True, kw_only=True)
class FleetMemoryChart(Chart):
    """Memory over time, split in used, reserved, internal and external waste; a panel a strategy, all on one scale.

    The areas are means; a thin line is the most allocated at any time. A dashed line is what caches may hold together,
    of all replicas; where that is over twice what any strategy ever held, a note says it instead.

    Args:
        summary: a row a strategy.
        timeline: a row a stretch of time and strategy.
    """

    name: str = "fleet_memory"
    heading: str = "Where memory goes"
    summary: pd.DataFrame
    timeline: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        summary = self.summary
        title = f"Where memory goes over time: {summary['scenario'].iloc[0]}"
        sheet = Sheet.of(summary, title, self.subject, NAME_LENGTH)
        shown = stretches_of(self.timeline, summary, FEW_STRETCHES)
        columns = _columns(len(sheet.names))
        rows = -(-len(sheet.names) // columns)
        height_in = MEMORY_ROWS_IN[min(rows, len(MEMORY_ROWS_IN)) - 1] * rows
        panels = sheet.panels(rows, columns, height_in, share_y=True, count=len(sheet.names))
        available = dict(zip(summary["strategy"].astype(str), summary["available_bytes"].astype(float), strict=True))
        top = max((finite_max(own.values["allocated_max_bytes"]) for own in shown.values()), default=0.0)
        limit = finite_max(list(available.values()))
        is_far = limit > FAR * top > 0
        size = shown_unit(TIMELINE["used_bytes"], top if is_far else max(top, limit))
        end_s = max((own.edges_s[-1] for own in shown.values()), default=1.0)
        span = span_unit(end_s)
        legend: dict[str, Artist] = {}
        for place, (axes, name) in enumerate(zip(panels, sheet.names, strict=True)):
            y_label = f"Memory ({size.name})" if place % columns == 0 else ""
            label(axes, TIMELINE["time_s"].axis(span.name), y_label, sheet.short[name])
            if name not in shown:
                empty(axes, NO_TIMELINE)
                continue
            legend |= _areas(axes, shown[name], size, span)
            most = shown[name].stepped("allocated_max_bytes") / size.divisor
            over = shown[name].edges_s / span.divisor
            (legend["most allocated"],) = axes.plot(over, most, drawstyle="steps-post", color=INK, linewidth=0.7)
            if np.isfinite(available[name]) and not is_far:
                where: Settings = {"color": INK, "linestyle": AVAILABLE, "linewidth": 1.1}
                legend["available to caches"] = axes.axhline(available[name] / size.divisor, **where)
            number_axis(axes, "x", [], log=False)
            axes.set_xlim(0, end_s / span.divisor)
        if shown:
            number_axis(panels[0], "y", [], log=False)
            panels[0].set_ylim(0, 1.06 * (top if is_far else max(top, limit)) / size.divisor or 1.0)
        if is_far:
            sheet.notes.append(f"Available to caches: {number(limit / size.divisor)} {size.name}, above what is shown.")
        order = sorted(legend, key=lambda text: isinstance(legend[text], Line2D))
        sheet.legend = [(legend[text], text) for text in order]
        return sheet.finish()

    def sentences(self) -> list[str]:
        """What strategies' memory is spent on, from the best to the worst."""
        told = [f"{metric.words} {said}" for metric in SHARES if (said := ends(self.summary, metric))]
        return [f"Averaged over time, as shares of what is held or unusable, {'; '.join(told)}."] if told else []


def _columns(count: int) -> int:
    if count <= TWO_ACROSS:
        return 1 if count == 1 else 2
    return 3 if count <= THREE_ACROSS else 4


def _layers(own: Stretches) -> dict[MemoryShare, np.ndarray]:
    """What stands on each other: the states, or what is used and the rest where they were not told apart."""
    layers = {state: own.stepped(state.timeline) for state in STATES}
    if all(np.isfinite(layer).all() for layer in layers.values()):
        return layers
    used, allocated = own.stepped("used_bytes"), own.stepped("allocated_bytes")
    return {STATES[0]: np.nan_to_num(used), NOT_SPLIT: np.nan_to_num(allocated - used)}


def _areas(axes: Axes, own: Stretches, size: Unit, span: Unit) -> dict[str, Artist]:
    """Draw the layers; each one's mark for the legend."""
    x = own.edges_s / span.divisor
    below = np.zeros(len(x))
    legend: dict[str, Artist] = {}
    for state, layer in _layers(own).items():
        above = below + layer / size.divisor
        axes.fill_between(x, below, above, step="post", facecolor=state.colour, hatch=state.hatch, edgecolor=EDGE, lw=0)
        below = above
        legend[state.text] = state_patch(state)
    return legend
