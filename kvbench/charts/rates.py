"""The highest loads at which objectives hold: a table, and how many requests are within them as the load grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.frame import TextColumn, terminal_table
from kvbench.charts.limits import binding_limits
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK
from kvbench.charts.text import markdown_escape, number, one_line
from kvbench.results.columns import PERCENT, ends

HEADS = {"rate_per_s": ("rate", "requests/s"), "users": ("users", "")}
AXES = {"rate_per_s": "Load (requests/s)", "users": "Users who wait for their answers (number)"}
HUNDRED = 100.0


def rates_text(rows: pd.DataFrame, subject_to: Sequence[str], scenario: str, load: str) -> str:
    """The loads as a table for a terminal.

    Args:
        rows: as in `api.rating.Rated`.
        subject_to: what had to hold.
        scenario: what was served.
        load: the column of the load.
    """
    head, unit = HEADS[load]
    low, high = ends(load)
    per = rows[load] / rows["num_accelerators"]
    columns = [
        TextColumn("hardware", "", [one_line(each) for each in rows["hardware"]], False),
        TextColumn("strategy", "", [one_line(each) for each in rows["strategy"]], False),
        TextColumn("accelerators", "", [f"{each}" for each in rows["num_accelerators"]]),
        TextColumn(f"highest {head}", unit, [number(each) for each in rows[load]]),
        TextColumn(
            f"{PERCENT} % interval",
            unit,
            [f"{number(a)} to {number(b)}" for a, b in zip(rows[low], rows[high], strict=True)],
        ),
        TextColumn("an accelerator", unit, [number(each) for each in per]),
        TextColumn("limited by", "", [one_line(each) for each in rows["limited_by"]], False),
    ]
    said = f"{one_line(scenario)}: the highest {head} at which {' and '.join(subject_to)}"
    return f"{said}\n{terminal_table(columns, 2)}"


@dataclass(frozen=True, kw_only=True)
class RatesChart(Chart):
    """The share of requests within the objectives of goodput over the load, and where the highest load stands.

    Args:
        rows: as in `api.rating.Rated`.
        tried: likewise.
        load: the column of the load.
    """

    name: str = "rate"
    heading: str = "Load and objectives"
    rows: pd.DataFrame
    tried: pd.DataFrame
    load: str

    def figure(self) -> Figure:
        """Draw it."""
        several = self.rows["hardware"].nunique() > 1
        names = [_name(row, several) for row in self.rows.to_dict("records")]
        sheet = Sheet("Requests within the objectives, as the load grows", self.subject, names)
        (axes,) = sheet.panels(1, 1, 4.4)
        label(axes, AXES[self.load], "Requests within the objectives (%)", "Band: the interval; dot: the highest load")
        tried = self.tried.assign(name=[_name(row, several) for row in self.tried.to_dict("records")])
        shown = []
        for name, row in zip(names, self.rows.to_dict("records"), strict=True):
            own = tried[tried["name"] == name].sort_values(self.load)
            near = own[own[self.load].between(row[self.load] / 4, row[self.load] * 4)] if row[self.load] else own
            own = near if len(near) > 1 else own
            look, loads = sheet.looks[name], own[self.load].to_numpy(float)
            (line,) = axes.plot(
                loads, HUNDRED * own["attained_share"], color=look.colour, linestyle=look.line, linewidth=1.4
            )
            low, high = (own[end].to_numpy(float) for end in ends("attained_share"))
            if np.isfinite(low).all():
                axes.fill_between(loads, HUNDRED * low, HUNDRED * high, color=look.colour, alpha=0.12, linewidth=0)
            if row[self.load]:
                at = float(np.interp(row[self.load], loads, HUNDRED * own["attained_share"]))
                axes.plot(
                    [row[self.load]], [at], marker=look.marker, color=look.colour, markersize=7, markeredgecolor=INK
                )
            shown += loads.tolist()
            sheet.entry(line, name)
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
            low, high = (number(row[end]) for end in ends(self.load))
            waits = f"; bound by {bound}" if bound else ""
            name = markdown_escape(_name(row, several))
            said.append(f"{name}: {number(row[self.load])} {unit or head} ({low} to {high}){waits}.")
        return said


def _name(row: Mapping[Any, Any], several: bool) -> str:
    return f"{row['strategy']}, {row['hardware']}" if several else str(row["strategy"])
