"""What a parameter changes on several workloads, the range that is claimed to be useful shaded: a panel a metric."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvbench.charts.axes import from_zero, number_axis
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import FAINT, FONT, Settings, look, short_names
from kvbench.charts.text import shown_unit
from kvbench.results.schema import Column

COLUMNS = 3
TWO_BY_TWO = 4
ROW_IN = 2.8
NAME_LENGTH = 24


class RangePanel(NamedTuple):
    """What a panel shows.

    Args:
        title: above it.
        column: of the frame.
        axis: what its axis says, without the unit.
        unit: of the column: bytes and times are scaled.
        whole: no ticks between whole numbers.
        log: True or False overrules the range of the values.
        why_empty: what is said where the column has no value.
    """

    title: str
    column: str
    axis: str
    unit: str = ""
    whole: bool = False
    log: bool | None = None
    why_empty: str = "no values"


def range_chart(
    frame: pd.DataFrame,
    parameter: str,
    x_label: str,
    panels: Sequence[RangePanel],
    title: str,
    article_range: tuple[float, float],
    notes: Sequence[str] = (),
    subject: str = "",
) -> Figure:
    """Each panel's column over a parameter, a line a workload, the article's range of the parameter shaded.

    A panel without values is left out, and a note says why.

    Args:
        frame: a row a `scenario` and value of the parameter.
        parameter: the column along x.
        x_label: what it is called.
        panels: what is shown, row by row.
        title: of the figure.
        article_range: from, to.
        notes: sentences at the foot.
        subject: what was run on what.
    """
    names = list(dict.fromkeys(frame["scenario"].astype(str)))
    short = short_names(names, NAME_LENGTH)
    shown = [panel for panel in panels if np.isfinite(_values(frame, panel)).any()] or panels[:1]
    columns = 2 if len(shown) == TWO_BY_TWO else min(COLUMNS, len(shown))
    num_rows = -(-len(shown) // columns)
    left_out = [f"{panel.title}: {panel.why_empty}." for panel in panels if panel not in shown]
    sheet = Sheet(title, subject, notes=[*notes, *left_out])
    grid = sheet.panels(num_rows, columns, ROW_IN * num_rows, count=len(shown))
    for axes, panel in zip(grid, shown, strict=True):
        drawn = _panel(axes, frame, parameter, panel, names)
        if drawn:
            axes.axvspan(*article_range, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
        axes.set_xlabel(x_label, fontsize=FONT)
        sheet.legend = sheet.legend or [(line, short[name]) for line, name in zip(drawn, names, strict=False)]
    low, high = article_range
    sheet.legend.append((Patch(facecolor=FAINT, alpha=0.7), f"the article's range, {low:g} to {high:g}"))
    return sheet.finish()


def _values(frame: pd.DataFrame, panel: RangePanel) -> np.ndarray:
    return frame[panel.column].to_numpy(dtype=float) if panel.column in frame else np.array([])


def _panel(axes: Axes, frame: pd.DataFrame, parameter: str, panel: RangePanel, names: list[str]) -> list[Line2D]:
    """Draw one metric; its lines in the order of the names."""
    values = _values(frame, panel)
    unit = shown_unit(Column(panel.unit, "", panel.axis), values)
    text = f"{panel.axis} ({unit.name})" if unit.name else panel.axis
    label(axes, "", text, panel.title)
    if not np.isfinite(values).any():
        empty(axes, panel.why_empty)
        return []
    lines = []
    for turn, name in enumerate(names):
        rows = frame[frame["scenario"].astype(str) == name].sort_values(parameter)
        drawn: Settings = {**look(turn).of_line(), "markersize": 6, "linewidth": 1.3}
        (line,) = axes.plot(rows[parameter], rows[panel.column] / unit.divisor, **drawn)
        lines.append(line)
    number_axis(axes, "x", frame[parameter], log=False)
    number_axis(axes, "y", values / unit.divisor, log=panel.log, whole=panel.whole)
    if axes.get_yscale() == "linear":
        from_zero(axes, axes.dataLim.y1)
    return lines
