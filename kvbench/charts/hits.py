"""What prompts find in the cache over time, tier upon tier, and how many loads are on a tier's link."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import COLOURS, EDGE, LINES, Look, MemoryShare, state_patch
from kvbench.charts.text import Unit, finite_max, listed, markdown_escape, percent, span_unit
from kvbench.results.hits import Hits, hits_of
from kvbench.results.schema import TIMELINE

MAX_STRETCHES = 120
MOST_ROWS = 4
"""Strategies of which each has a row of panels."""
ROW_IN, ALONE_IN = 2.1, 3.6
NAME_LENGTH = 24
HUNDRED = 100.0
SMALL_SHARE, HEADROOM = 50.0, 0.1
"""Up to which, in %, the axis ends just above the largest share, alike for all strategies; else at 100."""
TIERS = {
    "device": MemoryShare("on the device", "", "", "#3C4A57", "", "#FFFFFF"),
    "host": MemoryShare("loaded from the host", "", "", COLOURS[5], "", "#222222"),
    "disk": MemoryShare("loaded from the disk", "", "", COLOURS[4], "///", "#222222"),
    "remote": MemoryShare("loaded from a remote store", "", "", COLOURS[3], "...", "#222222"),
}
"""How what is found in a tier looks."""


@dataclass(frozen=True, kw_only=True)
class HitsChart(Chart):
    """The share of prompts' tokens that are found, of those looked for as requests are admitted, tier upon tier.

    Beside it, where there are tiers below the device, loads that wait for a link or are on their way: means. Where
    nobody is admitted there is a gap. Of many strategies the first four are shown.

    Args:
        summary: a row a strategy.
        timeline: a row a stretch of time and strategy.
    """

    name: str = "fleet_hits"
    heading: str = "What is found in the cache"
    summary: pd.DataFrame
    timeline: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        title = f"Prompt tokens found in the cache over time: {self.summary['scenario'].iloc[0]}"
        sheet = Sheet.of(self.summary, title, self.subject, NAME_LENGTH)
        found = hits_of(self.timeline, self.summary, MAX_STRETCHES)
        names = [name for name in sheet.names if name in found]
        rows = names[:MOST_ROWS]
        columns = 1 + any(found[name].loads for name in rows)
        panels = sheet.panels(len(rows), columns, ALONE_IN if len(rows) == 1 else ROW_IN * len(rows))
        span = span_unit(max(found[name].edges_s[-1] for name in rows))
        most = HUNDRED * max(finite_max(np.nan_to_num(sum(found[name].shares.values()))) for name in rows)
        top = HUNDRED if most > SMALL_SHARE else (1 + HEADROOM) * most or HUNDRED
        legend: dict[str, Artist] = {}
        for row, name in enumerate(rows):
            own, (shares, *queue) = found[name], panels[columns * row : columns * (row + 1)]
            x = TIMELINE["time_s"].axis(span.name) if row == len(rows) - 1 else ""
            label(
                shares, x, "Of those looked for (%)", f"{sheet.short[name]}: {percent(sum(own.whole.values()))} found"
            )
            legend |= _areas(shares, own, span)
            shares.set_ylim(0, top)
            for axes in queue:
                label(axes, x, "Loads (mean)", f"{sheet.short[name]}: on the links")
                _queues(axes, own, span)
        sheet.legend = [(legend[tier.text], tier.text) for tier in TIERS.values() if tier.text in legend]
        if any(np.isnan(share).any() for name in rows for share in found[name].shares.values()):
            sheet.notes.append("Where nothing is drawn, nobody was admitted, or nothing was found.")
        for name in sheet.names:
            if name not in rows:
                sheet.lacks(f"Not shown beside {MOST_ROWS} others" if name in found else "Looks for nothing", name)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """What is found of the whole run, a strategy a sentence."""
        said = []
        for name, own in hits_of(self.timeline, self.summary, MAX_STRETCHES).items():
            parts = [f"{percent(share)} {TIERS[tier].text}" for tier, share in own.whole.items()]
            one, (first, *_) = len(parts) == 1, own.whole
            whole = percent(sum(own.whole.values()))
            where = f", {TIERS[first].text}" if one else f": {listed(parts)}"
            said.append(f"{markdown_escape(name)} finds {whole} of the prompt tokens that it looks for{where}.")
        return said


def _areas(axes: Axes, own: Hits, span: Unit) -> dict[str, Artist]:
    """Draw the tiers, the nearest below; each one's mark for the legend."""
    x = own.edges_s / span.divisor
    below = np.zeros(x.size)
    legend: dict[str, Artist] = {}
    for tier, share in own.shares.items():
        above, look = below + HUNDRED * np.append(share, share[-1:]), TIERS[tier]
        axes.fill_between(x, below, above, step="post", facecolor=look.colour, hatch=look.hatch, edgecolor=EDGE, lw=0)
        below, legend[look.text] = above, state_patch(look)
    number_axis(axes, "x", [], log=False)
    number_axis(axes, "y", [], log=False)
    axes.set_xlim(0, x[-1])
    return legend


def _queues(axes: Axes, own: Hits, span: Unit) -> None:
    if not own.loads:
        empty(axes, "there are no tiers below the device")
        return
    x = own.edges_s / span.divisor
    for number_of, (tier, loads) in enumerate(own.loads.items()):
        style = Look(TIERS[tier].colour, "", LINES[number_of], "").of_line()
        axes.plot(x, np.append(loads, loads[-1:]), drawstyle="steps-post", linewidth=1.4, **style)
    number_axis(axes, "x", [], log=False)
    number_axis(axes, "y", [], log=False)
    axes.set_xlim(0, x[-1])
    from_zero(axes, finite_max(list(own.loads.values())))
