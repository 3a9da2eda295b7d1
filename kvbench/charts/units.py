"""Units that make numbers short: MiB for bytes, ms for microseconds; and numbers as text."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from kvbench.results.schema import Column

_BYTES = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("bytes", 1.0))
_MICROSECONDS = (("s", 1e6), ("ms", 1e3), ("µs", 1.0))
_SPANS = (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 600.0))
LARGE_RANGE = 10.0
MANY_DECADES = 2e2
MANY_TICKS, FEW_TICKS = 9, 6
MANY_DIGITS = 1e4


Panel = Axes | SecondaryAxis


class Unit(NamedTuple):
    """A unit shown, and what recorded values are divided by to be in it."""

    name: str
    divisor: float


def finite_max(values: object) -> float:
    """The largest finite magnitude; 0 where there is none."""
    array = np.abs(np.asarray(values, dtype=float))
    array = array[np.isfinite(array)]
    return float(array.max()) if array.size else 0.0


def shown_unit(column: Column, values: object) -> Unit:
    """The unit in which a column's usual value is at least 1: MiB or GiB for bytes, µs, ms or s for times.

    Usual is the median of what is not 0, so that one value far above the others does not make them all small; a unit in
    which the largest would have eight digits is too small.

    Args:
        column: gives the unit of the values: bytes, µs and s are scaled, any other is kept.
        values: numbers; NaN is left out.
    """
    sizes = np.abs(np.asarray(values, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    usual = max(float(np.median(sizes)), sizes.max() / MANY_DIGITS) if sizes.size else 0.0
    if column.unit == "bytes":
        return next((Unit(*pair) for pair in _BYTES if usual >= pair[1]), Unit("MiB", 2.0**20))
    if column.unit in ("µs", "s") and usual > 0:
        recorded = 1.0 if column.unit == "µs" else 1e6
        name, size = next((pair for pair in _MICROSECONDS if usual * recorded >= pair[1]), _MICROSECONDS[-1])
        return Unit(name, size / recorded)
    return Unit(column.unit, 1.0)


def span_unit(seconds: object) -> Unit:
    """The unit of an axis along a run: hours or minutes where it is long."""
    longest = finite_max(seconds)
    found = next((Unit(name, size) for name, size, least in _SPANS if longest >= least), None)
    return found or shown_unit(Column("s", ""), seconds)


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
