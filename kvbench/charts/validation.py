"""Published figures and ours: how many times the published ours is, over what was published."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import INK, Settings
from kvbench.charts.text import Unit, number, shown_unit
from kvbench.results.columns import PERCENT, Column

BAND = 0.1
BAND_COLOUR = "#E9EEF2"
PANEL_IN = 4.4
MANY = 300
MOST_INTERVALS = 400
"""Points of a kind, from which they are drawn small and let others be seen through."""
WIDE = 5.0
NEAR_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3)
FAR_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Of ours ÷ published, where it differs by up to so many times, and where by more."""
FARTHEST = 100.0
"""Times too much or too little, from which a point stands at the edge."""


@dataclass(frozen=True, kw_only=True)
class ValidationChart(Chart):
    """A panel a unit: ours over published, both logarithmic, a colour a kind, a band of ten per cent either way.

    Args:
        rows: kind, unit, published, ours, and low and high where ours has an interval.
        notes: sentences at the foot.
    """

    name: str = "validation"
    heading: str = "Ours over published"
    rows: pd.DataFrame
    notes: tuple[str, ...] = ()

    def figure(self) -> Figure:
        """Draw it."""
        rows = self.rows[(self.rows["published"] > 0) & (self.rows["ours"] > 0)]
        kinds = list(dict.fromkeys(rows["kind"]))
        sheet = Sheet("Ours over published", self.subject, kinds, self.notes)
        units = list(dict.fromkeys(rows["unit"])) or [""]
        columns = min(2, len(units))
        panels = sheet.panels(
            -(-len(units) // columns), columns, PANEL_IN * -(-len(units) // columns), count=len(units)
        )
        for axes, unit in zip(panels, units, strict=True):
            own = rows[rows["unit"] == unit]
            if own.empty:
                empty(axes, "Nothing could be held against ours.")
            else:
                _ratios(axes, own, unit, sheet)
        sheet.legend += [
            (Patch(facecolor=BAND_COLOUR), f"within {100 * BAND:.0f} %"),
            (Line2D([], [], color=INK, linewidth=1.0), "equal"),
        ]
        if _shows_intervals(rows):
            sheet.legend.append((Line2D([], [], color=INK, alpha=0.4, linewidth=0.8), f"our {PERCENT} % interval"))
        return sheet.finish()

    def sentences(self) -> list[str]:
        """What the rows come to."""
        return list(self.notes)


def _ratios(axes: Axes, rows: pd.DataFrame, unit: str, sheet: Sheet) -> None:
    shown = shown_unit(Column(unit, ""), rows["published"]) if unit == "s" else Unit(unit, 1.0)
    published = rows["published"].to_numpy() / shown.divisor
    ratio = np.clip((rows["ours"] / rows["published"]).to_numpy(), 1 / FARTHEST, FARTHEST)
    number_axis(axes, "x", published)
    axes.axhspan(1 - BAND, 1 + BAND, color=BAND_COLOUR, zorder=1)
    axes.axhline(1.0, color=INK, linewidth=1.0, zorder=2)
    for kind, places in rows.reset_index(drop=True).groupby("kind", sort=False).indices.items():
        look = sheet.looks[str(kind)]
        is_many = len(places) > MANY
        size, alpha = (5, 0.35) if is_many else (22, 0.9)
        x, y = published[places], ratio[places]
        marks: Settings = {"marker": "." if is_many else look.marker, "s": size, "alpha": alpha, "linewidths": 0}
        axes.scatter(x, y, color=look.colour, zorder=3, rasterized=True, **marks)
        mark = Line2D([], [], color=look.colour, marker=look.marker, linestyle="")
        sheet.entry(mark, str(kind), _entry(rows, str(kind)))
    if _shows_intervals(rows):
        low, high = ((rows[name] / rows["published"]).to_numpy() for name in ("low", "high"))
        axes.vlines(published, low, high, color=INK, alpha=0.25, linewidth=0.8, zorder=2.5)
    number_axis(axes, "y", ratio, log=True)
    low, high = min(0.8, ratio.min()) / 1.1, max(1.25, ratio.max()) * 1.1
    axes.set_ylim(low, high)
    is_wide = high / low > WIDE
    axes.yaxis.set_major_locator(FixedLocator(FAR_TICKS if is_wide else NEAR_TICKS))
    label(axes, f"Published ({shown.name})" if shown.name else "Published", "Ours ÷ published")


def _shows_intervals(rows: pd.DataFrame) -> bool:
    """Of many rows they would hide the points."""
    return len(rows) <= MOST_INTERVALS and bool(rows["low"].notna().any())


def _entry(rows: pd.DataFrame, kind: str) -> str:
    errors = rows.loc[rows["kind"] == kind, "error"].abs()
    return f"{kind.replace('_', ' ')}: {len(errors):,}, MAPE {number(100 * errors.mean())} %"
