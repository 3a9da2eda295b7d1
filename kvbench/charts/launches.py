"""What a decode step gives a device: kernels and bytes, strategy by strategy."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.axes import number_axis
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import COLOURS, FONT, SMALL, short_names
from kvbench.charts.text import number

NAME_LENGTH = 24
_ROW_IN = 0.24


def launches_chart(table: pd.DataFrame, subject: str = "", notes: Sequence[str] = ()) -> Figure:
    """Kernels of a layer, and bytes that they read and write over those of the context, a dot a strategy.

    Args:
        table: strategy, launches, copies, bytes_per_needed.
        subject: what was counted.
        notes: sentences at the foot.
    """
    sheet = Sheet("What a decode step gives a device", subject, notes=notes)
    kernels, moved = sheet.panels(1, 2, 0.6 + _ROW_IN * len(table))
    names = [short_names(table["strategy"], NAME_LENGTH)[name] for name in table["strategy"]]
    _panel(kernels, names, table["launches"], 0, table["copies"])
    label(kernels, "Kernels (count)", "", "Launched in a layer")
    copies = table["copies"] > 0
    if copies.any():
        places = [place for place, copied in enumerate(copies) if copied]
        shown = kernels.scatter(table.loc[copies, "copies"], places, color=COLOURS[1], marker="s", s=26, zorder=3)
        sheet.legend.append((shown, "copies from other tiers"))
    _panel(moved, [""] * len(names), table["bytes_per_needed"], 2, table["copies"] * 0)
    label(moved, "Bytes ÷ bytes of the context's K and V", "", "Read and written in a layer")
    return sheet.finish()


def _panel(axes: Axes, names: list[str], values: pd.Series, colour: int, besides: pd.Series) -> None:
    """A dot a strategy, the first at the top; right of it its value, and that of what is drawn besides."""
    places = range(len(names))
    axes.scatter(values, places, color=COLOURS[colour], s=34, zorder=3)
    for place, value, other in zip(places, values, besides, strict=True):
        text = f"{number(value)} + {number(other)}" if other else number(value)
        at = max(value, other), place
        axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes.set_yticks(places, names, fontsize=FONT)
    axes.set_ylim(len(names) - 0.5, -0.5)
    number_axis(axes, "x", values, log=True)
