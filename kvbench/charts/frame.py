"""Tables in a terminal and in Markdown; and any frame as one: a column's name says its unit, numbers are scaled."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kvbench.charts.text import MIB, markdown_escape, number, one_line
from kvbench.results.columns import FROM, ends
from kvbench.results.intervals import halves_of, has_interval
from kvbench.results.schema import SUMMARY

WIDTH = 120
TEXT_WIDTH = 36
FIXED_WIDTH = 60
GAP = "  "
NOTHING = "–"
_ENDINGS = (("_per_s", ""), ("_bytes", "bytes"), ("_tokens", "tokens"), ("_us", "µs"), ("_s", "s"))
_SCALES = {
    "bytes": (("MiB", MIB, 0.0),),
    "µs": (("ms", 1e3, 1e4), ("µs", 1.0, 0.0)),
    "s": (("s", 1.0, 1.0), ("ms", 1e-3, 1e-3), ("µs", 1e-6, 0.0)),
}
"""Of a recorded unit: the units shown, what values are divided by, and the middle value from which each is taken."""


class TextColumn(NamedTuple):
    """A column as text: its head, its unit, its cells, and whether they are numbers."""

    head: str
    unit: str
    cells: list[str]
    is_number: bool = True


def terminal_table(columns: Sequence[TextColumn], num_leading: int) -> str:
    """Columns for a terminal: lines of at most 120 characters, in blocks one below the other if need be.

    Args:
        columns: all of as many cells; text is wrapped, numbers are not.
        num_leading: columns at the start that lead each block.
    """
    wrapped = [_wrapped(column) for column in columns]
    leading = wrapped[:num_leading]
    blocks: list[list[list[list[str]]]] = [[]]
    for column in wrapped[num_leading:]:
        if blocks[-1] and _width([*leading, *blocks[-1], column]) > WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join("\n".join(_lines([*leading, *block])) for block in blocks)


def markdown_table(columns: Sequence[TextColumn]) -> str:
    """Columns as a Markdown table, all text escaped."""
    heads = [
        markdown_escape(f"{column.head} ({column.unit})" if column.unit else column.head).strip() for column in columns
    ]
    rules = ["---:" if column.is_number else "---" for column in columns]
    cells = [
        column.cells if column.is_number else [markdown_escape(cell) for cell in column.cells] for column in columns
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rules, *zip(*cells, strict=True)))


def _wrapped(column: TextColumn) -> list[list[str]]:
    """A column as head, unit and cells, each the lines that it takes, all as wide as the widest."""
    texts = [column.head, column.unit, *column.cells]
    cells = [[text] if column.is_number else textwrap.wrap(text, TEXT_WIDTH) or [""] for text in texts]
    width = max(len(line) for cell in cells for line in cell)
    return [[line.rjust(width) if column.is_number else line.ljust(width) for line in cell] for cell in cells]


def _width(columns: Iterable[list[list[str]]]) -> int:
    return sum(len(column[0][0]) + len(GAP) for column in columns)


def _lines(columns: list[list[list[str]]]) -> Iterator[str]:
    for row in zip(*columns, strict=True):
        for line in range(max(map(len, row))):
            yield GAP.join(cell[line] if line < len(cell) else " " * len(cell[0]) for cell in row).rstrip()


def frame_text(frame: pd.DataFrame) -> str:
    """A frame for a terminal, as `terminal_table` lays it out.

    Args:
        frame: any; columns `x_low` and `x_high` stand beside `x` as its ±. The columns that name a row, those before
            the first with a unit and up to the last of text, lead each block.
    """
    columns = list(_columns(frame))
    head = next((at for at, column in enumerate(columns) if column.unit), len(columns))
    while head and (columns[head - 1].is_number or _width(map(_wrapped, columns[:head])) > FIXED_WIDTH):
        head -= 1
    return terminal_table(columns, head)


def frame_markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, all text escaped."""
    return markdown_table(list(_columns(frame)))


def _columns(frame: pd.DataFrame) -> Iterator[TextColumn]:
    beside = {end for name in map(str, frame.columns) if has_interval(frame, name) for end in ends(name)}
    for name in map(str, frame.columns):
        if name in beside or name == FROM:
            continue
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            yield _numbers(name, values, halves_of(frame, name))
        else:
            yield TextColumn(one_line(name.replace("_", " ")), "", [_cell(value) for value in values], False)


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA or value != value:
        return NOTHING
    is_number = isinstance(value, int | float | np.number)
    return number(float(value)) if is_number else one_line(value)


def _numbers(name: str, column: pd.Series, half_widths: np.ndarray) -> TextColumn:
    values = column.to_numpy(dtype=float, na_value=np.nan)
    finite = values[np.isfinite(values)]
    head, unit = _head_and_unit(name)
    sizes = np.abs(finite[finite != 0])
    middle = float(np.median(sizes)) if sizes.size else 0.0
    scales = _SCALES.get(unit, ((unit, 1.0, 0.0),))
    shown, divisor = next((name, divisor) for name, divisor, least in scales if middle >= least)
    if divisor == 1.0 and (finite == np.round(finite)).all():
        cells = [f"{value:,.0f}" if np.isfinite(value) else NOTHING for value in values]
    else:
        cells = [number(value / divisor) for value in values]
    cells = [
        f"{cell} ± {number(half)}" if np.isfinite(half) else cell
        for cell, half in zip(cells, half_widths / divisor, strict=True)
    ]
    return TextColumn(head, shown, cells, True)


def _head_and_unit(name: str) -> tuple[str, str]:
    """What a column is called and its unit, from its name's ending; else from the schema. A setting's key is kept."""
    if "." in name:
        return one_line(name), ""
    for ending, unit in _ENDINGS:
        if name.endswith(ending) and name != ending.removeprefix("_"):
            head = name.removesuffix(ending)
            if ending == "_per_s":
                head += "_a_second"
            if name == "num_tokens":
                head, unit = "tokens", ""
            return one_line(head.replace("_", " ")), unit
    unit = SUMMARY[name].unit if name in SUMMARY else ""
    head = name.removeprefix("num_") if name.startswith("num_") else name
    return one_line(head.replace("_", " ")), unit
