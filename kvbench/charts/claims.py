"""A claim and what was measured for it: figures beside the range that is claimed, trade-offs, choices and streams."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.labels import place_names
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import COLOURS, FONT, INK, SMALL, Settings, plain
from kvbench.charts.text import Unit, number, shown_unit
from kvbench.results.front import Cost, pareto_front
from kvbench.results.schema import STEPS, Column

VERDICTS = {
    "holds": (COLOURS[2], "o"),
    "does not hold": (COLOURS[1], "X"),
    "undecided": (COLOURS[0], "^"),
    "not claimed": ("#8A8A8A", "D"),
}
"""Colour and marker of a figure by its verdict."""
CLAIMED = "#D5E8DF"
UNITS = {"": "count", "relative": "relative difference"}
_LINE_IN = 0.42
_LABEL = 46
_WIDE = 100.0
_TINY = 1e-3
INSIDE, OUTSIDE = COLOURS[0], COLOURS[4]
CELLS: dict[str, Settings] = {
    "first": {"facecolor": "#9FD3BC", "edgecolor": "white"},
    "beaten": {"facecolor": "#FBF1EA", "edgecolor": "white"},
    "cannot hold it": {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "////", "linewidth": 0.0},
}
"""How a strategy's rank is filled; told apart in grey too."""
_WRAP = 34
_FIGURE = 5.5
_STEEP = 3.0


def claim_chart(rows: pd.DataFrame, title: str, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """A line a definition, or a line a figure where the claimed ranges differ; a panel a unit.

    Args:
        rows: of one claim: condition, definition, measured, unit, low, high, verdict.
        title: what is claimed, and the verdict.
        notes: sentences at the foot, before its own.
        subject: what was run on what.
    """
    panels = [(str(unit), _lines(group)) for unit, group in rows.groupby("unit", sort=False)]
    heights = [len(lines) + 1.2 for _, lines in panels]
    sheet = Sheet(title, subject, notes=[*notes, *_missing(rows)])
    axes = sheet.panels(len(panels), 1, _LINE_IN * sum(heights))
    grid = axes[0].get_gridspec()
    assert grid is not None
    grid.set_height_ratios(heights)
    for panel, (unit, lines) in zip(axes, panels, strict=True):
        _panel(panel, unit, lines)
    shown = [verdict for verdict in VERDICTS if (rows["verdict"] == verdict).any()]
    sheet.legend = [(_dot(verdict), verdict) for verdict in shown]
    if np.isfinite(rows[["low", "high"]].to_numpy(dtype=float)).any():
        sheet.legend.append((Patch(color=CLAIMED), "claimed"))
    return sheet.finish()


def _dot(verdict: str) -> Line2D:
    colour, marker = VERDICTS[verdict]
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=6)


def _lines(group: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Label and figures of each line, from the top."""
    lines = []
    for definition, own in group.groupby("definition", sort=False):
        if len(own[["low", "high"]].drop_duplicates()) == 1:
            lines.append((str(definition), own))
            continue
        several = group["definition"].nunique() > 1
        for index, row in own.iterrows():
            text = f"{definition}, {row['condition']}" if several else str(row["condition"])
            lines.append((text, own.loc[[index]]))
    return lines


def _panel(axes: Axes, unit: str, lines: list[tuple[str, pd.DataFrame]]) -> None:
    values = np.concatenate([own["measured"].to_numpy(dtype=float) for _, own in lines])
    values = values[np.isfinite(values)]
    if not values.size:
        empty(axes, "no figure")
        return
    ends = np.array([[own["low"].iloc[0], own["high"].iloc[0]] for _, own in lines], dtype=float)
    shown = np.concatenate([values, ends[np.isfinite(ends)]])
    wide = shown.min() > 0 and shown.max() / shown.min() > _WIDE
    number_axis(axes, "x", shown, log=wide)
    span = (shown.min() / 1.3, shown.max() * 1.3) if wide else _with_margin(shown)
    axes.set_xlim(*span)
    for turn, (_, own) in enumerate(lines):
        _line(axes, -turn, own, span)
    axes.set_ylim(0.4 - len(lines), 0.6)
    axes.set_yticks([-turn for turn in range(len(lines))])
    texts = ["\n".join(textwrap.wrap(plain(text), _LABEL)[:3]) for text, _ in lines]
    axes.set_yticklabels(texts, fontsize=SMALL)
    axes.grid(False, axis="y")
    label(axes, f"Figure ({UNITS.get(unit, unit)})", "")


def _with_margin(shown: np.ndarray) -> tuple[float, float]:
    low, high = float(shown.min()), float(shown.max())
    margin = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _line(axes: Axes, y: float, own: pd.DataFrame, span: tuple[float, float]) -> None:
    """The claimed range, the figures over it, spread so that equal ones can be counted, and how many hold."""
    low, high = (float(np.clip(own[end].iloc[0], *span)) for end in ("low", "high"))
    if np.isfinite(own[["low", "high"]].to_numpy(dtype=float)).any():
        least = 0.004 * (span[1] - span[0]) if low == high else 0.0
        axes.add_patch(Rectangle((low - least, y - 0.38), high - low + 2 * least, 0.76, color=CLAIMED, zorder=1))
    figures = own[own["measured"].notna()]
    offsets = np.linspace(-0.24, 0.24, len(figures)) if len(figures) > 1 else np.zeros(len(figures))
    for offset, (_, row) in zip(offsets, figures.iterrows(), strict=True):
        colour, marker = VERDICTS[row["verdict"]]
        axes.plot(row["measured"], y + offset, color=colour, marker=marker, markersize=5.5, alpha=0.8, zorder=3)
    if figures.empty:
        text = "no figure"
    elif len(figures) == 1:
        text = _short(float(figures["measured"].iloc[0]))
    elif (figures["verdict"] == "not claimed").all():
        text = ""
    else:
        text = f"{(figures['verdict'] == 'holds').sum()} of {len(figures)} hold"
    axes.annotate(
        text,
        (1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=FONT,
        color=INK,
        annotation_clip=False,
    )


def _short(value: float) -> str:
    return f"{value:.2g}" if 0 < abs(value) < _TINY else number(value)


def _missing(rows: pd.DataFrame) -> list[str]:
    """Why some conditions have no figure."""
    without = rows[rows["measured"].isna()]
    reasons: dict[str, list[str]] = {}
    for row in without.itertuples():
        reasons.setdefault(str(row.note), []).append(str(row.condition))
    return [f"No figure ({reason}): {'; '.join(dict.fromkeys(who))}." for reason, who in reasons.items()]


def ranges_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """Parameters as points between two costs, a panel a trade-off; the range that is claimed to be useful in colour.

    Args:
        curve: panel, value, x, x_label, y, y_half (of its interval; 0 where it is counted), y_label, inside (whether
            the value is in the claimed range).
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    names = list(dict.fromkeys(curve["panel"]))
    sheet = Sheet(title, subject, notes=notes)
    axes = sheet.panels(1, len(names), 4.2)
    for panel, name in zip(axes, names, strict=True):
        own = curve[curve["panel"] == name]
        front = own[pareto_front(Cost.around(own["x"]), Cost.around(own["y"], own["y_half"]))].sort_values("x")
        panel.plot(front["x"], front["y"], color="#999999", linewidth=0.8, zorder=1)
        for inside, colour, marker in ((True, INSIDE, "o"), (False, OUTSIDE, "s")):
            part = own[own["inside"] == inside]
            panel.plot(part["x"], part["y"], color=colour, marker=marker, linestyle="none", markersize=6)
        number_axis(panel, "x", own["x"])
        number_axis(panel, "y", own["y"], log=own["y"].min() > 0 and own["y"].max() > _STEEP * own["y"].min())
        label(panel, own["x_label"].iloc[0], own["y_label"].iloc[0], "\n".join(textwrap.wrap(name, _WRAP)))
    dots = ((INSIDE, "o", "in the article's range"), (OUTSIDE, "s", "outside it"))
    sheet.legend = [(Line2D([], [], color=c, marker=m, linestyle="none", markersize=6), text) for c, m, text in dots]
    sheet.legend.append((Line2D([], [], color="#999999", linewidth=0.8), "no other is better in both"))
    figure = sheet.finish()
    for panel, name in zip(axes, names, strict=True):
        own = curve[curve["panel"] == name]
        place_names(figure, panel, own[["x", "y"]].to_numpy(), [f"{value:g}" for value in own["value"]], [])
    return figure


def choices_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """Ranks of strategies by each definition of best, a panel a kind of conversation, the article's choice framed.

    Args:
        curve: kind, choice, definition, strategy, rank, fits (whether the strategy holds it), and what is ranked:
            value, half (of its interval; NaN where it is exact) and unit.
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    kinds = list(dict.fromkeys(curve["kind"]))
    units = {str(name): _unit_of(own) for name, own in curve.groupby("definition", sort=False)}
    definitions = [f"{name} ({unit.name})" if unit.name else name for name, unit in units.items()]
    columns = 2
    sheet = Sheet(title, subject, notes=notes)
    axes = sheet.panels(-(-len(kinds) // columns), columns, 3.6 * -(-len(kinds) // columns))
    for panel, kind in zip(axes, kinds, strict=False):
        _ranks(panel, curve[curve["kind"] == kind], units)
        panel.set_title(kind, fontsize=SMALL + 2, loc="left", color=INK)
    for panel in axes[len(kinds) :]:
        panel.axis("off")
        lines = [f"{turn}  {plain(definition)}" for turn, definition in enumerate(definitions, start=1)]
        panel.text(0.0, 1.0, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=SMALL + 1, color=INK)
    sheet.legend = [
        (Patch(**CELLS["first"]), "first, or not to be told from it"),
        (Patch(**CELLS["beaten"]), "beaten"),
        (Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.6), "the article's choice"),
        (Patch(**CELLS["cannot hold it"]), "cannot hold it"),
    ]
    sheet.notes.append(
        "In a cell stands the rank, 1 and how many others are better, and what is ranked, of times "
        "with its interval. Empty cells were not timed."
    )
    if len(kinds) % columns == 0:
        sheet.notes += [f"{turn}: {definition}." for turn, definition in enumerate(definitions, start=1)]
    return sheet.finish()


def _unit_of(own: pd.DataFrame) -> Unit:
    return shown_unit(Column(str(own["unit"].iloc[0]), ""), own.loc[own["fits"], "value"])


def _ranks(axes: Axes, own: pd.DataFrame, units: Mapping[str, Unit]) -> None:
    names, definitions = list(dict.fromkeys(own["strategy"])), list(units)
    axes.grid(False)
    axes.set(xlim=(-0.5, len(definitions) - 0.5), ylim=(len(names) - 0.5, -0.5))
    for row in own.to_dict("records"):
        x, y = definitions.index(row["definition"]), names.index(row["strategy"])
        kind = "cannot hold it" if not row["fits"] else "first" if row["rank"] == 1 else "beaten"
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **CELLS[kind]))
        if row["fits"]:
            size = units[row["definition"]].divisor
            half = f"\n± {number(row['half'] / size, 2)}" if np.isfinite(row["half"]) else ""
            text = f"{number(row['value'] / size)}{half}"
            axes.text(x, y - 0.45, f"{row['rank']:.0f}", ha="center", va="top", fontsize=SMALL, color=INK)
            axes.text(x, y + 0.46, text, ha="center", va="bottom", fontsize=_FIGURE, color=INK, linespacing=0.95)
    chosen = names.index(own["choice"].iloc[0])
    width = len(definitions)
    axes.add_patch(Rectangle((-0.5, chosen - 0.5), width, 1, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False))
    axes.set_xticks(range(width), [str(turn) for turn in range(1, width + 1)], fontsize=SMALL)
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=SMALL)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def stream_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """Bytes held while a stream goes on, by strategy, and what streaming's attention reads of them.

    Args:
        curve: strategy, seen_tokens, allocated_bytes, attended_bytes.
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    sheet = Sheet(title, subject, names=curve["strategy"].unique(), notes=notes)
    (axes,) = sheet.panels(1, 1, 3.6)
    unit = shown_unit(STEPS["allocated_bytes"], curve["allocated_bytes"])
    for strategy, own in curve.groupby("strategy", sort=False):
        name = str(strategy)
        (line,) = axes.plot(
            own["seen_tokens"],
            own["allocated_bytes"] / unit.divisor,
            drawstyle="steps-post",
            color=sheet.looks[name].colour,
            linestyle=sheet.looks[name].line,
        )
        sheet.entry(line, name, f"{name}, allocated")
    own = curve[curve["strategy"] == "streaming"]
    (line,) = axes.plot(own["seen_tokens"], own["attended_bytes"] / unit.divisor, color=INK, linewidth=0.9)
    sheet.legend.append((line, "streaming, read by attention"))
    number_axis(axes, "x", curve["seen_tokens"], log=False)
    number_axis(axes, "y", np.append(curve["allocated_bytes"] / unit.divisor, 0.0), log=False)
    from_zero(axes, axes.dataLim.y1)
    label(axes, STEPS["seen_tokens"].axis(), f"On the device ({unit.name})")
    return sheet.finish()
