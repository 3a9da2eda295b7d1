"""The article's four panels: memory, utilization, resizes, efficiency."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import failures, notes_of, strategy_names
from kvbench.charts.style import INK, SMALL, Look, looks, plain, short_names
from kvbench.charts.units import number, number_axis, shown_unit, value_ticks, wants_log
from kvbench.results.front import is_reference
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
)
AXES = {
    "peak_bytes": "Memory",
    "utilization_mean": "Utilization (used ÷ allocated)",
    "utilization_peak": "Utilization (used ÷ allocated)",
    "num_resizes": "Resizes (count)",
    "efficiency": "Efficiency",
    "mean_batch": "Requests live (count)",
}
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
BAR_IN = 0.24
GROUP_WIDTH = 0.84
MAX_UPRIGHT = 4
LOG_ROOM = 1.5


def panels_chart(summary: pd.DataFrame) -> Figure:
    """Memory, utilization, resizes and efficiency as bars.

    One scenario: a bar a strategy. Several: a group of bars a scenario. A strategy that did not complete has a cross
    at its foot; its bar shows what it did until then.

    Args:
        summary: a row a strategy, or a row a strategy and scenario.
    Source: the article, comprehensive benchmark.
    Departs: memory is the peak of live bytes, not the sum of all allocations.
    """
    names = strategy_names(summary)
    scenarios = list(dict.fromkeys(summary["scenario"].astype(str)))
    style, short = looks(names), short_names(names)
    notes = notes_of(summary)
    if failures(summary):
        notes.append("A cross marks a strategy that did not complete; its bar shows what it did until then.")
    if len(scenarios) > 1:
        figure, panels = canvas(2, 2, 6.0)
        shown_scenarios = short_names(scenarios, 18)
        for axes, panel in zip(panels, PANELS, strict=True):
            groups(axes, summary, panel, names, style, shown_scenarios)
        legend = legend_of_bars(summary, style, short)
        return finish(figure, "Memory, utilization, resizes and efficiency by scenario", legend, notes)
    figure, panels = canvas(2, 2, 2 * max(1.7, 0.9 + BAR_IN * len(names)))
    for axes, panel in zip(panels, PANELS, strict=True):
        bars(axes, summary, panel, style, short)
    for axes in panels[1::2]:
        axes.tick_params(labelleft=False)
    of = f": {scenarios[0]}" if scenarios else ""
    return finish(figure, f"Memory, utilization, resizes and efficiency{of}", notes=notes)


def legend_of_bars(summary: pd.DataFrame, style: dict[str, Look], short: dict[str, str]) -> list[tuple[Patch, str]]:
    """Each strategy's bar, hollow where it is a reference."""
    references = strategy_names(summary[is_reference(summary)])
    return [(Patch(**_face(style[name], name in references)), text) for name, text in short.items()]


def _face(look: Look, is_hollow: bool) -> dict[str, object]:
    """How a bar is filled."""
    if is_hollow:
        return {"facecolor": "white", "edgecolor": look.colour, "hatch": look.hatch, "linewidth": 0.9}
    return {"facecolor": look.colour, "edgecolor": "white", "hatch": look.hatch, "linewidth": 0.5}


def _cross(x: object, y: object) -> Line2D:
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


def bars(axes: Axes, summary: pd.DataFrame, panel: Panel, style: dict[str, Look], short: dict[str, str]) -> None:
    """Horizontal bars, so that long names can be read; each with its number."""
    columns = [column for column in (panel.bars, panel.mark) if column]
    values = summary[columns].to_numpy(dtype=float)
    unit = shown_unit(SUMMARY[panel.bars], values)
    label(axes, _axis_text(panel, unit.name), "", panel.title)
    if not np.isfinite(values[:, 0]).any():
        empty(axes, f"no strategy has a value of {panel.bars}")
        return
    values = values / unit.divisor
    rows = np.arange(len(summary))
    names = summary["strategy"].astype(str).to_numpy()
    drawn = axes.barh(rows, np.nan_to_num(values[:, 0]), 0.7)
    for bar, name, is_hollow in zip(drawn, names, is_reference(summary), strict=True):
        bar.set(**_face(style[name], is_hollow))
    if panel.mark:
        axes.plot(values[:, 1], rows, "|", color=INK, markersize=11, markeredgewidth=2, zorder=4)
    failed = summary["outcome"].astype(str).to_numpy() != "completed"
    axes.add_line(_cross(np.zeros(failed.sum()), rows[failed]))
    ends = np.nanmax(np.where(np.isfinite(values), values, 0.0), axis=1)
    for row, end, shown in zip(rows, ends, values, strict=True):
        text = number(shown[0]) + (f" ({number(shown[1])})" if panel.mark else "")
        axes.annotate(text, (end, row), (7, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)
    axes.set_yticks(rows, [short[name] for name in names])
    axes.set_ylim(len(summary) - 0.4, -0.6)
    axes.grid(False, axis="y")
    _limit(axes, "x", panel, ends, 1.28 if panel.mark else 1.16)


def groups(
    axes: Axes,
    summary: pd.DataFrame,
    panel: Panel,
    names: list[str],
    style: dict[str, Look],
    scenarios: dict[str, str],
) -> None:
    """Upright bars in a group a scenario, the strategies in one order in each; words where a failed one has no bar."""
    columns = [column for column in (panel.bars, panel.mark) if column]
    values = summary[columns].to_numpy(dtype=float)
    log = panel.log and wants_log(values)
    unit = shown_unit(SUMMARY[panel.bars], np.nanmin(values) if log else values)
    label(axes, "", _axis_text(panel, f"{unit.name}, log" if log else unit.name), panel.title)
    if not np.isfinite(values[:, 0]).any():
        empty(axes, f"no strategy has a value of {panel.bars}")
        return
    values = values / unit.divisor
    width = GROUP_WIDTH / len(names)
    group = summary["scenario"].astype(str).map({name: at for at, name in enumerate(scenarios)}).to_numpy(dtype=float)
    strategies = summary["strategy"].astype(str).to_numpy()
    failed = summary["outcome"].astype(str).to_numpy() != "completed"
    references = is_reference(summary)
    for name in names:
        mine = strategies == name
        x = _places(group, strategies, names, width)[mine]
        axes.bar(x, np.nan_to_num(values[mine, 0]), width * 0.94, **_face(style[name], references[mine].any()))
        if panel.mark:
            axes.plot(x, values[mine, 1], "_", color=INK, markersize=max(3, 60 * width), markeredgewidth=1.6, zorder=4)
        cross = _cross(x[failed[mine]], np.zeros(failed[mine].sum()))
        cross.set_transform(axes.get_xaxis_transform())
        axes.add_line(cross)
    bare = failed & ~np.isfinite(values[:, 0])
    for at, outcome in zip(_places(group, strategies, names, width)[bare], summary["outcome"][bare], strict=True):
        _reason(axes, at, outcome)
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


def _places(group: np.ndarray, strategies: np.ndarray, names: list[str], width: float) -> np.ndarray:
    """Where each row's bar stands: in its scenario's group, at its strategy's place."""
    turn = np.array([names.index(name) for name in strategies])
    return group + (turn - (len(names) - 1) / 2) * width


def _reason(axes: Axes, at: float, outcome: object) -> None:
    """Why there is no bar, upright above its cross: too long, out of memory."""
    text = plain(str(outcome).split(" ")[0].replace("_", " "))
    foot = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, (at, 0), (0, 8), rotation=90, ha="center", va="bottom", fontsize=SMALL, **foot)
