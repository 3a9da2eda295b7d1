"""Memory over tokens: what each strategy allocates, what holds tokens, and where it resizes."""

from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import last_repetitions, notes_of, strategy_names, thinned
from kvbench.charts.style import INK, Look, looks, short_names
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.schema import STEPS

MAX_MARKS = 100
NUM_MARKERS = 7
MAX_TEXT = 60
CROWDED = 3.0
FEW = 2
DASHED = (0, (4, 2))
TITLE = "KV-cache memory over tokens, last repetition"


class _Line(NamedTuple):
    """One strategy's line: its name as shown, its look, its rows, and how far its markers are shifted (0 to 1)."""

    text: str
    look: Look
    rows: pd.DataFrame
    shift: float


def memory_chart(summary: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Device bytes held (solid: slots and staging buffers) and used bytes (dashed) over the tokens appended.

    Shown is each strategy's last repetition that is no warm-up. An append needs its bytes before it writes, so that a
    step's bytes stand over the tokens it appended. Used bytes are drawn once for all strategies that use the same
    (where requests arrive by the clock, each uses its own).
    A mark stands at each resize, at the bytes held while it ran (old and new buffer); none where they exceed 100.
    Where at most half of the strategies hold over three times what the others do, a second panel shows the others.

    Args:
        summary: a row a strategy.
        steps: rows of all strategies and repetitions.
    """
    names = strategy_names(summary)
    shown, style, short = last_repetitions(steps, names), looks(names), short_names(names)
    lines = [
        _Line(short[name], style[name], rows, turn / len(shown)) for turn, (name, rows) in enumerate(shown.items())
    ]
    notes = notes_of(summary)
    missing = [name for name in names if name not in shown]
    if missing:
        notes.append(f"Appended nothing: {', '.join(missing)}.")
    many = any(line.rows["session"].nunique() > 1 for line in lines)
    x_label = "Appended, all requests (tokens)" if many else "Appended (tokens)"
    if not lines:
        figure, (axes,) = canvas(1, 1, 4.2)
        label(axes, x_label, "Memory (MiB)")
        empty(axes, "no strategy appended a token")
        return finish(figure, TITLE, notes=notes)
    notes += [f"Resizes of {line.text} are too many to mark." for line in lines if len(_resized(line)) > MAX_MARKS]
    peaks = [float((_held(line.rows) + line.rows["transient_bytes"]).max()) for line in lines]
    limits = [max(peaks), *_closer(peaks)]
    figure, panels = canvas(1, len(limits), 4.2)
    for axes, limit in zip(panels, limits, strict=True):
        unit = shown_unit(STEPS["allocated_bytes"], limit)
        title = "" if len(limits) == 1 else ("All" if axes is panels[0] else "Closer")
        label(axes, x_label, f"Memory ({unit.name})", title)
        legend = _draw(axes, lines, unit.divisor)
        number_axis(axes, "x", [], log=False)
        number_axis(axes, "y", [], log=False)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.05 * limit / unit.divisor)
    return finish(figure, TITLE, legend, notes)


def _closer(peaks: list[float]) -> list[float]:
    """The peak up to which a second panel shows, where those above it are no more and over three times as high."""
    ordered = sorted(peaks)
    gaps = [low for low, high in pairwise(ordered) if 0 < CROWDED * low < high]
    return [low for low in gaps[-1:] if 2 * bisect_right(ordered, low) >= len(ordered)]


def _draw(axes: Axes, lines: list[_Line], divisor: float) -> list[tuple[Line2D, str]]:
    """Draw all lines in a panel; what the legend says of them."""
    legend = []
    for line in lines:
        artist = _allocated(axes, line, divisor)
        num_resizes = int(line.rows["num_resizes"].sum())
        legend.append((artist, f"{line.text}: {num_resizes:,} resize{'' if num_resizes == 1 else 's'}"))
        _resizes(axes, line, divisor)
    legend += _used(axes, lines, divisor)
    return [*legend, (_mark(INK, [], []), "resize, at the bytes held during it")]


def _over_tokens(rows: pd.DataFrame, column: str, divisor: float) -> tuple[np.ndarray, np.ndarray]:
    """A column over appended tokens, from the first token on."""
    x, y = thinned(rows["appended_tokens"].to_numpy(), rows[column].to_numpy() / divisor)
    return np.concatenate([[0], x]), np.concatenate([y[:1], y])


def _allocated(axes: Axes, line: _Line, divisor: float) -> Line2D:
    x, y = _over_tokens(line.rows.assign(held_bytes=_held(line.rows)), "held_bytes", divisor)
    every = max(1, len(x) // NUM_MARKERS)
    (artist,) = axes.plot(
        x,
        y,
        drawstyle="steps-pre",
        color=line.look.colour,
        marker=line.look.marker,
        markevery=(min(len(x) - 1, 1 + int(line.shift * every)), every),
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.8,
    )
    return artist


def _held(rows: pd.DataFrame) -> pd.Series:
    return rows["allocated_bytes"] + rows["workspace_bytes"]


def _mark(colour: str, x: object, y: object) -> Line2D:
    return Line2D(x, y, linestyle="", marker="o", markersize=7, markerfacecolor="none", markeredgecolor=colour)


def _resized(line: _Line) -> pd.DataFrame:
    return line.rows[line.rows["num_resizes"].to_numpy() > 0]


def _resizes(axes: Axes, line: _Line, divisor: float) -> None:
    """Mark the resizes, unless they are too many."""
    resized = _resized(line)
    if not 0 < len(resized) <= MAX_MARKS:
        return
    x = (resized["appended_tokens"] - resized["num_tokens"]).to_numpy()
    after = _held(resized).to_numpy() / divisor
    during = after + resized["transient_bytes"].to_numpy() / divisor
    axes.vlines(x, after, during, color=line.look.colour, linewidth=0.9)
    axes.add_line(_mark(line.look.colour, x, during))


def _used(axes: Axes, lines: list[_Line], divisor: float) -> list[tuple[Line2D, str]]:
    """Draw used bytes once for each group of strategies that use the same; of two, the larger in black."""
    groups: dict[bytes, list[_Line]] = {}
    for line in lines:
        groups.setdefault(line.rows[["appended_tokens", "used_bytes"]].to_numpy().tobytes(), []).append(line)
    common = max(groups.values(), key=len)
    legend = []
    for group in groups.values():
        x, y = _over_tokens(group[0].rows, "used_bytes", divisor)
        colour = INK if group is common and len(groups) <= FEW else group[0].look.colour
        (artist,) = axes.plot(x, y, drawstyle="steps-pre", color=colour, linestyle=DASHED, linewidth=1.3, zorder=3)
        text = "used" if len(groups) == 1 else f"used, {', '.join(line.text for line in group)}"
        legend.append((artist, text if len(text) <= MAX_TEXT else f"used, {group[0].text} and {len(group) - 1} more"))
    if len(groups) > FEW:
        return [(Line2D([], [], color=INK, linestyle=DASHED, linewidth=1.3), "used, in the strategy's colour")]
    return legend
