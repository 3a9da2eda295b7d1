"""Memory against time: points, intervals and fronts; and the chart of which strategies no other beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from kvbench.charts.axes import LARGE_RANGE, number_axis, tick_text
from kvbench.charts.chart import Chart
from kvbench.charts.labels import place_names
from kvbench.charts.rows import Metric, failures, named, row_names, strategy_names
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import FONT, INK, Look, Settings, plain, short_names
from kvbench.charts.text import Unit, duration, listed, shown_unit, value_text
from kvbench.results.front import contested, cost_of, front_of, half_widths, is_reference, may_win
from kvbench.results.provenance import require_one_kind
from kvbench.results.schema import SUMMARY, WITH_INTERVAL, parameter_applies

PEAK = SUMMARY["peak_bytes"]
FRONT = (0, (4, 2))
MAX_NAMED = 16
LABEL_LENGTH = 18
ROOM = 0.16
UNDECIDED = "No front: one repetition has no interval, and no difference in time can be judged."
FILLS = {"full": "wholly", "left": "left", "bottom": "below", "right": "right", "top": "above"}
"""Of a strategy's points in several jobs, one after another; and in words."""


class Tradeoff(NamedTuple):
    """What a panel shows: the rows with a point, their points, whether each is on the front, and the lines."""

    rows: np.ndarray
    points: np.ndarray
    on_front: np.ndarray
    lines: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ParetoChart(Chart):
    """Peak memory against total time, stalls with admissions, and a high percentile of decode steps, with its front.

    The front joins the strategies that no other beats in both; a difference within the intervals decides nothing. A
    strategy that did not complete, or is a reference, is hollow and on no front. Of many points only those on the
    front are named. Bars are what figures may be off by: intervals from repetitions, or the model's error. A trade-off
    of which no row has both is left out.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: swept columns, whose values then stand beside the name.
    Raises:
        ValueError: rows differ in source, scope or simulated_by.
    """

    name: str = "pareto"
    heading: str = "Memory against time"
    summary: pd.DataFrame
    parameters: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """Draw it."""
        require_one_kind(self.summary, "a front of memory and time")
        scenarios = listed(list(dict.fromkeys(self.summary["scenario"].astype(str))), most=3)
        title = f"Peak memory against time, lower left is better: {scenarios}"
        sheet = Sheet.of(self.summary, title, self.subject)
        sheet.notes += notes_of_points(self.summary, self.parameters)
        memory, unit = peak_memory(self.summary)
        columns = [name for name in contested(self.summary) if has_points(self.summary, name)]
        if not any(cost_of(self.summary, column).is_known.any() for column in columns):
            sheet.notes.append(UNDECIDED)
        panels = sheet.panels(1, max(1, len(columns)), 3.9)
        sheet.legend = legend_of_points(self.summary, sheet)
        if not columns:
            label(panels[0], SUMMARY["total_s"].axis(), f"{PEAK.label} memory ({unit.name})")
            empty(panels[0], "no strategy has both a peak and a time")
            return sheet.finish()
        drawn = []
        for axes, column in zip(panels, columns, strict=True):
            label(axes, "", f"{PEAK.label} memory ({unit.name})", SUMMARY[column].label)
            drawn.append(points_panel(axes, self.summary, column, memory, sheet))
        figure = sheet.finish()
        texts = row_texts(self.summary, self.parameters)
        for axes, panel in zip(panels, drawn, strict=True):
            name_points(figure, axes, panel, texts)
        return figure

    def sentences(self) -> list[str]:
        """Which rows are on each front, that others are beaten in both, and which are there to compare with only."""
        told = [on_front_text(self.summary, self.parameters, _time(column)) for column in contested(self.summary)]
        references = self.summary[is_reference(self.summary)]
        return told + ([f"For reference, on no front and never the best: {named(references)}."] * bool(len(references)))


def on_front_text(summary: pd.DataFrame, parameters: list[str], metric: Metric) -> str:
    """Which rows no other beats in peak memory and in a metric of which less is better; Markdown.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart.
        metric: what memory is traded against.
    """
    names = pd.Series(row_names(summary, parameters), index=summary.index)
    what = f"memory against {metric.words}"
    competing = may_win(summary)
    values = summary[metric.column].notna().to_numpy() & competing
    if not values.any():
        return f"Peak {what}: no value."
    if not (cost_of(summary, metric.column).is_known & competing).any():
        return f"Peak {what}: no front, since one repetition has no interval."
    on_front = front_of(summary, metric.column)
    kept = list(dict.fromkeys(names[on_front]))
    beaten = set(names[values]) - set(kept)
    rest = f"; {len(beaten)} other{'s are' if len(beaten) > 1 else ' is'} beaten" if beaten else ""
    return f"On the front of peak {what}: {listed(kept)}{rest}."


def _time(column: str) -> Metric:
    """A column of times as a metric, called what charts call it."""
    words = SUMMARY[column].label
    return Metric(words if words[:2].isupper() else words[0].lower() + words[1:], column, duration)


def has_points(summary: pd.DataFrame, column: str) -> bool:
    """Whether some row has both a peak and a value of the column."""
    return column in summary and bool((summary[column].notna() & summary["peak_bytes"].gt(0)).any())


def peak_memory(summary: pd.DataFrame) -> tuple[np.ndarray, Unit]:
    """Each row's peak, in the unit that is shown, and the unit; who never held anything has none."""
    memory = summary["peak_bytes"].to_numpy(dtype=float)
    memory = np.where(memory > 0, memory, np.nan)  # no point in the best corner
    unit = shown_unit(PEAK, memory)
    return memory / unit.divisor, unit


def name_points(figure: Figure, axes: Axes, panel: Tradeoff, texts: list[str]) -> None:
    """Write names beside a panel's points, those on the front first; of many points those on the front alone.

    Args:
        figure: already laid out.
        axes: the panel.
        panel: what it shows.
        texts: a name a row of the summary.
    """
    is_crowded = len({texts[row] for row in panel.rows}) > MAX_NAMED
    wanted = panel.on_front if is_crowded else np.ones(len(panel.rows), dtype=bool)
    order = np.lexsort((~panel.on_front, ~wanted))
    shown = [texts[panel.rows[index]] for index in order[: wanted.sum()]]
    place_names(figure, axes, panel.points[order], shown, panel.lines)


def row_texts(summary: pd.DataFrame, parameters: Sequence[str]) -> list[str]:
    """What stands beside each row's point: the strategy, and the values of the swept parameters that change it."""
    names = summary["strategy"].astype(str).tolist()
    short = short_names(names, LABEL_LENGTH)
    texts = [short[name] for name in names]
    for parameter in parameters:
        values = [plain(value_text(value)) for value in summary[parameter]]
        texts = [
            f"{text} {value}" if parameter_applies(parameter, name, names) else text
            for text, name, value in zip(texts, names, values, strict=True)
        ]
    return texts


def notes_of_points(summary: pd.DataFrame, parameters: Sequence[str]) -> list[str]:
    """Why some points are hollow, what decides a front, and what stands beside names."""
    notes = ["On a front: no other is better in one and, as far as intervals tell, as good in the other."]
    hollow = ["for reference"] if is_reference(summary).any() else []
    hollow += ["not completed"] if failures(summary) else []
    if hollow:
        notes.append(f"Hollow: {' or '.join(hollow)}.")
    if parameters:
        told = ", ".join(parameter.removeprefix("strategy.") for parameter in parameters)
        jobs = list(dict.fromkeys(zip(*(map(value_text, summary[name]) for name in parameters), strict=True)))
        filled = [f"{words} {', '.join(job)}" for words, job in zip(FILLS.values(), jobs, strict=False)]
        more = "; …" * (len(jobs) > len(FILLS))
        notes.append(f"Beside a name: {told}. Marks are filled by job: {'; '.join(filled)}{more}.")
    return notes


def legend_of_points(summary: pd.DataFrame, sheet: Sheet) -> list[tuple[Artist, str]]:
    """Each strategy's mark, hollow where it is a reference, and the front's line; not of grey ones."""
    references = strategy_names(summary[is_reference(summary)])
    shown = [name for name in sheet.names if not sheet.is_rest(name)]
    marks = [(point_mark(sheet.looks[name], name not in references), sheet.short[name]) for name in shown]
    return [*marks, (Line2D([], [], color=INK, linewidth=1.2, linestyle=FRONT), "Pareto front")]


def point_mark(look: Look, competes: bool, turn: int = 0) -> Line2D:
    """A strategy's point, hollow where it did not complete or is a reference; half filled in its later jobs."""
    fill = list(FILLS)[turn % len(FILLS)] if competes else "full"
    face = look.colour if competes else "white"
    kind: Settings = {
        "color": look.colour,
        "markerfacecolor": face,
        "markerfacecoloralt": "white",
        "fillstyle": fill,
    }
    return Line2D([], [], linestyle="", marker=look.marker, markersize=8, **kind)


def points_panel(axes: Axes, summary: pd.DataFrame, column: str, memory: np.ndarray, sheet: Sheet) -> Tradeoff:
    """Draw one trade-off: points, intervals and front.

    Args:
        axes: the panel.
        summary: a row a strategy, or a row a strategy and job; some row has a point.
        column: what memory is traded against.
        memory: a peak a row, in the unit shown.
        sheet: gives looks.
    """
    times = summary[column].to_numpy(dtype=float)
    unit = shown_unit(SUMMARY[column], times)
    axes.set_xlabel(SUMMARY[column].axis(unit.name), fontsize=FONT)
    rows = np.flatnonzero(np.isfinite(times) & np.isfinite(memory))
    times = times / unit.divisor
    has_bars = column in WITH_INTERVAL
    spread = np.nan_to_num(half_widths(summary, column)) / unit.divisor if has_bars else np.zeros(len(summary))
    names = summary["strategy"].astype(str)
    turns = names.groupby(names).cumcount().to_numpy()
    competes = may_win(summary)
    ends = [
        np.array([[times[row] - spread[row], memory[row]], [times[row] + spread[row], memory[row]]]) for row in rows
    ]
    for row in rows:
        look = sheet.looks[names.iloc[row]]
        mark = point_mark(look, competes[row], turns[row])
        mark.set(xdata=[times[row]], ydata=[memory[row]], zorder=3 if sheet.is_rest(names.iloc[row]) else 4)
        axes.add_line(mark)
        if spread[row] > 0:
            axes.errorbar(
                times[row], memory[row], xerr=spread[row], ecolor=look.colour, elinewidth=1, capsize=2, fmt="none"
            )
    points = np.column_stack([times, memory])[rows]
    on_front = front_of(summary, column)[rows]
    axes.update_datalim(points)
    _scales(axes, points, max(end[1, 0] for end in ends))
    path = front_path(axes, points[on_front])
    axes.plot(*path.T, color=INK, linestyle=FRONT, linewidth=1.2, zorder=2)
    return Tradeoff(rows, points, on_front, [path, *ends])


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
