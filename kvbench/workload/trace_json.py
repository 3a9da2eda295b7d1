"""JSON in trace files: a document a file, or one a line; what is damaged is refused with its place."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.messages import cut, printable, unknown
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_file import TraceError, open_text
from kvbench.workload.trace_values import MAX_S, MAX_TOKENS

MOST_ID = 2**63 - 1
MOST_DIGITS = 100
PACKED = "#"
"""What a list of ids begins with while it is text."""
_LISTS_OF_IDS = re.compile(r'("hash_ids"\s*:\s*)\[([0-9][0-9, ]*)\]')


def read_json(path: Path) -> Any:
    """A file's one document.

    Its lists of ids stay text, which becomes numbers in a quarter of the time when `KeyedValues.ids` asks for them.

    Raises:
        TraceMissing: there is no such file.
        TraceError: it cannot be read, or is not JSON.
    """
    with open_text(path) as text:
        content = text.read()
    with suppress(ValueError, RecursionError):
        return _DECODER.decode(_LISTS_OF_IDS.sub(rf'\1"{PACKED}\2"', content))
    try:
        return _DECODER.decode(content)  # so that what is damaged has the file's own place
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path} is not JSON: {error}") from error


def json_objects(path: Path, text: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, with their line numbers; blank lines are left out.

    Raises:
        TraceError: a line is not a JSON object, or there is none.
    """
    found = False
    for line, content in enumerate(text, start=1):
        if content.isspace():
            continue
        try:
            row = _DECODER.decode(content)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path}, line {line}: got a line that is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise TraceError(f"{path}, line {line}: got a {type(row).__name__}; allowed is a JSON object")
        found = True
        yield line, row
    if not found:
        raise TraceError(f"{path} has blank lines only; allowed is a file with rows")


def _row_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_row_of)


class KeyedValues:
    """One object of a trace, whose values are asked for by name; a bad one is refused with its place.

    Args:
        where: the file, and the line or the keys down to it.
        values: the object.
    """

    def __init__(self, where: str, values: object) -> None:
        if not isinstance(values, dict):
            raise TraceError(f"{where}: got {_shown(values)}; allowed is a JSON object")
        self.where = where
        self.values: dict[str, Any] = values

    def bad(self, key: str, allowed: str, got: object = None) -> TraceError:
        """Describe a value that is not allowed, or is missing."""
        if key not in self.values:
            return TraceError(f"{self.where}: {unknown('key', key, map(printable, self.values))}")
        got = _shown(self.values[key]) if got is None else got
        return TraceError(f"{self.where}, key {key}: got {got}; allowed is {allowed}")

    def integer(self, key: str, low: int, high: int = MAX_TOKENS) -> int:
        """An integer from low to high."""
        value = self.values.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self.bad(key, f"an integer from {low} to {high}")
        return value

    def time_ns(self, key: str, per_s: int = 1, default: int | None = None) -> int:
        """A time that is not negative, in nanoseconds.

        Args:
            key: its name.
            per_s: the file's unit, by how many of them a second has.
            default: where the object has none, or null; None: it has to have one.
        """
        value: Any = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not 0 <= value <= MAX_S * per_s:
            unit = {1: "seconds", 1000: "milliseconds"}[per_s]
            raise self.bad(key, f"a number of {unit} from 0 to {MAX_S * per_s}")
        time_ns: int = round(value * (NS_PER_S // per_s))
        return time_ns

    def text(self, key: str) -> str:
        """Text."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.bad(key, "text")
        return value

    def items(self, key: str) -> list[Any]:
        """A list that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            raise self.bad(key, "a list that is not empty")
        return value

    def ids(self, key: str = "hash_ids") -> NDArray[np.int64]:
        """Ids of blocks."""
        value = self.values.get(key)
        if isinstance(value, str) and value.startswith(PACKED):
            value = _unpacked(value[len(PACKED) :].replace(", ", ","))
            if value is None:
                raise self.bad(key, "a list of integers", "what is none")
            if isinstance(value, np.ndarray):
                return value
        if isinstance(value, list):
            try:
                ids = np.frombuffer(array("q", value), np.int64)
            except (TypeError, OverflowError):
                wrong = [number for number in value if type(number) is not int or not 0 <= number <= MOST_ID]
                raise self.bad(key, f"integers from 0 to {MOST_ID}", _shown(wrong[0])) from None
            if not ids.size or ids.min() >= 0:
                return ids
            raise self.bad(key, f"integers from 0 to {MOST_ID}", str(ids.min()))
        raise self.bad(key, "a list of block ids")


def _unpacked(numbers: str) -> "NDArray[np.int64] | list[Any] | None":
    """Numbers between commas; a list where they are more than 64 bits hold, None where it is no list."""
    if " " in numbers or ",," in numbers or numbers.endswith(","):
        return None
    ids = np.fromstring(numbers, np.int64, sep=",")
    # Too large ones are read as the most.
    return ids if ids.max() < MOST_ID else list(map(_integer, numbers.split(",")))


def _integer(digits: str) -> int | str:
    """A number, or the text of one that is longer than any that is allowed."""
    return digits if len(digits) > MOST_DIGITS else int(digits)


def _shown(value: object) -> str:
    return cut(printable(repr(value)))
