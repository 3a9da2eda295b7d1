"""The highest loads at which objectives hold: a table, and how many requests are within them as the load grows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.fleet_service import objectives_of
from kvbench.charts.frame import TextColumn, terminal_table
from kvbench.charts.limits import binding_limits
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK
from kvbench.charts.text import lacking, markdown_escape, number, one_line
from kvbench.results.columns import PERCENT, ends
from kvbench.results.conditions import UNTOLD
from kvbench.results.front import MOST_COLOURED

HEADS = {"rate_per_s": ("rate", "requests/s"), "users": ("users", "")}
AXES = {"rate_per_s": "Load (requests/s)", "users": "Users who wait for their answers (number)"}
HUNDRED = 100.0


def rates_text(
    rows: pd.DataFrame,
    subject_to: Sequence[str],
    scenario: str,
    load: str,
    untold: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The loads as a table for a terminal.

    Args:
        rows: as in `api.rating.Rated`.
        subject_to: what had to hold.
        scenario: what was served.
        load: the column of the load.
        untold: strategies that lack a figure, by why.
    """
    head, unit = HEADS[load]
    low, high = ends(load)
    per = rows[load] / rows["num_accelerators"]
    columns = [
        TextColumn("hardware", "", [one_line(each) for each in rows["hardware"]], False),
        TextColumn("strategy", "", [one_line(each) for each in rows["strategy"]], False),
        TextColumn("accelerators", "", [f"{each}" for each in rows["num_accelerators"]]),
        TextColumn(f"highest {head}", unit, [_told(each) for each in rows[load]]),
        TextColumn(f"{PERCENT} % interval", unit, [_around(*each) for each in zip(rows[low], rows[high], strict=True)]),
        TextColumn("an accelerator", unit, [number(each) for each in per]),
        TextColumn("limited by", "", [one_line(each) for each in rows["limited_by"]], False),
    ]
    said = f"{one_line(scenario)}: the highest {head} at which {' and '.join(subject_to)}"
    return "\n".join([said, terminal_table(columns, 2), *([""] if untold else []), *lacking(untold or {})])


def _told(value: float) -> str:
    return UNTOLD if math.isnan(value) else number(value)


def _around(low: float, high: float) -> str:
    return UNTOLD if math.isnan(high) else f"{number(low)} to {number(high)}"


@dataclass(frozen=True, kw_only=True)
class RatesChart(Chart):
    """The share of requests within the objectives of goodput over the load, and where the highest load stands.

    Args:
        rows: as in `api.rating.Rated`.
        tried: likewise.
        load: the column of the load.
        limits: what had to hold, in words.
    """

    name: str = "rate"
    heading: str = "Load and objectives"
    rows: pd.DataFrame
    tried: pd.DataFrame
    load: str
    limits: str

    def figure(self) -> Figure:
        """Draw it."""
        several = self.rows["hardware"].nunique() > 1
        names = [_name(row, several) for row in self.rows.to_dict("records")]
        best = self.rows[self.load].fillna(0).sort_values(ascending=False, kind="stable").index[:MOST_COLOURED]
        title, coloured = "Requests within the objectives, as the load grows", [names[at] for at in best]
        sheet = Sheet(title, self.subject, names, coloured=coloured)
        sheet.rest = "others"
        (axes,) = sheet.panels(1, 1, 4.4)
        label(axes, AXES[self.load], "Requests within the objectives (%)", "Band: the interval; mark: the highest load")
        tried = self.tried.assign(name=[_name(row, several) for row in self.tried.to_dict("records")])
        shown, load = [], self.rows[self.load]
        held = load[load > 0]
        around = held.min() / 4, held.max() * 4  # of who holds at no load, what is near the others
        for name, row in zip(names, self.rows.to_dict("records"), strict=True):
            own = tried[tried["name"] == name].sort_values(self.load)
            span = (row[self.load] / 4, row[self.load] * 4) if row[self.load] > 0 else around
            near = own[own[self.load].between(*span)]
            own = near if len(near) > 1 else own
            look, loads = sheet.looks[name], own[self.load].to_numpy(float)
            (line,) = axes.plot(
                loads, HUNDRED * own["attained_share"], color=look.colour, linestyle=look.line, linewidth=1.4
            )
            low, high = (own[end].to_numpy(float) for end in ends("attained_share"))
            if np.isfinite(low).all():
                axes.fill_between(loads, HUNDRED * low, HUNDRED * high, color=look.colour, alpha=0.12, linewidth=0)
            if row[self.load] > 0:
                at = float(np.interp(row[self.load], loads, HUNDRED * own["attained_share"]))
                axes.plot(
                    [row[self.load]], [at], marker=look.marker, color=look.colour, markersize=7, markeredgecolor=INK
                )
            shown += loads.tolist()
            sheet.entry(line, name)
        objectives = objectives_of(tried)
        within = [f"Objectives: {objectives}."] if objectives else []
        sheet.notes += [*within, f"Marked is the highest load at which {one_line(self.limits)}."]
        number_axis(axes, "x", shown)
        from_zero(axes, HUNDRED)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """The highest load of each, and what waited there."""
        several = self.rows["hardware"].nunique() > 1
        head, unit = HEADS[self.load]
        said = []
        for row in self.rows.to_dict("records"):
            near = self.tried[(self.tried["strategy"] == row["strategy"]) & (self.tried["hardware"] == row["hardware"])]
            at = near[near[self.load] == row[self.load]]
            bound = "".join(binding_limits(at)[:1]) if len(at) else ""
            low, high = (row[end] for end in ends(self.load))
            waits = f"; bound by {bound}" if bound else ""
            found = UNTOLD if math.isnan(row[self.load]) else f"{number(row[self.load])} {unit or head}"
            around = "" if math.isnan(high) else f" ({number(low)} to {number(high)} {unit or head})"
            said.append(f"{markdown_escape(_name(row, several))}: {found}{around}{waits}.")
        return said


def _name(row: Mapping[Any, Any], several: bool) -> str:
    return f"{row['strategy']}, {row['hardware']}" if several else str(row["strategy"])
