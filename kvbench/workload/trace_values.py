"""Turn cells of a trace into whole numbers and nanoseconds, a column at a time."""

import functools
import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_file import Converter

MAX_TOKENS = 2**31 - 1
MAX_S = 9_000_000_000
MAX_MS = MAX_S * 1_000
NS_PER_MS = 1_000_000

_DECIMAL = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
# Years that int64 nanoseconds hold; NumPy wraps around silently beyond them.
_TIMESTAMP = re.compile(
    r"((?:19[7-9]|2[01][0-9])[0-9]-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)(?:\+00:00|Z)?"
)


@functools.cache
def whole_numbers(low: int, high: int = MAX_TOKENS) -> Converter:
    """Text of digits only, from low to high."""

    def apply(cells: Sequence[str]) -> NDArray[np.int64]:
        # int() by itself would take " 1", "1_0", "+1" and other scripts' digits.
        digits = "".join(cells)
        if not (digits.isascii() and digits.isdecimal()):
            raise ValueError
        return _within(list(map(int, cells)), low, high)

    return Converter(apply, f"a whole number from {low} to {high}")


@functools.cache
def json_integers(low: int, high: int = MAX_TOKENS) -> Converter:
    """Integers of JSON, from low to high; 1.0 and true are none."""

    def apply(cells: Sequence[object]) -> NDArray[np.int64]:
        numbers = [cell for cell in cells if type(cell) is int]
        if len(numbers) < len(cells):
            raise TypeError
        return _within(numbers, low, high)

    return Converter(apply, f"an integer from {low} to {high}")


def _within(values: Sequence[int], low: int, high: int) -> NDArray[np.int64]:
    numbers = np.array(values, dtype=np.int64)
    if numbers.size and (numbers.min() < low or numbers.max() > high):
        raise ValueError
    return numbers


def _seconds(cells: Sequence[str]) -> NDArray[np.int64]:
    if not all(map(_DECIMAL.fullmatch, cells)):
        raise ValueError
    # Decimal, not float: seconds since 1970 leave a float 240 ns coarse.
    numbers = [round(Decimal(cell) * NS_PER_S) for cell in cells]
    return _within(numbers, 0, MAX_S * NS_PER_S)


def _milliseconds(cells: Sequence[object]) -> NDArray[np.int64]:
    numbers = [round(cell * NS_PER_MS) for cell in cells if type(cell) is int or type(cell) is float]
    if len(numbers) < len(cells):
        raise TypeError
    return _within(numbers, 0, MAX_MS * NS_PER_MS)


def _timestamps(cells: Sequence[str]) -> NDArray[np.int64]:
    moments = [match[1] for match in map(_TIMESTAMP.fullmatch, cells) if match]
    if len(moments) < len(cells):
        raise ValueError
    return np.array(moments, dtype="datetime64[ns]").astype(np.int64)


SECONDS = Converter(_seconds, f"seconds from 0 to {MAX_S}, such as 12.5")
MILLISECONDS = Converter(_milliseconds, f"a number of milliseconds from 0 to {MAX_MS}")
TIMESTAMPS = Converter(_timestamps, "a UTC time from 1970 to 2199, such as 2023-11-16 18:15:46.6805900")
