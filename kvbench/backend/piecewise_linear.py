"""Seconds by size, between and beyond the sizes that were measured."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence


class PiecewiseLinear:
    """Seconds by size: straight between points; the first and the last stretch go on.

    Args:
        points: [size, seconds], sizes growing, at least two.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        self._sizes = [float(size) for size, _ in points]
        self._seconds = [float(seconds) for _, seconds in points]

    def at(self, size: float) -> float:
        """Seconds for a size; never below 0."""
        sizes, seconds = self._sizes, self._seconds
        right = min(max(bisect_right(sizes, size), 1), len(sizes) - 1)
        slope = (seconds[right] - seconds[right - 1]) / (sizes[right] - sizes[right - 1])
        return max(seconds[right - 1] + (size - sizes[right - 1]) * slope, 0.0)

    def share(self, size: float, whole: float) -> float:
        """Seconds for a part of what is gone over in turn: what is fixed, and the part's share of the rest.

        A processor's caches keep no more of the part than they keep of the whole.
        """
        if whole <= size:
            return self.at(size)
        fixed = self.at(0)
        return max(fixed + (self.at(whole) - fixed) * size / whole, self.at(size))


class Lines:
    """A line each for several numbers, such as of queries; straight between those numbers too.

    Args:
        lines: by number; at least two.
    """

    def __init__(self, lines: Mapping[int, PiecewiseLinear]) -> None:
        self._numbers = sorted(lines)
        self._lines = [lines[number] for number in self._numbers]

    @property
    def largest(self) -> int:
        """The largest number that has a line of its own."""
        return self._numbers[-1]

    def at(self, number: float, size: float) -> float:
        """Seconds for a number and a size; never below 0."""
        points = [(each, line.at(size)) for each, line in zip(self._numbers, self._lines, strict=True)]
        return PiecewiseLinear(points).at(number)
