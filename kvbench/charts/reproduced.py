"""Published figures beside ours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import EDGE, FAINT, FONT, INK, SMALL, STATES, Settings, look, plain, state_patch
from kvbench.charts.text import number

PARTS = {
    "token states": "token states",
    "reserved": "reserved",
    "internal": "internal waste",
    "external": "external waste",
}
"""A part's name in the figures, and what the legend calls it; its look is that of the state of memory that it is."""
BAR = 0.38
LEAST_WRITTEN = 5.0
ROW_IN = 0.2
CLIPPED = 3.0
MARK_POINTS = (8, 7, 6, 5)
"""The later a line is drawn, the smaller its marks, so that those that it covers are seen."""


def occupancy_chart(figures: pd.DataFrame, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """Where a cache's memory goes under each system: printed and ours side by side, and the mean batch.

    Args:
        figures: rows of `reproduce.figures_frame`, of PagedAttention's figures.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    feet = ["Of vLLM only token states are printed.", *notes]
    sheet = Sheet("PagedAttention's figure 2: printed and ours", subject, notes=feet)
    shares, batches = sheet.panels(1, 2, 3.8)
    own = figures[figures["unit"] == "%"]
    names = list(dict.fromkeys(text.rpartition(", ")[0] for text in own["quantity"]))
    values = own.set_index("quantity")
    for place, name in enumerate(names):
        for column, shift in (("published", -BAR / 2), ("ours", BAR / 2)):
            _stack(shares, place + shift, [float(values[column][f"{name}, {part}"]) for part in PARTS])
    shares.set_xticks(range(len(names)), [plain(name) for name in names], fontsize=FONT)
    shares.set_ylim(0, 104)
    label(shares, "left bar: as printed, right bar: ours", "Share of the cache's memory (%)", "Memory")
    _batches(batches, figures[figures["unit"] == "requests"])
    for axes in (shares, batches):
        axes.grid(False, axis="x")
    sheet.legend = [(state_patch(state), text) for state, text in zip(STATES, PARTS.values(), strict=True)]
    return sheet.finish()


def _stack(axes: Axes, x: float, values: list[float]) -> None:
    bottom = 0.0
    for value, state in zip(values, STATES, strict=True):
        if not np.isfinite(value):
            continue
        filled: Settings = {"color": state.colour, "hatch": state.hatch, "edgecolor": EDGE, "linewidth": 0.5}
        axes.bar(x, value, BAR * 0.92, bottom=bottom, **filled)
        if value >= LEAST_WRITTEN:
            box = {"facecolor": state.colour, "edgecolor": "none", "pad": 0.8}
            where: Settings = {"ha": "center", "va": "center", "fontsize": SMALL - 1, "color": state.ink}
            axes.text(x, bottom + value / 2, f"{value:.1f}", bbox=box, **where)
        bottom += value


def _batches(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    for column, shift, colour in (("published", -BAR / 2, FAINT), ("ours", BAR / 2, "#0072B2")):
        values = rows[column].to_numpy(dtype=float)
        axes.bar(places + shift, values, BAR * 0.92, color=colour, edgecolor="white")
        for place, value in zip(places, values, strict=True):
            if np.isfinite(value):
                axes.text(place + shift, value, f"{value:.1f}", ha="center", va="bottom", fontsize=SMALL)
    axes.set_xticks(places, [plain(name) for name in rows["quantity"]], fontsize=FONT)
    label(axes, "left bar: as printed, right bar: ours", "Requests in a batch (mean)", "Batch")


def rates_chart(rates: pd.DataFrame, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """How memory's shares and the mean batch move with the arrival rate.

    Args:
        rates: from `studies.reproduce.paged_attention.rates_frame`.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    columns = [f"{part.replace(' ', '_')}_percent" for part in PARTS]
    meant = (
        "Shares are averaged over the time in which a request waits for memory; of a system in which none ever waits, "
        "over all time in which something is live."
    )
    sheet = Sheet("PagedAttention's figure 2 over the arrival rate", subject, notes=[meant, *notes])
    panels = sheet.panels(2, 3, 5.6)
    rates = rates.assign(waiting_percent=100 * rates["waiting_share"])
    names = list(dict.fromkeys(rates["system"]))
    panels_of = [(text, column, "Share of memory (%)") for text, column in zip(PARTS.values(), columns, strict=True)]
    panels_of += [
        ("mean batch", "mean_batch", "Requests (mean)"),
        ("waiting for memory", "waiting_percent", "Share of time (%)"),
    ]
    for axes, (title, column, axis) in zip(panels, panels_of, strict=True):
        for place, name in enumerate(names):
            own, size = rates[rates["system"] == name], MARK_POINTS[place % len(MARK_POINTS)]
            axes.plot(own["rate_per_s"], own[column], **look(place).of_line(), markersize=size)
        number_axis(axes, "x", rates["rate_per_s"], log=False)
        number_axis(axes, "y", rates[column], log=False)
        from_zero(axes, axes.dataLim.y1)
        label(axes, "Arrivals (requests/s)", axis, title[:1].upper() + title[1:])
    sheet.legend = [(Line2D([], [], **look(place).of_line()), plain(name)) for place, name in enumerate(names)]
    return sheet.finish()


def reproduced_chart(figures: pd.DataFrame, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """Every figure's difference from the printed one, as a part of its goal.

    Args:
        figures: rows of `reproduce.figures_frame`.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    judged = figures[figures["verdict"].isin(["reproduced", "missed"])].reset_index(drop=True)
    feet = ["Shaded: within the goal. At the left: the figure as printed, and ours.", *notes]
    sheet = Sheet("Published figures and ours", subject, notes=feet)
    (axes,) = sheet.panels(1, 1, max(1.6, ROW_IN * len(judged) + 0.8))
    if judged.empty:
        empty(axes, "no figure was computed")
        return sheet.finish()
    goals = judged["goal"].to_numpy(dtype=float)
    off = judged["difference"].to_numpy(dtype=float)
    parts = np.where(off == 0, 0.0, off / np.where(goals > 0, goals, np.abs(off) / CLIPPED + (off == 0)))
    shown = np.clip(parts, -CLIPPED, CLIPPED)
    places = np.arange(len(judged))[::-1]
    axes.axvspan(-1, 1, color="#E8F1EA", zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    results = list(dict.fromkeys(judged["result"]))
    for turn, result in enumerate(results):
        mask = (judged["result"] == result).to_numpy()
        style = look(turn)
        axes.plot(shown[mask], places[mask], linestyle="", color=style.colour, marker=style.marker, markersize=6)
    texts = [
        f"{plain(row['quantity'])}: {number(row['published'], 4)}, ours {number(row['ours'], 4)} {row['unit']}"
        for row in judged.to_dict("records")
    ]
    axes.set_yticks(places, texts, fontsize=SMALL)
    axes.set_ylim(-0.8, len(judged) - 0.2)
    number_axis(axes, "x", shown, log=False)
    axes.set_xlim(-max(1.3, np.abs(shown).max() * 1.1), max(1.3, np.abs(shown).max() * 1.1))
    label(axes, "Difference, ours less printed (÷ the goal)", "", "")
    sheet.legend = [
        (Line2D([], [], linestyle="", color=look(i).colour, marker=look(i).marker), plain(result))
        for i, result in enumerate(results)
    ]
    return sheet.finish()
