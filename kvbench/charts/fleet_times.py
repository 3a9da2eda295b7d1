"""How a fleet's TTFT, TPOT and latency are distributed over requests."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.chart import Chart
from kvbench.charts.latency import ecdf, mark_shares
from kvbench.charts.rows import Metric, ends
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import INK
from kvbench.charts.text import duration
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.schema import REQUESTS

PANELS = (
    ("ttft_s", "ttft_objective_s", "Time to first token"),
    ("tpot_s", "tpot_objective_s", "Time per output token"),
    ("latency_s", None, "Latency"),
)
OBJECTIVE = (0, (5, 2))
MOST_TICKS = 6
TIMES = (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "Latency"))
NONE = "No request completed."


@dataclass(frozen=True, kw_only=True)
class FleetTimesChart(Chart):
    """The share of completed requests that are no slower, a panel a time, a line a strategy; the objective marked.

    Args:
        summary: a row a strategy.
        requests: a row a request and strategy.
    """

    name: str = "fleet_times"
    heading: str = "Times of requests"
    summary: pd.DataFrame
    requests: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        summary, requests = self.summary, self.requests
        sheet = Sheet.of(summary, f"Times of completed requests: {summary['scenario'].iloc[0]}", self.subject)
        panels = sheet.panels(1, len(PANELS), 4.2)
        strategies = requests["strategy"].astype("category")
        done = (requests["outcome"] == "completed").to_numpy(dtype=bool)
        own = {name: requests[(strategies == name).to_numpy() & done] for name in sheet.names}
        drawn: dict[str, Line2D] = {}
        objectives: list[Line2D] = []
        for axes, (column, objective, title) in zip(panels, PANELS, strict=True):
            values = {name: rows[column].dropna().to_numpy(dtype=float) for name, rows in own.items()}
            wanted = summary[objective].dropna().unique() if objective else np.array([])
            lines, marks = _panel(axes, title, column, values, sheet, wanted)
            drawn |= lines
            objectives += marks
        for name in sheet.names:
            if name in drawn:
                sheet.entry(drawn[name], name)
            elif drawn:
                sheet.lacks("No request completed", name)
        sheet.legend += [(line, "objective") for line in objectives[:1]]
        return sheet.finish()

    def sentences(self) -> list[str]:
        """How long requests take, from the quickest strategy's to the slowest's: medians, or means of too few."""
        rows, found = self.summary, []
        for name, words in TIMES:
            middle = f"{name}_p50_s" if rows[f"{name}_p50_s"].notna().any() else f"{name}_mean_s"
            told = ends(rows[rows["num_completed"] > 0], Metric(words, middle, duration))
            what = "in the median" if middle.endswith("p50_s") else "on average"
            found += [f"{words} {what}: {told}."] if told else []
        return found or [NONE]


def _panel(
    axes: Axes, title: str, column: str, values: dict[str, np.ndarray], sheet: Sheet, objectives: np.ndarray
) -> tuple[dict[str, Line2D], list[Line2D]]:
    """Draw one time's distributions, and its objectives; the lines of both."""
    there = {name: own for name, own in values.items() if len(own)}
    unit = shown_unit(REQUESTS[column], [np.median(own) for own in there.values()])
    label(axes, REQUESTS[column].axis(unit.name), "Share of requests no slower", title)
    if not there:
        empty(axes, "no completed request has one")
        return {}, []
    lines = {name: ecdf(axes, own / unit.divisor, sheet.looks[name]) for name, own in there.items()}
    marks = [
        axes.axvline(objective / unit.divisor, color=INK, linestyle=OBJECTIVE, linewidth=1.2)
        for objective in objectives
    ]
    ends = [end / unit.divisor for own in there.values() for end in (own.min(), own.max())]
    number_axis(axes, "x", [*ends, *(objectives / unit.divisor)], most=MOST_TICKS)
    mark_shares(axes, [(line, sheet.short[name]) for name, line in lines.items() if sheet.is_rest(name)])
    return lines, marks
