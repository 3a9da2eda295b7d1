"""Axes: linear or logarithmic as the range wants, ticks as plain numbers; and one that spreads what is near a level."""

from collections.abc import Callable, Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from kvbench.charts.style import FAINT, FONT

LARGE_RANGE = 10.0
MANY_DECADES = 2e2
MANY_TICKS, FEW_TICKS = 9, 6
NEAR = 0.01
"""The share of a level within which an axis that spreads what is near it is linear."""
RATIOS = (1.0, 2.0, 10.0, 1.1, 1.01, 5.0, 20.0, 1.5, 1.2, 1.02, 1.05, 3.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
CHANGED = (0.0, 1.0, 10.0, 100.0, 2.0, 5.0, 20.0, 50.0)
_ROUND = ((1, (1, 2, 5)), (1, range(1, 10)), (2, (10, 15, 25)), (2, range(10, 100)), (3, range(100, 1000)))
_APART = 0.065
_ROOM = 0.08
_LEAST = 0.02


def wants_log(values: object) -> bool:
    """Whether values, all positive, range so widely that a linear axis would hide the small ones."""
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    return bool(array.size and array.min() > 0 and array.max() / array.min() > LARGE_RANGE)


def tick_text(value: float, position: int | None = None) -> str:
    """A tick as a plain number."""
    return f"{value:,.10g}"


def number_axis(
    axes: Axes | SecondaryAxis,
    which: str,
    values: object,
    log: bool | None = None,
    whole: bool = False,
    most: int = MANY_TICKS + 3,
) -> None:
    """Scale an axis (logarithmic where the range is large) and write its ticks as plain numbers.

    Args:
        axes: the panel.
        which: x or y.
        values: what is shown along it.
        log: True or False overrules the range.
        whole: no ticks between whole numbers.
        most: ticks of a logarithmic axis, about.
    """
    if wants_log(values) if log is None else log:
        axes.set(**{f"{which}scale": "log"})
        array = np.asarray(values, dtype=float)
        array = array[np.isfinite(array) & (array > 0)]
        wide = array.size and array.max() / array.min() > (MANY_DECADES if most > FEW_TICKS else MANY_DECADES / 4)
        locator: Locator = LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=most)
    else:
        locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick_text))
    axis.set_minor_formatter(NullFormatter())


def from_zero(axes: Axes, top: float) -> None:
    """Let y go from 0 to the most, with so much room that marks at either end are whole.

    Args:
        axes: the panel, its y axis linear.
        top: the most that is shown, >= 0.
    """
    top = top or 1.0
    axes.set_ylim(-0.03 * top, 1.06 * top)


def value_ticks(axes: Axes, which: str, values: object) -> None:
    """Put an axis's ticks at the values themselves, where they are few."""
    distinct = np.unique(np.asarray(values, dtype=float))
    distinct = distinct[np.isfinite(distinct)]
    if 0 < distinct.size <= MANY_TICKS:
        (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(FixedLocator(distinct))


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
