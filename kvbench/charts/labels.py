"""Names beside points and at the ends of lines, without overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from kvbench.charts.style import INK, SMALL, Settings

_DISTANCES_POINTS = (7.0, 16.0, 28.0, 42.0, 58.0)
_DIRECTIONS = ((1, 0.3), (1, -0.6), (-1, 0.3), (-1, -0.6), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_FAR_POINTS = 10.0
_POINT_RADIUS = 5.5
_NOTHING = 1e-6
_PIECE_PIXELS = 6.0
_LINE_HEIGHT = 0.042
_END_LENGTH = 18
LEADER: Settings = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 3}


def place_names(figure: Figure, axes: Axes, points: np.ndarray, names: list[str], lines: list[np.ndarray]) -> None:
    """Write each name near its point, where it covers nothing, with a thin line if it is far.

    Call it after the layout: places are found in pixels. A name for which a crowd leaves no free place is left out; the
    legend has it.

    Args:
        figure: already laid out.
        axes: the panel.
        points: [num_points, 2], in data coordinates; the first len(names) of them are named.
        names: texts; the first have the first choice, and of equal ones only the first is written.
        lines: each [num_corners, 2]; names keep clear of them.
    """
    pixels = axes.transData.transform(points)
    scale = figure.dpi / 72
    radius = _POINT_RADIUS * scale
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # for a figure without a canvas of its own
    for corners in map(axes.transData.transform, lines):
        taken += [Bbox.from_extents(*np.minimum(a, b) - 1, *np.maximum(a, b) + 1) for a, b in _pieces(corners)]
    crowd = _Crowd(axes.get_window_extent(renderer), taken)
    for name in dict.fromkeys(names):
        point = pixels[names.index(name)]
        probe = axes.text(0, 0, name, fontsize=SMALL, transform=None)
        size = probe.get_window_extent(renderer)
        probe.remove()
        box = next((box for box in _boxes(point, size.width, size.height, scale) if crowd.has_room(box, point)), None)
        if box is None:
            continue
        crowd.add(box, point)
        axes.annotate(
            name,
            points[names.index(name)],
            xytext=((box.x0 - point[0]) / scale, (box.y0 - point[1]) / scale),
            textcoords="offset points",
            fontsize=SMALL,
            color=INK,
            va="bottom",
            zorder=6,
            arrowprops=LEADER if _is_far(box, point, scale) else None,
        )


def name_ends(axes: Axes, lines: Sequence[tuple[Line2D, str]]) -> None:
    """Write names beside a panel, at the heights at which their lines end, apart from each other.

    Call it when the panel's limits stand.

    Args:
        axes: the panel.
        lines: each with its name.
    """
    ends = []
    for line, text in lines:
        end = np.asarray(line.get_xydata())[-1]
        place = axes.transAxes.inverted().transform(axes.transData.transform(end))
        ends.append((float(np.clip(place[1], 0.0, 1.0)), tuple(end), text))
    ends.sort()
    arrow: Settings = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2}
    arrow["relpos"] = (0, 0.5)
    where: Settings = {"xycoords": "data", "textcoords": "axes fraction", "va": "center", "annotation_clip": False}
    where |= {"fontsize": SMALL, "color": INK, "arrowprops": arrow, "parse_math": False}
    for (_, end, text), height in zip(ends, _apart([height for height, *_ in ends]), strict=True):
        axes.annotate(_cut(text), end, (1.02, height), **where)


def _pieces(corners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A line's pieces in pixels; an oblique one in so short ones that their boxes hold little but the line."""
    for start, end in pairwise(corners):
        size = np.abs(end - start)
        count = 1 if size.min() < _PIECE_PIXELS else int(np.ceil(size.max() / _PIECE_PIXELS))
        yield from pairwise(np.linspace(start, end, count + 1))


def _cut(text: str) -> str:
    """A name for a narrow margin, as `plain` has made it, letter by letter."""
    letters = text.replace(r"\$", "$")
    half = _END_LENGTH // 2
    return letters if len(letters) <= _END_LENGTH else f"{letters[:half]}…{letters[1 - half :]}"


def _apart(heights: list[float]) -> np.ndarray:
    """Heights of an axis, in order, moved apart by a line's height, as little as may be and alike up and down."""
    rising, falling = np.array(heights), np.array(heights)
    for at in range(1, len(heights)):
        rising[at] = max(rising[at], rising[at - 1] + _LINE_HEIGHT)
        falling[-at - 1] = min(falling[-at - 1], falling[-at] - _LINE_HEIGHT)
    middle = (rising + falling) / 2
    apart: np.ndarray = middle + max(0.0, -middle.min(initial=0.0)) - max(0.0, middle.max(initial=1.0) - 1.0)
    return apart


def _boxes(point: np.ndarray, width: float, height: float, scale: float) -> Iterator[Bbox]:
    """Boxes of this size, in pixels, around a point, the nearest first."""
    for distance in _DISTANCES_POINTS:
        for across, up in _DIRECTIONS:
            x = point[0] + across * distance * scale - (0.5 - 0.5 * np.sign(across)) * width
            y = point[1] + up * distance * scale - 0.5 * height
            yield Bbox.from_extents(x, y, x + width, y + height)


def _is_far(box: Bbox, point: np.ndarray, scale: float) -> bool:
    """Whether a box is so far from its point that a line must lead there."""
    across = max(box.x0 - point[0], point[0] - box.x1, 0)
    up = max(box.y0 - point[1], point[1] - box.y1, 0)
    return bool(np.hypot(across, up) > _FAR_POINTS * scale)


def _leader(box: Bbox, point: np.ndarray) -> Path:
    """The line from the middle of a box to its point."""
    return Path([((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), tuple(point)])


@dataclass
class _Crowd:
    """What stands in a panel already, in pixels: boxes, and of the names among them the texts and their leaders."""

    frame: Bbox
    taken: list[Bbox]
    texts: list[Bbox] = field(default_factory=list)
    leaders: list[Path] = field(default_factory=list)

    def has_room(self, box: Bbox, point: np.ndarray) -> bool:
        """Whether a box lies in the panel, covers nothing, and neither it nor its leader crosses another's."""
        outside = box.width * box.height - _shared(box, self.frame)
        return (
            outside + sum(_shared(box, other) for other in self.taken) <= _NOTHING
            and not any(leader.intersects_bbox(box, filled=False) for leader in self.leaders)
            and not any(_leader(box, point).intersects_bbox(text, filled=False) for text in self.texts)
        )

    def add(self, box: Bbox, point: np.ndarray) -> None:
        """Take a box's place."""
        self.taken.append(box)
        self.texts.append(box)
        self.leaders.append(_leader(box, point))


def _shared(box: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    wide = min(box.x1, other.x1) - max(box.x0, other.x0)
    high = min(box.y1, other.y1) - max(box.y0, other.y0)
    return float(max(0.0, wide) * max(0.0, high))
