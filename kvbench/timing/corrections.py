"""What a shape's time differs by from a form's: straight between knots, on logarithmic axes, and held beyond them."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

HUNDREDTHS = 100
"""Values are held in whole hundredths of a natural logarithm: about percents."""


class Corrections:
    """Values at knots along several axes.

    Args:
        knots: of each axis, growing, > 0.
        hundredths: a value for each combination of knots, the last axis running fastest.
    Raises:
        ValueError: there are as many values as there should not be.
    """

    def __init__(self, knots: Sequence[Sequence[float]], hundredths: Sequence[float]) -> None:
        self._knots = knots
        size = int(np.prod([len(axis) for axis in knots]))
        if len(hundredths) != size:
            raise ValueError(f"corrections are {size:,} numbers, got {len(hundredths):,}")
        self._values = np.asarray(hundredths, np.float64) / HUNDREDTHS

    def factor(self, *coordinates: ArrayLike) -> NDArray[np.float64]:
        """What a form's times are multiplied by; coordinates broadcast, one an axis."""
        found = sum(weight * self._values[place] for place, weight in corners(self._knots, *coordinates))
        return np.asarray(np.exp(found), np.float64)


def corners(
    knots: Sequence[Sequence[float]], *coordinates: ArrayLike
) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """The knots about each point: places in a grid's values, and weights that add up to 1."""
    sides = [_sides(axis, coordinate) for axis, coordinate in zip(knots, coordinates, strict=True)]
    found = []
    for chosen in product(*sides):
        place, weight = np.zeros((), np.intp), np.ones(())
        for axis, (index, share) in zip(knots, chosen, strict=True):
            place, weight = np.asarray(place * len(axis) + index), np.asarray(weight * share)
        found.append((place, weight))
    return found


def _sides(axis: Sequence[float], coordinate: ArrayLike) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    if len(axis) == 1:
        return [(np.zeros(np.shape(coordinate), np.intp), np.ones(np.shape(coordinate)))]
    logs = np.log(axis)
    at = np.log(np.clip(np.asarray(coordinate, np.float64), axis[0], axis[-1]))
    low = np.clip(np.searchsorted(logs, at, side="right") - 1, 0, len(axis) - 2)
    share = (at - logs[low]) / (logs[low + 1] - logs[low])
    return [(low, 1 - share), (low + 1, share)]
