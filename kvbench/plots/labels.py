"""Names beside points, without overlap."""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from kvbench.plots.style import INK, SMALL

_DISTANCES_POINTS = (7.0, 16.0, 28.0, 42.0, 58.0)
_DIRECTIONS = ((1, 0.3), (1, -0.6), (-1, 0.3), (-1, -0.6), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_FAR_POINTS = 10.0
_POINT_RADIUS = 5.0
_NOTHING = 1e-6


def place_names(figure: Figure, axes: Axes, points: np.ndarray, names: list[str], path: np.ndarray) -> None:
    """Write each name near its point, where it covers nothing, with a thin line if it is far.

    Call it after the layout: places are found in pixels. A name for which a crowd leaves no free place is left out; the
    legend has it.

    Args:
        figure: already laid out.
        axes: the panel.
        points: [num_points, 2], in data coordinates; the first len(names) of them are named.
        names: texts; the first have the first choice, and of equal ones only the first is written.
        path: [num_corners, 2], a line of upright and level pieces that names keep clear of.
    """
    pixels = axes.transData.transform(points)
    scale = figure.dpi / 72
    radius = _POINT_RADIUS * scale
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]
    renderer = figure._get_renderer()
    frame = axes.get_window_extent(renderer)
    corners = axes.transData.transform(path)
    line = [Bbox.from_extents(*np.minimum(a, b) - 1, *np.maximum(a, b) + 1) for a, b in pairwise(corners)]
    taken += line
    for name in dict.fromkeys(names):
        index = names.index(name)
        probe = axes.text(0, 0, name, fontsize=SMALL, transform=None)
        size = probe.get_window_extent(renderer)
        probe.remove()
        own = taken.copy()
        del own[index]
        place = _free_place(pixels[index], size.width, size.height, scale, own, frame)
        if place is None:
            continue
        box, shift = place
        taken.append(box)
        far = np.hypot(*shift) > _FAR_POINTS * 1.3
        axes.annotate(
            name,
            points[index],
            xytext=((box.x0 - pixels[index][0]) / scale, (box.y0 - pixels[index][1]) / scale),
            textcoords="offset points",
            fontsize=SMALL,
            color=INK,
            ha="left",
            va="bottom",
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 3} if far else None,
        )


def _free_place(
    point: np.ndarray, width: float, height: float, scale: float, taken: list[Bbox], frame: Bbox
) -> tuple[Bbox, tuple[float, float]] | None:
    """The nearest box of this size, in pixels, that overlaps nothing, and its shift from the point in points."""
    for distance in _DISTANCES_POINTS:
        for across, up in _DIRECTIONS:
            x = point[0] + across * distance * scale - (0.5 - 0.5 * np.sign(across)) * width
            y = point[1] + up * distance * scale - 0.5 * height
            box = Bbox.from_extents(x, y, x + width, y + height)
            outside = width * height - _shared(box, frame)
            if outside + sum(_shared(box, other) for other in taken) <= _NOTHING:
                return box, (across * distance, up * distance)
    return None


def _shared(box: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    wide = min(box.x1, other.x1) - max(box.x0, other.x0)
    high = min(box.y1, other.y1) - max(box.y0, other.y0)
    return max(0.0, wide) * max(0.0, high)
