"""A panel of a trade-off: memory against something else, a point a row of the summary, and its Pareto front."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from kvbench.charts.canvas import empty
from kvbench.charts.labels import place_names
from kvbench.charts.rows import failures, strategy_names, value_text
from kvbench.charts.style import INK, Look, short_names
from kvbench.charts.units import LARGE_RANGE, Unit, number_axis, shown_unit, tick_text
from kvbench.results.front import front_of, half_widths, is_reference, may_win
from kvbench.results.schema import SUMMARY, WITH_INTERVAL, parameter_applies

PEAK = SUMMARY["peak_bytes"]
FRONT = (0, (4, 2))
MAX_NAMED = 12
LABEL_LENGTH = 18
ROOM = 0.16
UNDECIDED = "no front: one repetition has no interval, and no difference in time can be judged"


class Panel(NamedTuple):
    """What a panel shows: the rows with a point, their points, whether each is on the front, and the lines."""

    rows: np.ndarray
    points: np.ndarray
    on_front: np.ndarray
    lines: list[np.ndarray]


def peak_memory(summary: pd.DataFrame) -> tuple[np.ndarray, Unit]:
    """Each row's peak, in the unit that is shown, and the unit; who never held anything has none."""
    memory = summary["peak_bytes"].to_numpy(dtype=float)
    memory = np.where(memory > 0, memory, np.nan)  # no point in the best corner
    unit = shown_unit(PEAK, memory)
    return memory / unit.divisor, unit


def name_points(figure: Figure, axes: Axes, panel: Panel, texts: list[str]) -> None:
    """Write names beside a panel's points, those on the front first; of many points those on the front alone.

    Args:
        figure: already laid out.
        axes: the panel.
        panel: what it shows.
        texts: a name a row of the summary.
    """
    wanted = panel.on_front if len(panel.rows) > MAX_NAMED else np.ones(len(panel.rows), dtype=bool)
    order = np.lexsort((~panel.on_front, ~wanted))
    named = [texts[panel.rows[index]] for index in order[: wanted.sum()]]
    place_names(figure, axes, panel.points[order], named, panel.lines)


def row_texts(summary: pd.DataFrame, parameters: list[str]) -> list[str]:
    """What stands beside each row's point: the strategy, and the values of the swept parameters that change it."""
    names = summary["strategy"].astype(str).tolist()
    short = short_names(names, LABEL_LENGTH)
    texts = [short[name] for name in names]
    for parameter in parameters:
        values = [value_text(value) for value in summary[parameter]]
        texts = [
            f"{text} {value}" if parameter_applies(parameter, name, names) else text
            for text, name, value in zip(texts, names, values, strict=True)
        ]
    return texts


def notes_of_points(summary: pd.DataFrame) -> list[str]:
    """Why some points are hollow, and what decides a front."""
    notes = ["On a front: no other is better in one and, as far as intervals tell, as good in the other."]
    hollow = [is_reference(summary).any() and "for reference", bool(failures(summary)) and "not completed"]
    if any(hollow):
        notes.append(f"Hollow: {' or '.join(filter(None, hollow))}.")
    return notes


def legend_of_points(summary: pd.DataFrame, style: dict[str, Look], short: dict[str, str]) -> list[tuple[Line2D, str]]:
    """Each strategy's mark, hollow where it is a reference, and the front's line."""
    references = strategy_names(summary[is_reference(summary)])
    legend = [(point_mark(style[name], name not in references), text) for name, text in short.items()]
    return [*legend, (Line2D([], [], color=INK, linewidth=1.2, linestyle=FRONT), "Pareto front")]


def point_mark(look: Look, competes: bool) -> Line2D:
    """A strategy's point, hollow where it did not complete or is a reference."""
    face = look.colour if competes else "white"
    return Line2D([], [], linestyle="", marker=look.marker, markersize=8, color=look.colour, markerfacecolor=face)


def points_panel(
    axes: Axes, summary: pd.DataFrame, column: str, memory: np.ndarray, style: dict[str, Look]
) -> Panel | None:
    """Draw one trade-off: points, intervals and front; None where there is nothing to draw."""
    times = summary[column].to_numpy(dtype=float) if column in summary else np.full(len(summary), np.nan)
    unit = shown_unit(SUMMARY[column], times)
    axes.set_xlabel(SUMMARY[column].axis(unit.name), fontsize=axes.yaxis.label.get_size())
    rows = np.flatnonzero(np.isfinite(times) & np.isfinite(memory))
    if not rows.size:
        empty(axes, f"no strategy has a value of {column}")
        return None
    times = times / unit.divisor
    has_bars = column in WITH_INTERVAL
    spread = np.nan_to_num(half_widths(summary, column)) / unit.divisor if has_bars else np.zeros(len(summary))
    names = summary["strategy"].astype(str).to_numpy()
    competes = may_win(summary)
    ends = [
        np.array([[times[row] - spread[row], memory[row]], [times[row] + spread[row], memory[row]]]) for row in rows
    ]
    for row in rows:
        mark = point_mark(style[names[row]], competes[row])
        mark.set(xdata=[times[row]], ydata=[memory[row]], zorder=4)
        axes.add_line(mark)
        if spread[row] > 0:
            colour = style[names[row]].colour
            axes.errorbar(times[row], memory[row], xerr=spread[row], ecolor=colour, elinewidth=1, capsize=2, fmt="none")
    points = np.column_stack([times, memory])[rows]
    on_front = front_of(summary, column)[rows]
    axes.update_datalim(points)
    _scales(axes, points, max(end[1, 0] for end in ends))
    path = front_path(axes, points[on_front])
    axes.plot(*path.T, color=INK, linestyle=FRONT, linewidth=1.2, zorder=2)
    return Panel(rows, points, on_front, [path, *ends])


def front_path(axes: Axes, points: np.ndarray) -> np.ndarray:
    """The edge of what the front's points beat: right and down from each to the next, and out to the panel's edges.

    A point above one to its left is on the front for what cannot be told apart; the edge passes below it.
    """
    corners = np.unique(points, axis=0)
    if not len(corners):
        return corners
    corners = corners[corners[:, 1] < np.minimum.accumulate(np.append(np.inf, corners[:-1, 1]))]
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    path = [(corners[0][0], top), tuple(corners[0])]
    for corner in corners[1:]:
        path += [(corner[0], path[-1][1]), tuple(corner)]
    return np.array([*path, (right, path[-1][1])])


def _scales(axes: Axes, points: np.ndarray, right: float) -> None:
    """Start linear axes at 0, leave room for names, and keep zeros where the rest ranges widely."""
    times, memory = points.T
    number_axis(axes, "x", times)
    number_axis(axes, "y", memory)
    axes.margins(ROOM)
    axes.autoscale_view()
    for which, values, end in (("x", times, right), ("y", memory, memory.max())):
        axis = axes.xaxis if which == "x" else axes.yaxis
        limits = axis.get_view_interval()
        if axis.get_scale() == "linear":
            top = max(end, (1 + ROOM) * values.max()) * 1.03 or 1.0
            limits = (-0.04 * top, top)
        axes.set(**{f"{which}lim": limits})
    positive = times[times > 0]
    if len(positive) < len(times) and positive.size and positive.max() / positive.min() > LARGE_RANGE:
        decade = 10.0 ** np.floor(np.log10(positive.min()))  # the first tick beside 0, and clear of it
        axes.set_xscale("symlog", linthresh=decade)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=decade, subs=[1.0]))
        axes.xaxis.set_major_formatter(FuncFormatter(tick_text))
        axes.set_xlim(-0.3 * decade, positive.max() * 3)
