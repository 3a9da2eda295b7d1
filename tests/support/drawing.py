"""Charts drawn once, into memory: what warns or fails in drawing does so here, without the two files of `save`."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw(figure: Figure) -> None:
    """Draw every artist of a figure."""
    FigureCanvasAgg(figure).draw()
