"""What service a fleet gives, and how its memory is shared out, as bars: a bar a strategy."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.chart import Chart
from kvbench.charts.panels import BAR_IN, Panel, bars
from kvbench.charts.rows import THROUGHPUT, Metric, ends, failures, most_of, named
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import EDGE, SMALL, STATES, Settings, state_patch
from kvbench.charts.text import number, percent
from kvbench.charts.units import number_axis, shown_unit, value_ticks
from kvbench.results.front import is_reference
from kvbench.results.schema import SUMMARY

PANELS = (
    Panel("Throughput: tokens of completed requests", "tokens_per_s"),
    Panel("Goodput (mark: completed)", "goodput_per_s", "requests_per_s"),
    Panel("Mean batch", "mean_batch"),
)
LEAST_TEXT = 0.07
WHOLE = 100
NONE = "No request completed."
REFERENCES = "Only strategies that are there for reference were run: none serves best."


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
        for axes, panel in zip(panels, PANELS, strict=False):
            bars(axes, summary, panel, sheet)
        if _shares(panels[-1], summary, sheet.short):
            sheet.legend = [(state_patch(state), state.text) for state in STATES]
        for axes in panels[1::2]:
            axes.tick_params(labelleft=False)
        if failures(summary):
            sheet.notes.append("A cross marks a strategy some of whose requests did not complete.")
        objectives = _objectives(summary)
        if objectives:
            sheet.notes.append(f"Goodput counts completed requests with {objectives}.")
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Who gives the most goodput and throughput, and how many requests run together."""
        rows = self.summary
        if not rows["num_completed"].gt(0).any():
            return [NONE]
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


BATCH = Metric("mean batch", "mean_batch", number, False)


def _objectives(summary: pd.DataFrame) -> str:
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
        for row in rows[share >= LEAST_TEXT]:
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
