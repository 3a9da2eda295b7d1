"""A claim and what was measured for it: each definition's figures, beside the range that is claimed."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import COLOURS, FONT, INK, SMALL, plain
from kvbench.charts.text import number
from kvbench.charts.units import number_axis

VERDICTS = {
    "holds": (COLOURS[2], "o"),
    "does not hold": (COLOURS[1], "X"),
    "undecided": (COLOURS[0], "^"),
    "not claimed": ("#8A8A8A", "D"),
}
"""Colour and marker of a figure by its verdict."""
CLAIMED = "#D5E8DF"
UNITS = {"%": "%", "×": "times (×)", "": "count", "relative": "relative difference"}
_LINE_IN = 0.42
_LABEL = 46
_WIDE = 100.0
_TINY = 1e-3


def claim_chart(rows: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Figure:
    """A line a definition, or a line a figure where the claimed ranges differ; a panel a unit.

    Args:
        rows: of one claim: condition, definition, measured, unit, low, high, verdict.
        title: what is claimed, and the verdict.
        notes: sentences at the foot, before its own.
    """
    panels = [(unit, _lines(group)) for unit, group in rows.groupby("unit", sort=False)]
    heights = [len(lines) + 1.2 for _, lines in panels]
    sheet = Sheet(title, notes=[*notes, *_missing(rows)])
    axes = sheet.panels(len(panels), 1, _LINE_IN * sum(heights))
    axes[0].get_gridspec().set_height_ratios(heights)
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
    label(axes, UNITS.get(unit, unit), "")


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
        reasons.setdefault(row.note, []).append(row.condition)
    return [f"No figure ({reason}): {'; '.join(dict.fromkeys(who))}." for reason, who in reasons.items()]
