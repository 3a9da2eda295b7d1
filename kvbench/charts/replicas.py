"""A map of a fleet's replicas over time: how loaded each is, how full its memory, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import FONT, SMALL
from kvbench.charts.text import Unit, finite_max, markdown_escape, number, percent, span_unit
from kvbench.results.replicas import ReplicaFigures, figures_of_replicas
from kvbench.results.schema import REPLICAS, TIMELINE

MAP = colormaps["cividis"]
NOTHING = "#DDDDDD"
MOST_ROWS = 4
"""Strategies of which each has a row of maps."""
ROW_IN = 1.9
NAME_LENGTH = 24
HUNDRED = 100.0


class MapColumn(NamedTuple):
    """What a column of maps shows: which figure, what is said above it, its unit, and its most where that is fixed; and
    why there may be no map."""

    figure: str
    title: str
    unit: str
    scale: float = 1.0
    most: float | None = None
    lacking: str = "not known"


MAP_COLUMNS = (
    MapColumn("load", "Requests live and waiting", "requests"),
    MapColumn("held", "Memory that requests hold", "% of available", HUNDRED),
    MapColumn("found", "Prompt tokens found", "% of those looked for", HUNDRED, HUNDRED, "nothing is looked for"),
)


@dataclass(frozen=True, kw_only=True)
class ReplicasChart(Chart):
    """Replicas over time: a row of maps a strategy, a replica a line of each; all maps of a column on one scale.

    Grey is where nothing was looked for, as nobody was admitted. Of many strategies the first four are shown.

    Args:
        summary: a row a strategy.
        replicas: a row a stretch of time, replica and strategy.
    """

    name: str = "fleet_replicas"
    heading: str = "Replicas"
    summary: pd.DataFrame
    replicas: pd.DataFrame

    def figure(self) -> Figure:
        """Draw it."""
        title = f"Replicas over time: {self.summary['scenario'].iloc[0]}"
        sheet = Sheet.of(self.summary, title, self.subject, NAME_LENGTH)
        found = figures_of_replicas(self.replicas, self.summary)
        names = [name for name in sheet.names if name in found]
        columns = [shown for shown in MAP_COLUMNS if any(np.isfinite(found[n].of(shown.figure)).any() for n in names)]
        rows = names[:MOST_ROWS]
        panels = sheet.panels(len(rows), len(columns), ROW_IN * len(rows) + 0.6)
        span = span_unit(max(found[name].edges_s[-1] for name in rows))
        for column, shown in enumerate(columns):
            of_rows = max(finite_max(found[name].of(shown.figure)) for name in rows)
            most = shown.most or of_rows * shown.scale or 1.0
            own_panels = panels[column :: len(columns)]
            for axes, name in zip(own_panels, rows, strict=True):
                is_last = axes is own_panels[-1]
                label(axes, TIMELINE["time_s"].axis(span.name) if is_last else "", "", shown.title)
                if column == 0:
                    axes.set_ylabel(f"{sheet.short[name]}\n{REPLICAS['replica'].axis()} (number)", fontsize=FONT)
                _map(axes, found[name], shown, most, span)
            _bar(own_panels, shown, most)
        if any(np.isnan(own).any() and np.isfinite(own).any() for own in (found[name].found for name in rows)):
            sheet.notes.append("Grey: nobody was admitted, and nothing looked for.")
        for name in sheet.names:
            if name not in rows:
                sheet.lacks(f"Not shown beside {MOST_ROWS} others" if name in found else "Nothing was kept", name)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """How unlike replicas are, a strategy a sentence."""
        found = figures_of_replicas(self.replicas, self.summary)
        return [f"{markdown_escape(name)}: {_unlike(own)}." for name, own in found.items()]


def _unlike(own: ReplicaFigures) -> str:
    """The least and the most of replicas' means."""
    load = own.load.mean(axis=1)
    told = f"of {len(load)} replicas each has {_ends(load, number)} requests live and waiting on average"
    if np.isfinite(own.held).any():
        told += f", and what they hold is {_ends(np.nanmean(own.held, axis=1), percent)} of its memory"
    if np.isfinite(own.found_shares).any():
        told += f"; of prompts' tokens {_ends(own.found_shares, percent)} are found on one, or below it"
    return told


def _ends(values: np.ndarray, text: Callable[[float], str]) -> str:
    least, most = text(float(np.nanmin(values))), text(float(np.nanmax(values)))
    return least if least == most else f"{least} to {most}"


def _map(axes: Axes, own: ReplicaFigures, shown: MapColumn, most: float, span: Unit) -> None:
    values = own.of(shown.figure) * shown.scale
    axes.grid(False)
    if not np.isfinite(values).any():
        empty(axes, shown.lacking)
        return
    axes.set_facecolor(NOTHING)
    extent = (0.0, own.edges_s[-1] / span.divisor, -0.5, len(values) - 0.5)
    drawn: dict[str, object] = {"cmap": MAP, "vmin": 0.0, "vmax": most, "interpolation": "nearest", "aspect": "auto"}
    axes.imshow(np.ma.masked_invalid(values), origin="lower", extent=extent, **drawn)  # type: ignore[arg-type]
    axes.spines[:].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    number_axis(axes, "x", [], log=False)


def _bar(panels: list[Axes], shown: MapColumn, most: float) -> None:
    """The scale of a column of maps, below it."""
    figure = panels[0].figure
    bar = figure.colorbar(ScalarMappable(Normalize(0, most), MAP), ax=panels, location="bottom", aspect=30, pad=0.04)
    bar.set_label(shown.unit, fontsize=FONT)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
