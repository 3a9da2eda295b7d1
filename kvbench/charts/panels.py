"""The article's panels (memory, utilization, resizes, efficiency) and time, as bars: of one scenario, or of several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvbench.charts.axes import number_axis, value_ticks, wants_log
from kvbench.charts.chart import Chart
from kvbench.charts.rows import THROUGHPUT, Metric, by_job, completed, failures, named, strategy_names
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK, SMALL, Look, Settings, plain, short_names
from kvbench.charts.text import mib, number, percent, shown_unit
from kvbench.results.front import is_reference, leaders_of, may_win
from kvbench.results.intervals import halves_of
from kvbench.results.schema import SUMMARY


class Panel(NamedTuple):
    """What a panel shows: a column as bars and, where given, another as a mark on each; log admits a log axis."""

    title: str
    bars: str
    mark: str | None = None
    log: bool = False


PANELS = (
    Panel("Peak memory (mark: mean allocated)", "peak_bytes", "mean_allocated_bytes"),
    Panel("Mean utilization (mark: peak)", "utilization_mean", "utilization_peak"),
    Panel("Resizes in a repetition", "num_resizes"),
    Panel("Efficiency: peak utilization ÷ 1000 cumulative MiB", "efficiency"),
    Panel("Time of all steps", "total_s"),
    Panel("Time of stalls and admissions", "allocation_s"),
)
OF_ARTICLE = (
    Panel("Memory: peak of live bytes (line: all allocations, summed)", "peak_bytes", "cumulative_bytes", log=True),
    Panel("Peak utilization (mark: mean)", "utilization_peak", "utilization_mean"),
    *PANELS[2:5],
)
AXES = {
    "peak_bytes": "Memory",
    "utilization_mean": "Utilization (used ÷ allocated)",
    "utilization_peak": "Utilization (used ÷ allocated)",
    "num_resizes": "Resizes (count)",
    "efficiency": "Efficiency",
    "mean_batch": "Requests live (count)",
}
BEST = (
    Metric("peak memory", "peak_bytes", mib),
    Metric("mean utilization", "utilization_mean", percent, False),
    Metric("resizes", "num_resizes", number),
    Metric("efficiency", "efficiency", number, False),
    THROUGHPUT,
)
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
BAR_IN = 0.24
GROUP_WIDTH = 0.84
GROUPS_IN = 3.0
MAX_UPRIGHT = 4
SCENARIO_LENGTH = 18
LOG_ROOM = 1.5
COLUMNS = 2


@dataclass(frozen=True, kw_only=True)
class PanelsChart(Chart):
    """Memory, utilization, resizes, efficiency and time as bars; a panel without values is left out.

    One scenario: a bar a strategy. Several: a group of bars a scenario. A strategy that did not complete has a cross
    at its foot; its bar shows what it did until then. Thin lines at bars' ends are intervals from repetitions.

    Args:
        summary: a row a strategy, or a row a strategy and scenario.
        parameters: columns that tell jobs apart.
    Source: the article, comprehensive benchmark.
    Departs: memory is the peak of live bytes, not the sum of all allocations; time stands beside efficiency.
    """

    name: str = "panels"
    heading: str = "Memory, utilization, resizes, efficiency and time"
    summary: pd.DataFrame
    parameters: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """Draw it."""
        scenarios = list(dict.fromkeys(self.summary["scenario"].astype(str)))
        of = scenarios[0] if len(scenarios) == 1 else "by scenario"
        sheet = Sheet.of(self.summary, f"{self.heading}: {of}", self.subject)
        if failures(self.summary):
            sheet.notes.append("A cross marks a strategy that did not complete; its bar shows what it did until then.")
        if len(scenarios) > 1:
            return groups_figure(sheet, self.summary, PANELS)
        shown = with_values(self.summary, PANELS)
        num_rows = -(-len(shown) // COLUMNS)
        height_in = num_rows * max(1.5, 0.8 + BAR_IN * len(sheet.names))
        for place, (axes, panel) in enumerate(
            zip(sheet.panels(num_rows, COLUMNS, height_in, count=len(shown)), shown, strict=True)
        ):
            bars(axes, self.summary, panel, sheet)
            axes.tick_params(labelleft=place % COLUMNS == 0)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Who is best in each panel, and in throughput; those that cannot be told apart are so together."""
        return by_job(self.summary, self.parameters, _best_of)


def comprehensive_chart(table: pd.DataFrame, what: str, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """The article's comprehensive benchmark: a group of bars a workload.

    A strategy that does not hold a workload has a cross with its outcome and no bar.

    Args:
        table: a row a scenario and strategy, with an outcome and the panels' columns, empty where not completed.
        what: under which capacities, for the title.
        notes: sentences at the foot, before its own.
        subject: what was run on what.
    Source: the article, its comprehensive benchmark.
    Departs: memory is the peak of live bytes; the article's figure is the mark; a panel of time joins the four.
    """
    feet = [*notes, *failures(table)]
    if failures(table):
        feet.append("A cross marks a strategy that cannot hold a workload: it has no figures there.")
    tiered = strategy_names(table[table["peak_host_bytes"] > 0])
    if tiered:
        feet.append(f"Memory is the device's. What {', '.join(tiered)} keeps in the host's is in the mark only.")
    sheet = Sheet(f"The comprehensive benchmark: {what}", subject, names=strategy_names(table), notes=feet)
    return groups_figure(sheet, table, OF_ARTICLE)


def groups_figure(sheet: Sheet, rows: pd.DataFrame, panels: Sequence[Panel]) -> Figure:
    """A group of bars a scenario, in as many panels as have values.

    Args:
        sheet: with a title and the strategies' looks.
        rows: a row a scenario and strategy.
        panels: what is shown.
    """
    shown = with_values(rows, panels)
    num_rows = -(-len(shown) // COLUMNS)
    scenarios = short_names(dict.fromkeys(rows["scenario"].astype(str)), SCENARIO_LENGTH)
    for axes, panel in zip(sheet.panels(num_rows, COLUMNS, GROUPS_IN * num_rows, count=len(shown)), shown, strict=True):
        groups(axes, rows, panel, sheet, scenarios)
    references = strategy_names(rows[is_reference(rows)])
    for name in sheet.names:
        sheet.entry(Patch(**_face(sheet.looks[name], name in references)), name)
    return sheet.finish()


def with_values(rows: pd.DataFrame, panels: Sequence[Panel]) -> list[Panel]:
    """The panels of which some row has a value."""
    return [panel for panel in panels if panel.bars in rows and rows[panel.bars].notna().any()]


def _best_of(rows: pd.DataFrame) -> list[str]:
    if completed(rows).empty:
        return ["No strategy completed."]
    if not may_win(rows).any():
        return ["Only strategies that are there for reference completed: none is the best."]
    best = [f"in {metric.words} {told}" for metric in BEST if (told := _best(rows, metric))]
    return [f"Best of those that completed: {', '.join(best)}."]


def _best(rows: pd.DataFrame, metric: Metric) -> str:
    """Who leads, and with what; of figures that cannot be told apart, from the least to the most."""
    led = rows[leaders_of(rows, metric.column, metric.less_is_better)]
    if led.empty:
        return ""
    ends = dict.fromkeys(metric.write(value) for value in (led[metric.column].min(), led[metric.column].max()))
    return f"{named(led)} ({' to '.join(ends)})"


def _face(look: Look, is_hollow: bool) -> Settings:
    """How a bar is filled."""
    if is_hollow:
        return {"facecolor": "white", "edgecolor": look.colour, "hatch": look.hatch, "linewidth": 0.9}
    return {"facecolor": look.colour, "edgecolor": "white", "hatch": look.hatch, "linewidth": 0.5}


def _cross(x: np.ndarray, y: np.ndarray) -> Line2D:
    cross = Line2D(
        x, y, linestyle="", marker="x", markersize=6, color=INK, markeredgewidth=1.4, zorder=5, clip_on=False
    )
    cross.set_in_layout(False)
    return cross


def _axis_text(panel: Panel, unit: str) -> str:
    text = AXES.get(panel.bars, SUMMARY[panel.bars].label)
    return f"{text} ({unit})" if unit else text


def _limit(axes: Axes, which: str, panel: Panel, values: np.ndarray, room: float) -> None:
    """Start the axis of values at 0; a share ends at 1."""
    number_axis(axes, which, values, log=False, whole=panel.bars == "num_resizes")
    is_share = panel.bars.startswith("utilization")
    top = 1.0 if is_share else float(np.nanmax(np.append(values, 0.0)))
    if is_share:
        value_ticks(axes, which, QUARTERS)
    axes.set(**{f"{which}lim": (0, top * room or 1.0)})


def bars(axes: Axes, summary: pd.DataFrame, panel: Panel, sheet: Sheet) -> None:
    """Horizontal bars, so that long names can be read; each with its number.

    Args:
        axes: the panel.
        summary: a row a strategy.
        panel: what is shown; some row has a value.
        sheet: gives looks and names.
    """
    columns = [column for column in (panel.bars, panel.mark) if column]
    values = summary[columns].to_numpy(dtype=float)
    unit = shown_unit(SUMMARY[panel.bars], values)
    label(axes, _axis_text(panel, unit.name), "", panel.title)
    values = values / unit.divisor
    rows = np.arange(len(summary))
    names = summary["strategy"].astype(str).to_numpy()
    drawn = axes.barh(rows, np.nan_to_num(values[:, 0]), 0.7)
    for bar, name, is_hollow in zip(drawn, names, is_reference(summary), strict=True):
        bar.set(**_face(sheet.looks[name], is_hollow))
    if panel.mark:
        axes.plot(values[:, 1], rows, "|", color=INK, markersize=11, markeredgewidth=2, zorder=4)
    ends = np.nanmax(np.where(np.isfinite(values), values, 0.0), axis=1)
    half = np.nan_to_num(halves_of(summary, panel.bars)) / unit.divisor
    if half.any():
        axes.errorbar(values[:, 0], rows, xerr=half, ecolor=INK, elinewidth=1, capsize=2, fmt="none", zorder=4)
        ends = np.fmax(ends, np.nan_to_num(values[:, 0]) + half)
    failed = summary["outcome"].astype(str).to_numpy() != "completed"
    axes.add_line(_cross(np.zeros(failed.sum()), rows[failed]))
    for row, end, shown in zip(rows, ends, values, strict=True):
        text = number(shown[0]) + (f" ({number(shown[1])})" if panel.mark else "")
        axes.annotate(text, (end, row), (7, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)
    axes.set_yticks(rows, [sheet.short[name] for name in names])
    axes.set_ylim(len(summary) - 0.4, -0.6)
    axes.grid(False, axis="y")
    _limit(axes, "x", panel, ends, 1.28 if panel.mark else 1.16)


def groups(axes: Axes, summary: pd.DataFrame, panel: Panel, sheet: Sheet, scenarios: dict[str, str]) -> None:
    """Upright bars in a group a scenario, the strategies in one order in each; words where a failed one has no bar.

    On a logarithmic axis, which has no foot for bars to stand on, points stand instead.

    Args:
        axes: the panel.
        summary: a row a scenario and strategy.
        panel: what is shown; some row has a value.
        sheet: gives looks and names.
        scenarios: theirs, as shown, in order.
    """
    columns = [column for column in (panel.bars, panel.mark) if column]
    values = summary[columns].to_numpy(dtype=float)
    log = panel.log and wants_log(values)
    unit = shown_unit(SUMMARY[panel.bars], values)
    label(axes, "", _axis_text(panel, f"{unit.name}, log" if log else unit.name), panel.title)
    values = values / unit.divisor
    width = GROUP_WIDTH / len(sheet.names)
    group = summary["scenario"].astype(str).map({name: at for at, name in enumerate(scenarios)}).to_numpy(dtype=float)
    strategies = summary["strategy"].astype(str).to_numpy()
    turns = np.array([sheet.names.index(name) for name in strategies])
    places = group + (turns - (len(sheet.names) - 1) / 2) * width
    failed = summary["outcome"].astype(str).to_numpy() != "completed"
    references = is_reference(summary)
    for name in sheet.names:
        mine, look = strategies == name, sheet.looks[name]
        x, own = places[mine], values[mine]
        if log:
            face = "white" if references[mine].any() else look.colour
            axes.plot(x, own[:, 0], look.marker, color=look.colour, markerfacecolor=face, markersize=6, zorder=4)
        else:
            axes.bar(x, np.nan_to_num(own[:, 0]), width * 0.94, **_face(look, references[mine].any()))
        if panel.mark and log:
            axes.vlines(x, *own.T, color=look.colour, linewidth=0.9)
            axes.plot(x, own[:, 1], "_", color=look.colour, markersize=6, markeredgewidth=1.6)
        elif panel.mark:
            axes.plot(x, own[:, 1], "_", color=INK, markersize=max(3, 60 * width), markeredgewidth=1.6, zorder=4)
        cross = _cross(x[failed[mine]], np.zeros(failed[mine].sum()))
        cross.set_transform(axes.get_xaxis_transform())
        axes.add_line(cross)
        for at in x[~failed[mine]] if sheet.is_rest(name) else []:
            _at_foot(axes, at, sheet.short[name])
    bare = failed & ~np.isfinite(values[:, 0])
    for at, outcome in zip(places[bare], summary["outcome"][bare], strict=True):
        _at_foot(axes, at, plain(str(outcome).split(" ")[0].replace("_", " ")))
    slanted = len(scenarios) > MAX_UPRIGHT
    axes.set_xticks(
        range(len(scenarios)), scenarios.values(), rotation=30 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_xlim(-0.55, len(scenarios) - 0.45)
    axes.grid(False, axis="x")
    if log:
        number_axis(axes, "y", values, log=True)
        axes.set_ylim(np.nanmin(values) / LOG_ROOM, np.nanmax(values) * LOG_ROOM)
    else:
        _limit(axes, "y", panel, values.ravel(), 1.06)


def _at_foot(axes: Axes, at: float, text: str) -> None:
    """Words that rise from the foot: why there is no bar, or whose a grey one is."""
    foot: Settings = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, (at, 0), (0, 8), rotation=90, ha="center", va="bottom", fontsize=SMALL, color=INK, **foot)
