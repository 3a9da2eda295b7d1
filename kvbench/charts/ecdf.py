"""How values are distributed: the share of them that are no larger."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kvbench.charts.style import SMALL, Look

MAX_POINTS = 1_000


def ecdf(axes: Axes, values: np.ndarray, look: Look) -> Line2D:
    """Draw the share of values that are no larger; of many values, those at even steps of the share.

    Args:
        axes: the panel.
        values: finite, at least one.
        look: of the line.
    """
    ordered = np.sort(values)
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_POINTS)).round().astype(int))
    (line,) = axes.plot(
        ordered[kept],
        (kept + 1) / len(ordered),
        drawstyle="steps-post",
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markevery=max(1, len(kept) // 6),
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.6,
    )
    return line


def mark_shares(axes: Axes) -> None:
    """Mark the median and the 99th percentile along the axis of shares."""
    axes.set_ylim(0, 1.03)
    for height, text in ((0.5, "p50"), (0.99, "p99")):
        axes.axhline(height, color="#888888", linewidth=0.8, linestyle=":", zorder=0)
        axes.text(
            1.005, height, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center", color="#555555"
        )
