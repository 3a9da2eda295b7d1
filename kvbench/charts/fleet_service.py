"""What service a fleet gives, and how its memory is shared out, as bars; and how long its requests take."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import number_axis, value_ticks
from kvbench.charts.chart import Chart
from kvbench.charts.latency import ecdf, mark_shares
from kvbench.charts.panels import BAR_IN, Panel, bars
from kvbench.charts.rows import THROUGHPUT, Metric, ends, failures, most_of, named
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import EDGE, INK, SMALL, STATES, Settings, state_patch
from kvbench.charts.text import duration, number, percent, shown_unit
from kvbench.results.front import is_reference
from kvbench.results.schema import REQUESTS, SUMMARY

SERVICE_PANELS = (
    Panel("Throughput: tokens of completed requests", "tokens_per_s"),
    Panel("Goodput (mark: completed)", "goodput_per_s", "requests_per_s"),
    Panel("Mean batch", "mean_batch"),
)
BATCH = Metric("mean batch", "mean_batch", number, False)
LEAST_WRITTEN = 0.07
WHOLE = 100
NONE_COMPLETED = "No request completed."
REFERENCES = "Only strategies that are there for reference were run: none serves best."

TIME_PANELS = (
    ("ttft_s", "ttft_objective_s", "Time to first token"),
    ("tpot_s", "tpot_objective_s", "Time per output token"),
    ("latency_s", None, "Latency"),
)
TIMES = (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "Latency"))
OBJECTIVE = (0, (5, 2))
FAR = 3.0
"""An objective over the slowest request's time, from which it would press the lines together."""
MOST_TICKS = 6


@dataclass(frozen=True, kw_only=True)
class FleetServiceChart(Chart):
    """Throughput, goodput, batch, and the shares of memory, averaged over time.

    A strategy with requests that did not complete has a cross at its foot.

    Args:
        summary: a row a strategy.
    """

    name: str = "fleet_service"
    heading: str = "Service"
    summary: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        summary = self.summary
        title = f"What service each strategy gives: {summary['scenario'].iloc[0]}"
        sheet = Sheet.of(summary, title, self.subject)
        panels = sheet.panels(2, 2, 2 * max(1.7, 0.9 + BAR_IN * len(sheet.names)))
        for axes, panel in zip(panels, SERVICE_PANELS, strict=False):
            bars(axes, summary, panel, sheet)
        if _shares(panels[-1], summary, sheet.short):
            sheet.legend = [(state_patch(state), state.text) for state in STATES]
        for axes in panels[1::2]:
            axes.tick_params(labelleft=False)
        if failures(summary):
            sheet.notes.append("A cross marks a strategy some of whose requests did not complete.")
        objectives = objectives_of(summary)
        if objectives:
            sheet.notes.append(f"Goodput counts completed requests with {objectives}.")
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Who gives the most goodput and throughput, and how many requests run together."""
        rows = self.summary
        if not rows["num_completed"].gt(0).any():
            return [NONE_COMPLETED]
        if is_reference(rows).all():
            return [REFERENCES]
        goodput = most_of(rows, "goodput_per_s")
        found = ["No strategy serves a request within the objectives."]
        if len(goodput):
            share = percent(goodput["attained_share"].max())
            most = number(goodput["goodput_per_s"].max())
            within = f"{share} of all requests are within the objectives"
            found = [f"Most goodput: {named(goodput)}, {most} requests/s; {within}."]
        found.append(f"Throughput runs {ends(rows, THROUGHPUT)}; mean batches {ends(rows, BATCH)}.")
        return found


def objectives_of(summary: pd.DataFrame) -> str:
    """The service objective, in words."""
    parts = []
    for column, text in (("ttft_objective_s", "TTFT"), ("tpot_objective_s", "TPOT")):
        values = summary[column].dropna().unique()
        if len(values) == 1:
            time = shown_unit(SUMMARY[column], values)
            parts.append(f"{text} of at most {values[0] / time.divisor:g} {time.name}")
    return " and ".join(parts)


def _shares(axes: Axes, summary: pd.DataFrame, short: dict[str, str]) -> bool:
    """Stack the states of memory, as shares of what is allocated or unusable; whether there was anything to draw."""
    label(axes, "Share of memory held or unusable (%)", "", "Where memory goes, averaged over time")
    external = summary["external_share"].to_numpy(dtype=float)
    parts = [summary[state.share].to_numpy(dtype=float) * (1 - external) for state in STATES[:-1]]
    shares = np.array([*parts, external])
    rows = np.arange(len(summary))
    axes.set_yticks(rows, [short[name] for name in summary["strategy"].astype(str)])
    if not np.isfinite(shares).all(axis=0).any():
        empty(axes, "used, reserved and wasted memory were not told apart")
        return False
    left = np.zeros(len(summary))
    for state, share in zip(STATES, np.nan_to_num(shares), strict=True):
        look: Settings = {"color": state.colour, "hatch": state.hatch, "edgecolor": EDGE, "linewidth": 0.5}
        axes.barh(rows, WHOLE * share, 0.7, WHOLE * left, **look)
        for row in rows[share >= LEAST_WRITTEN]:
            middle = WHOLE * (left[row] + share[row] / 2)
            where: Settings = {"ha": "center", "va": "center", "fontsize": SMALL, "color": state.ink}
            text = axes.text(middle, row, f"{WHOLE * share[row]:.0f}", **where)
            if state.hatch:
                text.set_bbox({"facecolor": state.colour, "edgecolor": "none", "pad": 1.0})
        left += share
    axes.set_ylim(len(summary) - 0.4, -0.6)
    axes.grid(False, axis="y")
    number_axis(axes, "x", [], log=False)
    value_ticks(axes, "x", (0, 25, 50, 75, 100))
    axes.set_xlim(0, WHOLE)
    return True


@dataclass(frozen=True, kw_only=True)
class FleetTimesChart(Chart):
    """The share of completed requests that are no slower, a panel a time, a line a strategy; the objective marked.

    An objective of over three times what any request took is told in a note.

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
        panels = sheet.panels(1, len(TIME_PANELS), 4.2)
        strategies = requests["strategy"].astype("category")
        done = (requests["outcome"] == "completed").to_numpy(dtype=bool)
        own = {name: requests[(strategies == name).to_numpy() & done] for name in sheet.names}
        drawn: dict[str, Line2D] = {}
        objectives: list[Line2D] = []
        for axes, (column, objective, title) in zip(panels, TIME_PANELS, strict=True):
            values = {name: rows[column].dropna().to_numpy(dtype=float) for name, rows in own.items()}
            wanted = summary[objective].dropna().unique() if objective else np.array([])
            lines, marks = _distributions(axes, title, column, values, sheet, wanted)
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
        return found or [NONE_COMPLETED]


def _distributions(
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
    ends = np.array([end for own in there.values() for end in (own.min(), own.max())])
    shown = objectives[objectives <= FAR * ends.max()]
    marks = [axes.axvline(each / unit.divisor, color=INK, linestyle=OBJECTIVE, linewidth=1.2) for each in shown]
    far = [duration(each) for each in objectives if each not in shown]
    if far:
        sheet.notes.append(f"Objective of {REQUESTS[column].label}: {' or '.join(far)}, above what is shown.")
    number_axis(axes, "x", np.append(ends, shown) / unit.divisor, most=MOST_TICKS)
    mark_shares(axes, [(line, sheet.short[name]) for name, line in lines.items() if sheet.is_rest(name)])
    return lines, marks
