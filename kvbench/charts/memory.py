"""Memory over tokens: what each strategy allocates, what holds tokens, and where it resizes."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.rows import Metric, completed, ends, plural
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import INK, Look
from kvbench.charts.text import duration, listed, markdown_escape, mib, shown_unit
from kvbench.results.schema import STEPS
from kvbench.results.series import last_repetitions, thinned

MAX_MARKS = 100
NUM_MARKERS = 7
MAX_TEXT = 60
CROWDED = 3.0
FEW = 2
PEAK = Metric("peak memory", "peak_bytes", mib)


class _Line(NamedTuple):
    """One strategy's line: its name as shown, its look, its rows, and how far its markers are shifted (0 to 1)."""

    name: str
    text: str
    look: Look
    rows: pd.DataFrame
    shift: float

    @property
    def resized(self) -> pd.DataFrame:
        """The steps that resized."""
        return self.rows[self.rows["num_resizes"].to_numpy() > 0]


@dataclass(frozen=True, kw_only=True)
class MemoryChart(Chart):
    """Device bytes held (slots and staging buffers; a look a strategy) and used (thin) over the tokens appended.

    Shown is each strategy's last repetition that is no warm-up. An append needs its bytes before it writes, so that a
    step's bytes stand over the tokens it appended. Used bytes are drawn once for all strategies that use the same
    (where requests arrive by the clock, each uses its own).
    A mark stands at each resize, at the bytes held while it ran (old and new buffer); none where they exceed 100.
    Where at most half of the strategies hold over three times what the others do, a second panel shows the others.

    Args:
        summary: a row a strategy.
        steps: rows of all strategies and repetitions.
    """

    name: str = "memory"
    heading: str = "Memory over tokens"
    summary: pd.DataFrame
    steps: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        scenario = self.summary["scenario"].iloc[0]
        sheet = Sheet.of(self.summary, f"KV-cache memory over tokens, last repetition: {scenario}", self.subject)
        lines = self._lines(sheet)
        many = any(line.rows["session"].nunique() > 1 for line in lines)
        x_label = "Appended, all requests (tokens)" if many else "Appended (tokens)"
        if not lines:
            (axes,) = sheet.panels(1, 1, 4.2)
            label(axes, x_label, "Memory (MiB)")
            empty(axes, "no strategy appended a token")
            return sheet.finish()
        peaks = [float((_held(line.rows) + line.rows["transient_bytes"]).max()) for line in lines]
        limits = [max(peaks), *_closer(peaks)]
        panels = sheet.panels(1, len(limits), 4.2)
        for axes, limit in zip(panels, limits, strict=True):
            unit = shown_unit(STEPS["allocated_bytes"], limit)
            title = "" if len(limits) == 1 else ("All" if axes is panels[0] else "Closer")
            label(axes, x_label, f"Memory ({unit.name})", title)
            number_axis(axes, "x", [], log=False)
            number_axis(axes, "y", [], log=False)
            axes.set_ylim(0, 1.05 * limit / unit.divisor)
            drawn = [(_allocated(axes, line, unit.divisor), line) for line in lines]
            for line in lines:
                _resizes(axes, line, unit.divisor)
            used = _used(axes, lines, unit.divisor)
            axes.set_xlim(left=0)
            own = [peak <= limits[-1] if axes is panels[-1] else peak > limits[-1] for peak in peaks]
            rest = [pair for pair, is_own in zip(drawn, own, strict=True) if is_own and sheet.is_rest(pair[1].name)]
            name_ends(axes, [(artist, line.text) for artist, line in rest])
        for artist, line in drawn:
            sheet.entry(artist, line.name, f"{line.text}: {plural(int(line.rows['num_resizes'].sum()), 'resize')}")
        sheet.legend += [*used, (_mark(INK, [], []), "resize, at the bytes held during it")]
        return sheet.finish()

    def _lines(self, sheet: Sheet) -> list[_Line]:
        """The grey ones first, so that none covers one in colour."""
        shown = last_repetitions(self.steps, sheet.names)
        lines = []
        for turn, name in enumerate(sheet.names):
            if name not in shown:
                sheet.lacks("Appended nothing", name)
                continue
            lines.append(_Line(name, sheet.short[name], sheet.looks[name], shown[name], turn / len(sheet.names)))
            if len(lines[-1].resized) > MAX_MARKS:
                sheet.lacks("Resizes are too many to mark", name)
        return sorted(lines, key=lambda line: not sheet.is_rest(line.name))

    def sentences(self) -> list[str]:
        """The range of peaks, what is held beside slots, and what resizes cost."""
        done = completed(self.summary)
        found = [f"Peaks run {peaks}." if (peaks := ends(done, PEAK)).startswith("from") else f"The peak is {peaks}."]
        found = found if len(done) else ["No strategy completed."]
        found += [f"{markdown_escape(row['strategy'])} holds {listed(held)}." for row, held in _beside(done)]
        paid = done[done["num_resizes"] > 0]
        if len(paid):
            row = paid.iloc[int(paid["allocation_s"].fillna(0).to_numpy().argmax())]
            time = f" ({duration(row['stall_s'])} stalled)" if np.isfinite(row["stall_s"]) else ""
            who = markdown_escape(row["strategy"])
            found.append(f"{who} pays most for growing: {plural(row['num_resizes'], 'resize')}{time}.")
        for _, row in self.summary.drop(done.index).iterrows():
            until = f"it peaked at {mib(row['peak_bytes'])}"
            found.append(f"{markdown_escape(row['strategy'])} did not complete; {until}.")
        return found


def _beside(rows: pd.DataFrame) -> Iterator[tuple[pd.Series, list[str]]]:
    """What strategies hold for reading, and on other tiers."""
    for _, row in rows.iterrows():
        held = [
            (row["workspace_bytes"], "of staging buffers, in its peak"),
            (row["peak_host_bytes"], "in the host's memory beside it"),
            (row["peak_disk_bytes"], "in files"),
        ]
        parts = [f"{mib(num_bytes)} {where}" for num_bytes, where in held if num_bytes > 0]
        if parts:
            yield row, parts


def _closer(peaks: list[float]) -> list[float]:
    """The peak up to which a second panel shows, where those above it are no more and over three times as high."""
    ordered = sorted(peaks)
    gaps = [low for low, high in pairwise(ordered) if 0 < CROWDED * low < high]
    return [low for low in gaps[-1:] if 2 * bisect_right(ordered, low) >= len(ordered)]


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
        **line.look.of_line(),
        markevery=(min(len(x) - 1, 1 + int(line.shift * every)), every),
        markersize=7,
        linewidth=1.8,
    )
    return artist


def _held(rows: pd.DataFrame) -> pd.Series:
    return rows["allocated_bytes"] + rows["workspace_bytes"]


def _mark(colour: str, x: ArrayLike, y: ArrayLike) -> Line2D:
    return Line2D(x, y, linestyle="", marker="o", markersize=7, markerfacecolor="none", markeredgecolor=colour)


def _resizes(axes: Axes, line: _Line, divisor: float) -> None:
    """Mark the resizes, unless they are too many."""
    resized = line.resized
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
        (artist,) = axes.plot(x, y, drawstyle="steps-pre", color=colour, linewidth=0.9, zorder=3)
        text = "used" if len(groups) == 1 else f"used, {', '.join(line.text for line in group)}"
        legend.append((artist, text if len(text) <= MAX_TEXT else f"used, {group[0].text} and {len(group) - 1} more"))
    if len(groups) > FEW:
        return [(Line2D([], [], color=INK, linewidth=0.9), "used (thin), in the strategy's colour")]
    return legend
