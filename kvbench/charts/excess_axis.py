"""An axis that spreads what lies near a level: linear within a hundredth of it, logarithmic in the rest above."""

from collections.abc import Callable, Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from kvbench.charts.style import FAINT, FONT
from kvbench.charts.units import tick_text

NEAR = 0.01
RATIOS = (1.0, 2.0, 10.0, 1.1, 1.01, 5.0, 20.0, 1.5, 1.2, 1.02, 1.05, 3.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
CHANGED = (0.0, 1.0, 10.0, 100.0, 2.0, 5.0, 20.0, 50.0)
_ROUND = ((1, (1, 2, 5)), (1, range(1, 10)), (2, (10, 15, 25)), (2, range(10, 100)), (3, range(100, 1000)))
_APART = 0.065
_ROOM = 0.08
_LEAST = 0.02


def excess_axis(axes: Axes, costs: np.ndarray, level: float) -> None:
    """Scale y so that what lies near a level is spread; the right side says how many times the level a value is.

    Args:
        axes: the panel.
        costs: the values shown, > 0.
        level: what they are compared with, > 0.
    """
    scale = _Spread(level, NEAR * level)
    low, high = scale.limits([*costs, level, (1 + _LEAST) * level])
    rounds = (
        step * 10.0**power for digits, steps in _ROUND for power in range(-3, 7) for step in _scaled(steps, digits)
    )
    _apply(axes, scale, (low, high), [level, *rounds], lambda value: f"{value:,.4g}")
    right = axes.twinx()
    right.spines[["top", "right", "left", "bottom"]].set_visible(False)
    right.grid(False)
    _apply(right, scale, (low, high), [level * ratio for ratio in RATIOS], lambda value: f"×{value / level:.4g}")
    right.set_ylabel("Times the full cache's", fontsize=FONT)
    right.tick_params(labelsize=FONT, color=FAINT)


def changed_axis(axes: Axes, percents: np.ndarray) -> None:
    """Scale y so that small percentages are spread: linear below 1 %, logarithmic above."""
    scale = _Spread(0.0, 1.0)
    _apply(axes, scale, scale.limits([*percents, 0.0, 2.0]), CHANGED, tick_text)


class _Spread:
    """From values to places and back.

    Args:
        level: the value at place 0.
        near: how far from it places are about linear.
    """

    def __init__(self, level: float, near: float) -> None:
        self.level = level
        self.near = near

    def places(self, values: ArrayLike) -> np.ndarray:
        """The places of values."""
        excess = (np.asarray(values, dtype=float) - self.level) / self.near
        places: np.ndarray = np.sign(excess) * np.log1p(np.abs(excess))
        return places

    def values(self, places: ArrayLike) -> np.ndarray:
        """The values at places."""
        places = np.asarray(places, dtype=float)
        values: np.ndarray = self.level + self.near * np.sign(places) * np.expm1(np.abs(places))
        return values

    def limits(self, values: list[float]) -> tuple[float, float]:
        """Limits of an axis that shows these values with room around them."""
        places = self.places(values)
        room = _ROOM * (places.max() - places.min())
        low, high = self.values([places.min() - room, places.max() + 1.5 * room])
        return float(low), float(high)


def _scaled(steps: Iterable[int], digits: int) -> Iterable[float]:
    return (step / 10.0 ** (digits - 1) for step in steps)


def _apply(
    axes: Axes, scale: _Spread, limits: tuple[float, float], candidates: Iterable[float], text: Callable[[float], str]
) -> None:
    """Scale an axis, its ticks at those candidates that keep apart from the ones before them."""
    axes.set_yscale("function", functions=(scale.places, scale.values))
    axes.set_ylim(*limits)
    low, high = scale.places(limits)
    ticks, taken = [], np.array([])
    for value in candidates:
        place = float(scale.places(value))
        if low <= place <= high and not (np.abs(taken - place) < _APART * (high - low)).any():
            ticks.append(value)
            taken = np.append(taken, place)
    axes.yaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
