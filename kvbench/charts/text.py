"""Numbers and names as text: units that keep numbers short, digits, and what Markdown or a terminal would act on."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kvbench.messages import printable
from kvbench.results.schema import Column

MIB = 1 << 20
_BYTES = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("bytes", 1.0))
_LONG = (("h", 3600e6, 3 * 3600e6), ("min", 60e6, 600e6))
_TIMES = (*_LONG, ("s", 1e6, 1e6), ("ms", 1e3, 1e3), ("µs", 1.0, 1.0))
"""Units of time in µs, and from how many on each is shown."""
MANY_DIGITS = 1e4
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&@])")
_LINE_START = re.compile(r"^(\s*)([-+=]|\d+[.)](?=\s|$))")


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
    """The unit in which a column's usual value is at least 1: MiB or GiB for bytes, µs, ms or s for times; min and h
    for those of ten minutes and three hours.

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
        name, size, _ = next((unit for unit in _TIMES if usual * recorded >= unit[2]), _TIMES[-1])
        return Unit(name, size / recorded)
    return Unit(column.unit, 1.0)


def span_unit(seconds: object) -> Unit:
    """The unit of an axis along a run: hours or minutes where it is long."""
    longest = 1e6 * finite_max(seconds)
    found = next((Unit(name, size / 1e6) for name, size, least in _LONG if longest >= least), None)
    return found or shown_unit(Column("s", ""), seconds)


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and commas between thousands; – where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ratio_text(value: float) -> str:
    """A ratio with four significant digits, and with more where it would look like 1 and is not; seven at most."""
    return next((text for digits in (4, 5, 6) if (text := number(value, digits)) != "1"), number(value, 7))


def value_text(value: object) -> str:
    """A swept parameter's value, in full."""
    if value is None or value != value:
        return "none"
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return f"{value:,.10g}" if numeric else one_line(value)


def mib(num_bytes: float) -> str:
    """Bytes in MiB."""
    return f"{number(num_bytes / MIB)} MiB"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{number(100 * share)} %"


def duration(seconds: float) -> str:
    """A time in s, ms or µs, whichever keeps it at 1 or above."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} µs"


def listed(items: list[str], most: int = 12) -> str:
    """Items as a clause: a, b and c; beyond the most, how many more."""
    if len(items) > most:
        items = [*items[:most], f"{len(items) - most} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def lacking(untold: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences on what cannot be told: of whom, by why."""
    return [one_line(f"{listed(list(whose))}: {why.removesuffix('.')}.") for why, whose in untold.items()]


def one_line(text: object) -> str:
    """Text from outside with line breaks and control characters shown as text, so that it moves no cursor."""
    return printable(text)


def markdown_escape(text: object) -> str:
    """Text from outside as Markdown shows it letter by letter, in a paragraph, an item, a title or a table's cell."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text)).replace("://", r"\://")
    return _LINE_START.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", escaped)
