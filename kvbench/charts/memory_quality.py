"""What a cache saves in memory and costs in quality, in a real model: a point a strategy and budget."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import changed_axis, excess_axis, number_axis, tick_text, wants_log
from kvbench.charts.labels import place_names
from kvbench.charts.rows import failures, strategy_names
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import FONT, INK, Look, Settings, short_names
from kvbench.charts.text import Unit, number, shown_unit
from kvbench.charts.tradeoff import FRONT, LABEL_LENGTH, front_path, point_mark
from kvbench.results.front import Cost, is_reference, may_win, pareto_front, rounded_cost
from kvbench.results.schema import Column

FULL_LINE = (0, (1, 1.2))
RING: Settings = {
    "marker": "o",
    "markersize": 12.5,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "linestyle": "",
}
RING_POINTS = 6.8
PEER = "transformers"
MEMORY = "Peak memory of K and V"
TITLE = "Memory against quality: lower left is better"


class _Points(NamedTuple):
    """What all panels share: memory in the shown unit, the names beside the points and their looks."""

    table: pd.DataFrame
    memory: np.ndarray
    unit: Unit
    texts: list[str]
    style: dict[str, Look]
    competes: np.ndarray
    memory_text: str


class _Tradeoff(NamedTuple):
    """What a panel is to show: a cost a row, its words, and the full cache's perplexity.

    That is NaN where it is not known, and None where costs are no perplexities.
    """

    shared: _Points
    costs: np.ndarray
    title: str
    y_label: str
    full: float | None = None

    @property
    def rows(self) -> np.ndarray:
        """The rows that have both a memory and a cost."""
        return np.flatnonzero(np.isfinite(self.costs) & np.isfinite(self.shared.memory))


class _Drawn(NamedTuple):
    """Where a panel's points lie, which row each is, whether it is on the front, and the lines between them."""

    points: np.ndarray
    rows: np.ndarray
    on_front: np.ndarray
    lines: list[np.ndarray]


def memory_quality_chart(table: pd.DataFrame, subject: str = "", title: str = TITLE) -> Figure:
    """Peak memory against perplexity (streaming, and prefill then continue) and against changed next tokens.

    The Pareto front joins those that no other beats in both; a dotted line is the full cache. Perplexity's axis is
    logarithmic in what lies above the full cache's, linear within 1 % of it. A row that did not complete is in a note;
    where it has a value all the same, its point is hollow and on no front. A small panel without values is left out.

    Args:
        table: a row a strategy and budget: strategy, kind (kvbench or transformers), lossless, budget_tokens, outcome,
            perplexity, perplexity_continued, agreement, peak_bytes, peak_bytes_continued if known, ideal_bytes,
            num_attended; values may be NaN.
        subject: which model, on what text.
        title: of the figure.
    """
    sheet = Sheet(title, subject, strategy_names(table), coloured=_on_front(table))
    shared = _shared(table, sheet.looks)
    changed = 100 * (1 - _numbers(table, "agreement"))
    first = _perplexity(shared, "perplexity", "Streaming: token by token from the start")
    others = [
        _perplexity(_continued(shared), "perplexity_continued", "Prefill, then token by token"),
        _Tradeoff(shared, changed, "Streaming: next tokens changed", "Other than the full cache's (%)"),
    ]
    shown = [first, *(each for each in others if each.rows.size)]
    panels = sheet.wide_panels(5.0, len(shown) - 1, 3.6)
    drawn = [_panel(axes, each) for axes, each in zip(panels, shown, strict=True)]
    for axes, is_drawn in zip(panels, drawn, strict=True):
        if is_drawn is not None:
            _ideal_axis(axes, shared)
    references = strategy_names(table[is_reference(table)])
    for name in sheet.names:
        sheet.entry(point_mark(shared.style[name], name not in references), name)
    if (table["kind"] == PEER).any():
        sheet.legend.append((Line2D([], [], **RING | {"markersize": 11}), "ringed: transformers' own"))
    sheet.legend.append((Line2D([], [], color=INK, linewidth=1.2, linestyle=FRONT), "Pareto front"))
    sheet.legend.append((Line2D([], [], color=INK, linewidth=1.2, linestyle=FULL_LINE), "full cache"))
    sheet.notes += _feet(shared)
    figure = sheet.finish()
    for axes, panel in zip(panels, drawn, strict=True):
        if panel is not None:
            _name(figure, axes, panel, shared, everything=axes is panels[0])
    return figure


def budget_texts(table: pd.DataFrame) -> list[str]:
    """Each row's strategy, and its budget as a share of the tokens where it has one (as tokens where none is known)."""
    names = table["strategy"].astype(str)
    short = short_names(names, LABEL_LENGTH + 6)
    whole = _numbers(table, "num_attended")[table["lossless"].to_numpy(dtype=bool)]
    whole = whole[np.isfinite(whole)]
    texts = []
    for name, budget in zip(names, _numbers(table, "budget_tokens"), strict=True):
        text = short[name]
        if np.isfinite(budget):
            text += f" {number(100 * budget / whole.max(), 2)} %" if whole.size else f" {tick_text(budget)}"
        texts.append(text)
    return texts


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    return table[column].to_numpy(dtype=float) if column in table else np.full(len(table), np.nan)


def _on_front(table: pd.DataFrame) -> list[str]:
    """The strategies that no other beats in memory and perplexity, and then the others."""
    costs = _numbers(table, "perplexity")
    if not np.isfinite(costs).any():
        return strategy_names(table)
    cost = rounded_cost(costs, table["lossless"].to_numpy(dtype=bool))
    memory = Cost.around(_numbers(table, "peak_bytes")).among(may_win(table))
    return strategy_names(table[pareto_front(memory, cost)])


def _shared(table: pd.DataFrame, style: dict[str, Look]) -> _Points:
    memory = _numbers(table, "peak_bytes")
    memory = np.where(memory > 0, memory, np.nan)
    unit = shown_unit(Column("bytes", ""), memory)
    return _Points(table, memory / unit.divisor, unit, budget_texts(table), style, may_win(table), MEMORY)


def _continued(shared: _Points) -> _Points:
    """With the peaks of prefill and continuation; those of streaming, and said so, where the table has no others."""
    if "peak_bytes_continued" not in shared.table:
        return shared._replace(memory_text=f"{MEMORY}, streaming")
    memory = _numbers(shared.table, "peak_bytes_continued") / shared.unit.divisor
    return shared._replace(memory=np.where(memory > 0, memory, np.nan))


def _feet(shared: _Points) -> list[str]:
    """Notes that the table itself gives: what budgets are, and who has no point."""
    table = shared.table
    named = table.assign(strategy=shared.texts)
    feet = []
    if np.isfinite(_full(shared, "perplexity")):
        feet.append("Perplexity's axes are linear within 1 % of the full cache's, and logarithmic in what lies above.")
    if np.isfinite(_numbers(table, "budget_tokens")).any():
        in_tokens = "%" not in "".join(shared.texts)
        feet.append(f"Beside a name: its budget, in {'tokens' if in_tokens else '% of the tokens'}.")
    feet += failures(named)
    has_value = np.isfinite(_numbers(table, "perplexity"))
    completed = (table["outcome"].astype(str) == "completed").to_numpy()
    if (~completed & has_value).any():
        feet.append("Hollow: not completed, on no front.")
    if (is_reference(table) & has_value).any():
        feet.append("Hollow: for reference, on no front.")
    missing = completed & ~has_value
    if missing.any():
        feet.append(f"No perplexity: {', '.join(named['strategy'][missing])}.")
    return feet


def _full(shared: _Points, column: str) -> float:
    """The full cache's perplexity: the lossless rows' median; NaN where there is none."""
    own = _numbers(shared.table, column)[shared.table["lossless"].to_numpy(dtype=bool)]
    own = own[np.isfinite(own)]
    return float(np.median(own)) if own.size else np.nan


def _perplexity(shared: _Points, column: str, title: str) -> _Tradeoff:
    return _Tradeoff(shared, _numbers(shared.table, column), title, "Perplexity", _full(shared, column))


def _panel(axes: Axes, tradeoff: _Tradeoff) -> _Drawn | None:
    """Draw one trade-off; None where no row has both a memory and a cost."""
    shared, costs, title, y_label, full = tradeoff
    rows = tradeoff.rows
    label(axes, f"{shared.memory_text} ({shared.unit.name})", y_label, title)
    if not rows.size:
        empty(axes, "no strategy has a value here")
        return None
    names = shared.table["strategy"].astype(str).to_numpy()
    points = np.column_stack([shared.memory, costs])[rows]
    _scales(axes, points, full)
    lines = []
    for name in dict.fromkeys(names[rows]):
        look, own = shared.style[name], points[names[rows] == name]
        own = own[np.argsort(own[:, 0], kind="stable")]
        axes.plot(*own.T, color=look.colour, linestyle=look.line, linewidth=0.9, alpha=0.6, zorder=2)
        lines.append(own)
    for row, point in zip(rows, points, strict=True):
        mark = point_mark(shared.style[names[row]], shared.competes[row])
        mark.set(xdata=point[:1], ydata=point[1:], zorder=4)
        axes.add_line(mark)
    peers = shared.table["kind"].to_numpy()[rows] == PEER
    axes.plot(*points[peers].T, **RING, zorder=3)
    cost = rounded_cost(costs, shared.table["lossless"].to_numpy(dtype=bool))
    on_front = pareto_front(Cost.around(shared.memory).among(shared.competes), cost)[rows]
    path = front_path(axes, points[on_front])
    axes.plot(*path.T, color=INK, linestyle=FRONT, linewidth=1.2, zorder=3)
    level = 0.0 if full is None else full
    if np.isfinite(level):
        axes.axhline(level, color=INK, linestyle=FULL_LINE, linewidth=1.2, zorder=1)
        left, right = axes.get_xlim()
        lines.append(np.array([[left, level], [right, level]]))
    return _Drawn(points, rows, on_front, [*lines, path])


def _scales(axes: Axes, points: np.ndarray, full: float | None) -> None:
    memory, costs = points.T
    number_axis(axes, "x", memory)
    if wants_log(memory):
        axes.set_xlim(memory.min() / 1.3, memory.max() * 1.6)
    else:
        axes.set_xlim(0, memory.max() * 1.18)
    if full is None:
        changed_axis(axes, costs)
    elif np.isfinite(full):
        excess_axis(axes, costs, full)
    else:
        number_axis(axes, "y", costs)
        axes.set_ylim(*((costs.min() / 1.2, costs.max() * 1.2) if wants_log(costs) else (0, costs.max() * 1.15)))


def _ideal_axis(axes: Axes, shared: _Points) -> None:
    """What the memory is of the tokens' own bytes, above the panel, where these are the same in all rows."""
    ideal = np.unique(_numbers(shared.table, "ideal_bytes"))
    ideal = ideal[np.isfinite(ideal) & (ideal > 0)]
    if len(ideal) != 1:
        return
    factor = 100 * shared.unit.divisor / ideal[0]
    top = axes.secondary_xaxis("top", functions=(lambda memory: memory * factor, lambda share: share / factor))
    top.set_xlabel("Share of the ideal bytes (%)", fontsize=FONT)
    shares = np.array(axes.get_xlim()) * factor
    if axes.get_xscale() == "log":
        top.set_xscale("log")
    number_axis(top, "x", shares, log=axes.get_xscale() == "log")
    top.tick_params(labelsize=FONT - 1)
    top.spines["top"].set_visible(False)


def _name(figure: Figure, axes: Axes, panel: _Drawn, shared: _Points, everything: bool) -> None:
    """Write names beside the points, those on the front first; in a small panel those alone."""
    order = np.argsort(~panel.on_front, kind="stable")
    count = len(order) if everything else panel.on_front.sum()
    texts = [shared.texts[panel.rows[index]] for index in order[:count]]
    rings = panel.points[shared.table["kind"].to_numpy()[panel.rows] == PEER]
    corners = axes.transData.transform(rings)
    apart = RING_POINTS * figure.dpi / 72
    boxes = [axes.transData.inverted().transform([corner - apart, corner + apart]) for corner in corners]
    place_names(figure, axes, panel.points[order], texts, [*panel.lines, *boxes])
