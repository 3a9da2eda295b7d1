"""Numbers and names as text: units, significant digits, and what Markdown or a terminal would take for its own."""

import math
import re

import numpy as np

from kvbench.messages import printable

MIB = 1 << 20
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&@])")
_LINE_START = re.compile(r"^(\s*)([-+=]|\d+[.)](?=\s|$))")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and commas between thousands; – where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


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


def one_line(text: object) -> str:
    """Text from outside with line breaks and control characters shown as text, so that it moves no cursor."""
    return printable(text)


def markdown_escape(text: object) -> str:
    """Text from outside as Markdown shows it letter by letter, in a paragraph, an item, a title or a table's cell."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text)).replace("://", r"\://")
    return _LINE_START.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", escaped)
