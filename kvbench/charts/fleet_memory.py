"""Memory over time in a fleet: used, reserved and wasted, a panel a strategy."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.chart import Chart
from kvbench.charts.rows import Metric, ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import EDGE, INK, NOT_SPLIT, STATES, MemoryShare, Settings, state_patch
from kvbench.charts.text import number, percent
from kvbench.charts.units import Unit, finite_max, number_axis, shown_unit, span_unit
from kvbench.results.schema import TIMELINE
from kvbench.results.series import Stretches, stretches_of

ROW_IN = (3.9, 2.5, 2.1)
"""Height of a row of panels where there are one, two, or more."""
FEW, SOME = 4, 9
AVAILABLE = (0, (5, 2))
NAME_LENGTH = 24
MOST = 160
FAR = 2.0
WITHOUT = "no timeline was kept"
SHARES = (
    Metric("used is", "utilization_mean", percent, False),
    Metric("internal waste", "waste_share", percent),
    Metric("external waste", "external_share", percent),
)


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
        shown = stretches_of(self.timeline, summary, MOST)
        columns = _columns(len(sheet.names))
        rows = -(-len(sheet.names) // columns)
        height_in = ROW_IN[min(rows, len(ROW_IN)) - 1] * rows
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
                empty(axes, WITHOUT)
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
    if count <= FEW:
        return 1 if count == 1 else 2
    return 3 if count <= SOME else 4


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
