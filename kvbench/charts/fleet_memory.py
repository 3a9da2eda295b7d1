"""Memory over time in a fleet: used, reserved and wasted, a panel a strategy."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.shares import EDGE, NOT_SPLIT, STATES, MemoryShare, state_patch
from kvbench.charts.style import INK, short_names
from kvbench.charts.timeline_bins import Stretches, stretches_of
from kvbench.charts.units import Unit, finite_max, number_axis, shown_unit, span_unit
from kvbench.results.schema import TIMELINE

ROW_IN = (3.9, 2.5, 2.1)
"""Height of a row of panels where there are one, two, or more."""
FEW, SOME = 4, 9
AVAILABLE = (0, (5, 2))
NAME_LENGTH = 24
MOST = 160
WITHOUT = "no timeline was kept"


def fleet_memory_chart(summary: pd.DataFrame, timeline: pd.DataFrame) -> Figure:
    """Memory over time, split in used, reserved, internal and external waste; a panel a strategy, all on one scale.

    The areas are means; a thin line is the most allocated at any time. A dashed line is what caches may hold together,
    of all replicas.

    Args:
        summary: a row a strategy.
        timeline: a row a stretch of time and strategy.
    """
    names = strategy_names(summary)
    short, shown = short_names(names, NAME_LENGTH), stretches_of(timeline, summary, MOST)
    columns = _columns(len(names))
    rows = -(-len(names) // columns)
    figure, panels = canvas(rows, columns, ROW_IN[min(rows, len(ROW_IN)) - 1] * rows, share_y=True)
    available = dict(zip(summary["strategy"].astype(str), summary["available_bytes"].astype(float), strict=True))
    tops = [*available.values(), *(finite_max(own.values["allocated_max_bytes"]) for own in shown.values())]
    size = shown_unit(TIMELINE["used_bytes"], tops)
    end_s = max((own.edges_s[-1] for own in shown.values()), default=1.0)
    span = span_unit(end_s)
    legend: dict[str, Artist] = {}
    for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
        y_label = f"Memory ({size.name})" if place % columns == 0 else ""
        label(axes, TIMELINE["time_s"].axis(span.name), y_label, short[name])
        if name not in shown:
            empty(axes, WITHOUT)
            continue
        legend |= _areas(axes, shown[name], size, span)
        most = shown[name].stepped("allocated_max_bytes") / size.divisor
        (line,) = axes.plot(shown[name].edges_s / span.divisor, most, drawstyle="steps-post", color=INK, linewidth=0.7)
        legend["most allocated"] = line
        if np.isfinite(available[name]):
            line = axes.axhline(available[name] / size.divisor, color=INK, linestyle=AVAILABLE, linewidth=1.1)
            legend["available to caches"] = line
        number_axis(axes, "x", [], log=False)
        axes.set_xlim(0, end_s / span.divisor)
    if shown:
        number_axis(panels[0], "y", [], log=False)
        panels[0].set_ylim(0, 1.06 * finite_max(tops) / size.divisor or 1.0)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    notes = notes_of(summary)
    order = sorted(legend, key=lambda text: isinstance(legend[text], Line2D))
    return finish(figure, "Where memory goes over time", [(legend[text], text) for text in order], notes)


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
