"""Conversations by turn: how long the first token takes, and how much of a prompt is found in the cache."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import Look
from kvbench.charts.text import duration, markdown_escape, percent, shown_unit
from kvbench.results.schema import REQUESTS
from kvbench.results.series import ByTurn, by_turn

LEAST_REQUESTS = 10
"""Of a turn, to be shown: the slowest tenth is then at least one."""
NUM_MARKERS = 8
HUNDRED = 100.0
TTFT = REQUESTS["ttft_s"]
TOO_FEW = f"no turn has {LEAST_REQUESTS} requests with a first token"


@dataclass(frozen=True, kw_only=True)
class TurnsChart(Chart):
    """Time to the first token, and the share of prompts' tokens that was reused, over a conversation's turns.

    A line is the median of all requests of that turn, a thin one the 90th percentile. Turns that fewer than 10 requests
    have reached are left out; without a prefix cache there is no share.

    Args:
        summary: a row a strategy.
        requests: a row a request and strategy.
    """

    name: str = "turns"
    heading: str = "Turns of conversations"
    summary: pd.DataFrame
    requests: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        sheet = Sheet.of(self.summary, f"Turn by turn: {self.summary['scenario'].iloc[0]}", self.subject)
        found = {name: own for name, own in by_turn(self.requests, LEAST_REQUESTS).items() if own.turns.size}
        has_shares = any(np.isfinite(own.hit_share).any() for own in found.values())
        times, *rest = sheet.panels(1, 1 + has_shares, 4.2)
        unit = shown_unit(TTFT, [slow for own in found.values() for slow in own.slow_s])
        label(times, "Turn (number)", TTFT.axis(unit.name), "Median; thin: 90th percentile")
        drawn: dict[str, Line2D] = {}
        for turn, name in enumerate(sheet.names):
            if name not in found:
                sheet.lacks(f"Not shown: {TOO_FEW}", name)
                continue
            own, look, shift = found[name], sheet.looks[name], turn / len(sheet.names)
            drawn[name] = _line(times, own.turns, own.middle_s / unit.divisor, look, shift)
            times.plot(own.turns, own.slow_s / unit.divisor, color=look.colour, linestyle=look.line, linewidth=0.7)
            for axes in rest:
                _line(axes, own.turns, HUNDRED * own.hit_share, look, shift)
            sheet.entry(drawn[name], name)
        for axes in rest:
            label(axes, "Turn (number)", "Reused prompt tokens (%)", "Found in the cache")
            from_zero(axes, HUNDRED)
        for axes in (times, *rest):
            number_axis(axes, "x", [], log=False, whole=True)
        number_axis(times, "y", [value / unit.divisor for own in found.values() for value in own.slow_s])
        if not found:
            empty(times, TOO_FEW)
        name_ends(times, [(line, sheet.short[name]) for name, line in drawn.items() if sheet.is_rest(name)])
        return sheet.finish()

    def sentences(self) -> list[str]:
        """How the first and the last turn shown differ, a strategy a sentence."""
        said = []
        for name, own in by_turn(self.requests, LEAST_REQUESTS).items():
            if own.turns.size > 1:
                said.append(
                    f"{markdown_escape(name)}: the first token of turn {own.turns[0]} takes {duration(own.middle_s[0])}"
                    f" in the median, of turn {own.turns[-1]} {duration(own.middle_s[-1])}{_reused(own)}."
                )
        return said or [f"Nothing by turn: {TOO_FEW}."]


def _reused(own: ByTurn) -> str:
    share = own.hit_share[-1]
    return f", with {percent(share)} of its prompts found in the cache" if np.isfinite(share) else ""


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, look: Look, shift: float) -> Line2D:
    every = max(1, len(x) // NUM_MARKERS)
    style = look.of_line()
    (line,) = axes.plot(x, y, **style, markevery=(int(shift * every), every), markersize=6, linewidth=1.4)
    return line
