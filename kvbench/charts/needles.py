"""Needles found in a long context: heat maps of recall, how deep they lie against how long the context is."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kvbench.charts.axes import tick_text
from kvbench.charts.sheet import Sheet
from kvbench.charts.style import FONT, INK, SMALL, short_names

MAX_ROWS = 4
MAX_ACROSS = 3
ROW_IN = 1.95
NAME_LENGTH = 26
MANY_LENGTHS = 3
MAX_VALUES = 60
"""Cells of a panel beyond which their values are not written."""
TURNS = {"first": "first turn", "later": "later turn"}
MAP = colormaps["cividis"]
MISSING = "#EEEEEE"
_DARK = 0.55
TITLE = "Needles found"


class _Grid(NamedTuple):
    """What all panels share."""

    lengths: np.ndarray
    depths: np.ndarray
    turns: list[str]


def needle_charts(needles: pd.DataFrame, subject: str = "", title: str = TITLE) -> dict[str, Figure]:
    """Recall by depth and context length: a heat map a strategy, budget and turn, all of one scale from 0 to 100 %.

    Args:
        needles: a row a strategy, budget, length, depth and turn: strategy, budget_tokens (NaN: none), context_tokens,
            depth (0 start, 1 end), turn (first or later), recall (0 to 1, NaN: not asked), num_asked.
        subject: which model.
        title: of the figures.
    Returns:
        Name to figure: needles, or needles_1, needles_2, … where there are more panels than one figure holds; none
        where nothing was asked.
    """
    asked = needles[needles["recall"].notna()]
    if asked.empty:
        return {}
    turns = [turn for turn in TURNS if (asked["turn"] == turn).any()]
    grid = _Grid(np.unique(asked["context_tokens"]), np.unique(asked["depth"]), turns)
    keys = needles.assign(strategy=needles["strategy"].astype(str))[["strategy", "budget_tokens"]].drop_duplicates()
    most = MAX_ACROSS * MAX_ROWS
    pages = [keys[start : start + most] for start in range(0, len(keys), most)]
    charts = {}
    for turn, page in enumerate(pages, start=1):
        many = len(pages) > 1
        name, text = (f"needles_{turn}", f"{title} ({turn} of {len(pages)})") if many else ("needles", title)
        charts[name] = _page(needles, page, grid, Sheet(text, subject, notes=[_asked_text(asked)]))
    return charts


def _asked_text(asked: pd.DataFrame) -> str:
    least, most = asked["num_asked"].min(), asked["num_asked"].max()
    count = tick_text(least) if least == most else f"{tick_text(least)} to {tick_text(most)}"
    return f"Cells: % found of the needles planted there, {count} asked for in each."


def _page(needles: pd.DataFrame, keys: pd.DataFrame, grid: _Grid, sheet: Sheet) -> Figure:
    """A figure of so many strategies, each with its turns side by side."""
    num_turns = len(grid.turns)
    across = min(len(keys), MAX_ACROSS)
    num_rows = -(-len(keys) // across)
    count = len(keys) * num_turns
    panels = sheet.panels(num_rows, across * num_turns, ROW_IN * num_rows + 0.3, count=count)
    short = short_names(keys["strategy"], NAME_LENGTH)
    for place, axes in enumerate(panels):
        row, column = divmod(place, across * num_turns)
        index = row * across + column // num_turns
        name, budget = keys.iloc[index]
        turn = grid.turns[column % num_turns]
        same = needles["budget_tokens"].isna() if pd.isna(budget) else needles["budget_tokens"] == budget
        own = needles[(needles["strategy"].astype(str) == name) & same & (needles["turn"] == turn)]
        head = short[name] + ("" if pd.isna(budget) else f", {tick_text(budget)} tokens")
        above = head if turn == grid.turns[0] else ""  # over all turns of a strategy
        axes.set_title(f"{above}\n{TURNS[turn]}", fontsize=SMALL, loc="left", color=INK)
        _heat_map(axes, own, grid, is_first=column == 0, is_last=index + across >= len(keys))
    bar = panels[0].figure.colorbar(
        ScalarMappable(Normalize(0, 100), MAP), ax=panels, location="right", shrink=min(1.0, 1.6 / num_rows), aspect=18
    )
    bar.set_label("Needles found (%)", fontsize=FONT)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    return sheet.finish()


def _heat_map(axes: Axes, rows: pd.DataFrame, grid: _Grid, is_first: bool, is_last: bool) -> None:
    table = rows.pivot_table(index="depth", columns="context_tokens", values="recall", aggfunc="mean")
    recall = 100 * table.reindex(index=grid.depths, columns=grid.lengths).to_numpy(dtype=float)
    axes.set_facecolor(MISSING)
    axes.imshow(np.ma.masked_invalid(recall), cmap=MAP, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.hlines(np.arange(1, len(grid.depths)) - 0.5, -0.5, len(grid.lengths) - 0.5, color="white", linewidth=0.8)
    axes.vlines(np.arange(1, len(grid.lengths)) - 0.5, -0.5, len(grid.depths) - 0.5, color="white", linewidth=0.8)
    axes.set_xticks(range(len(grid.lengths)), [tick_text(length) for length in grid.lengths] if is_last else [])
    axes.set_yticks(range(len(grid.depths)), [tick_text(round(100 * d, 1)) for d in grid.depths] if is_first else [])
    axes.tick_params(labelsize=SMALL, length=0)
    if is_last:
        axes.set_xlabel("Context (tokens)", fontsize=SMALL)
        axes.tick_params(axis="x", labelrotation=45 if len(grid.lengths) > MANY_LENGTHS else 0)
    if is_first:
        axes.set_ylabel("Depth (%)", fontsize=SMALL)
    if recall.size > MAX_VALUES:
        return
    for (row, column), value in np.ndenumerate(recall):
        text = f"{value:.0f}" if np.isfinite(value) else "–"
        light = np.isfinite(value) and value < 100 * _DARK
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL - 1, color="white" if light else INK)
