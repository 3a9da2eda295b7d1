"""What lossy strategies cost: memory against the error of attention's output, and needles found by depth."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import number_axis, value_ticks
from kvbench.charts.chart import Chart
from kvbench.charts.labels import place_names
from kvbench.charts.rows import Metric, ends, is_lossy
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import Settings
from kvbench.charts.text import listed, percent
from kvbench.charts.tradeoff import (
    PEAK,
    has_points,
    legend_of_points,
    name_points,
    notes_of_points,
    on_front_text,
    peak_memory,
    points_panel,
    row_texts,
)
from kvbench.results.front import ERROR, roundings
from kvbench.results.schema import QUALITY, SUMMARY

RECALL = "needle_recall"
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
APART = 0.022
MOST_APART = 0.15
ERROR_METRIC = Metric("error of attention's output", ERROR, percent)
LOSSES = (
    Metric("tokens kept are", "kept_fraction", percent, False),
    Metric("errors", ERROR, percent),
    Metric("needles found", RECALL, percent, False),
)


def has_quality(summary: pd.DataFrame) -> bool:
    """Whether there is a lossy strategy, and an error to show."""
    return bool(is_lossy(summary).any() and summary[ERROR].notna().any())


@dataclass(frozen=True, kw_only=True)
class QualityChart(Chart):
    """Peak memory against the relative error of attention's output with its Pareto front; needles found by depth.

    A strategy that did not complete, or is a reference, is hollow and on no front; rounding decides none.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        quality: needles found, columns as in schema.QUALITY; None where none was planted, or for a sweep.
        parameters: swept columns, whose values then stand beside the name.
    """

    name: str = "quality"
    heading: str = "What lossy strategies cost"
    summary: pd.DataFrame
    quality: pd.DataFrame | None = None
    parameters: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """Draw it."""
        summary = self.summary
        scenarios = listed(list(dict.fromkeys(summary["scenario"].astype(str))), most=3)
        sheet = Sheet.of(summary, f"{self.heading}: {scenarios}", self.subject)
        sheet.notes += notes_of_points(summary, self.parameters)
        panels = sheet.panels(1, 1 if self.quality is None else 2, 4.2)
        memory, unit = peak_memory(summary)
        label(panels[0], "", f"{PEAK.label} memory ({unit.name})", "Memory against error: lower left is better")
        errors = summary[ERROR].astype(float)
        rounded = errors.to_numpy() < roundings(summary)
        shown = summary.assign(**{ERROR: errors.mask(rounded, 0.0)})
        drawn = points_panel(panels[0], shown, ERROR, memory, sheet) if has_points(shown, ERROR) else None
        if drawn is None:
            label(panels[0], SUMMARY[ERROR].label, f"{PEAK.label} memory ({unit.name})")
            empty(panels[0], "no strategy has both a peak and an error")
        sheet.legend = legend_of_points(summary, sheet)
        lines: dict[str, Line2D] = {}
        if self.quality is not None:
            lines = _recall(panels[1], self.quality, sheet)
            coloured = [name for name in sheet.names if not sheet.is_rest(name)]
            for (mark, _), name in zip(sheet.legend, coloured, strict=False):
                assert isinstance(mark, Line2D)
                lines[name].set_markerfacecolor(mark.get_markerfacecolor())
            sheet.legend = [*((lines[name], sheet.short[name]) for name in coloured), sheet.legend[-1]]
        if rounded.any():
            least = " or ".join(f"{each:.2g}" for each in np.unique(roundings(summary)[rounded]))
            sheet.notes.append(f"Errors below {least}, the dtype's rounding, are drawn at 0.")
        figure = sheet.finish()
        if drawn is not None:
            name_points(figure, panels[0], drawn, row_texts(summary, self.parameters))
        if lines:
            _name_rest(figure, panels[1], lines, sheet)
        return figure

    def sentences(self) -> list[str]:
        """Which rows are on the front of memory against error, and what each lossy one loses."""
        lossy = self.summary[is_lossy(self.summary)]
        told = [f"{metric.words} {said}" for metric in LOSSES if (said := ends(lossy, metric))]
        return [on_front_text(self.summary, self.parameters, ERROR_METRIC), f"Of the lossy ones, {listed(told)}."]


def _recall(axes: Axes, quality: pd.DataFrame, sheet: Sheet) -> dict[str, Line2D]:
    """A line a strategy, the marks of those that are alike side by side. What the legend shows of each."""
    label(
        axes,
        f"{QUALITY['depth'].label} (0 start, 1 end)",
        f"{SUMMARY[RECALL].label} (share of heads)",
        "Needles found by depth",
    )
    rows = quality[quality["metric"] == RECALL]
    depths = np.unique(rows["depth"].to_numpy(dtype=float))
    own = {name: rows[rows["strategy"].astype(str) == name].sort_values("depth") for name in sheet.names}
    alike: dict[tuple[float, ...], list[str]] = {}
    for name in sheet.names:
        alike.setdefault(tuple(own[name]["value"]), []).append(name)
    legend = {}
    for values, group in alike.items():
        apart = min(APART, MOST_APART / len(group))
        for turn, name in enumerate(group):
            look = sheet.looks[name]
            x = own[name]["depth"].to_numpy(dtype=float) + apart * (turn - (len(group) - 1) / 2)
            kind: Settings = {
                "color": look.colour,
                "marker": look.marker,
                "linestyle": look.line,
                "markersize": 7,
            }
            (legend[name],) = axes.plot(x, values, clip_on=False, **kind)
    if not depths.size:
        empty(axes, "no needle was planted")
        return {name: legend[name] for name in sheet.names}
    number_axis(axes, "x", depths, log=False)
    value_ticks(axes, "x", depths)
    number_axis(axes, "y", QUARTERS, log=False)
    value_ticks(axes, "y", QUARTERS)
    axes.set_ylim(-0.03, 1.03)
    return {name: legend[name] for name in sheet.names}


def _name_rest(figure: Figure, axes: Axes, lines: dict[str, Line2D], sheet: Sheet) -> None:
    """Write the names of grey lines where each is lowest, which is where it is told from others; level ones in turn."""
    paths = {name: np.asarray(line.get_xydata()) for name, line in lines.items()}
    rest = [name for name, path in paths.items() if len(path) and sheet.is_rest(name)]
    lowest = []
    for turn, name in enumerate(rest):
        least = paths[name][paths[name][:, 1] == paths[name][:, 1].min()]
        lowest.append(least[turn % len(least)])
    points = np.concatenate([np.reshape(lowest, (-1, 2)), *paths.values()])
    place_names(figure, axes, points, [sheet.short[name] for name in rest], list(paths.values()))
