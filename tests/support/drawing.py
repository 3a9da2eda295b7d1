"""Charts drawn once, into memory: what warns or fails in drawing does so here, without the two files of `save`."""

from collections.abc import Iterable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kvbench.charts.chart import Chart


def figures(charts: Iterable[Chart]) -> dict[str, Figure]:
    """Charts' figures by name."""
    return {chart.name: chart.figure() for chart in charts}


def draw(figure: Figure) -> None:
    """Draw every artist of a figure."""
    FigureCanvasAgg(figure).draw()
