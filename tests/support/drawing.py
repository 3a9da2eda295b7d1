"""Charts drawn once, into memory: what warns or fails in drawing does so here, without the two files of `save`."""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.chart import Chart


def figures(charts: Iterable[Chart]) -> dict[str, Figure]:
    """Charts' figures by name."""
    return {chart.name: chart.figure() for chart in charts}


def draw(figure: Figure) -> None:
    """Draw every artist of a figure."""
    FigureCanvasAgg(figure).draw()


def line_of(axes: Axes, colour: str) -> Line2D:
    """The one long line of a strategy's colour."""
    found = [
        line
        for line in axes.lines
        if to_hex(line.get_color()) == to_hex(colour) and line.get_linestyle() != "None" and len(line.get_xdata()) > 1
    ]
    return found[0]


def words(figure: Figure) -> str:
    """Every text of a figure."""
    texts = [text.get_text() for text in figure.texts]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    texts += [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join(texts)


def check_panels_and_failures(charts: Mapping[str, Figure], summary: pd.DataFrame, drawn: bool) -> None:
    """Each panel says what its axis is, and each chart of a run who failed and how.

    Args:
        charts: figures by name; workload's has no strategies.
        summary: what they were made of.
        drawn: whether every artist is drawn too.
    """
    failed = summary[summary["outcome"] != "completed"]
    for name, figure in charts.items():
        if drawn:
            draw(figure)
        for axes in figure.axes:
            assert axes.get_xlabel() or not axes.axison, f"{name} has a panel without an axis text"
        if name != "workload":
            for strategy, outcome in zip(failed["strategy"], failed["outcome"], strict=True):
                assert f"({outcome}): " in words(figure), name
                assert strategy in words(figure), name
