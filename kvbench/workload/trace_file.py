"""Open trace files and read their rows: plain or gzip, UTF-8, each row with its line number."""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from kvbench.files import check_regular
from kvbench.messages import unknown

GZIP_MAGIC = b"\x1f\x8b"
# Rows converted at a time. More rows as Python strings cost memory, and twice the time in the garbage collector.
CHUNK_ROWS = 2_048
MAX_SHOWN = 60


class TraceError(ValueError):
    """A trace file that is not what it is said to be: says where, what was found and what is allowed."""


class TraceMissing(FileNotFoundError):
    """A trace file that is not there: says where it was looked for."""


@dataclass(frozen=True)
class Converter:
    """How the cells of a column become numbers.

    Args:
        apply: cells to an array; raises ValueError, TypeError or OverflowError where any cell is not allowed.
        allowed: what is allowed, in words.
    """

    apply: Callable[[Sequence[Any]], NDArray[np.int64]]
    allowed: str


@dataclass(frozen=True)
class Chunk:
    """Some rows of a trace file, column by column.

    Args:
        path: the file.
        lines: line in the file on which each row starts, from 1.
        columns: name to cells, one a row.
    """

    path: Path
    lines: Sequence[int]
    columns: dict[str, Sequence[Any]]

    def convert(self, name: str, converter: Converter) -> NDArray[np.int64]:
        """Turn a column into an array.

        Raises:
            TraceError: a cell is not allowed; it names the first such.
        """
        cells = self.columns[name]
        try:
            return converter.apply(cells)
        except (ValueError, TypeError, OverflowError) as error:
            for line, cell in zip(self.lines, cells, strict=True):
                try:
                    converter.apply([cell])
                except (ValueError, TypeError, OverflowError):
                    raise bad_cell(self.path, line, name, cell, converter.allowed) from None
            raise AssertionError(f"no cell of {name} is bad by itself") from error


def bad_cell(path: Path, line: int, name: str, value: object, allowed: str) -> TraceError:
    """Describe a value that is not allowed, and where it stands."""
    shown = repr(value)
    if len(shown) > MAX_SHOWN:
        shown = f"{shown[:MAX_SHOWN]}..."
    return TraceError(f"{path}, line {line}, column {name}: got {shown}; allowed is {allowed}")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file, gzip or plain; what goes wrong while it is read becomes a TraceError.

    Raises:
        TraceMissing: there is no such file.
        TraceError: it is empty, binary, not UTF-8, a damaged gzip, or cannot be read.
    """
    try:
        check_regular(path)
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == GZIP_MAGIC
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                head = stream.peek(4096)[:4096]
                if not head:
                    raise TraceError(f"{path} is empty; allowed is a file with rows")
                if b"\0" in head:
                    raise TraceError(f"{path} is a binary file, or UTF-16; allowed is UTF-8 text, plain or gzip")
                with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                    yield text
    except UnicodeDecodeError as error:
        got = f"line {_first_undecodable(path)}: got byte 0x{error.object[error.start]:02x}"
        raise TraceError(f"{path}, {got}; allowed is UTF-8 text, plain or gzip") from error
    except EOFError as error:
        raise TraceError(f"{path} is a gzip file that is cut short; allowed is a whole one") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path} is a damaged gzip file ({error}); allowed is a whole one") from error
    except FileNotFoundError:
        raise TraceMissing(f"trace file {path} does not exist (working directory {Path.cwd()})") from None
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}") from error


def _first_undecodable(path: Path) -> int:
    line = 0
    with open(path, "rb") as raw, suppress(EOFError, zlib.error):
        packed = raw.peek(2)[:2] == GZIP_MAGIC
        for line, content in enumerate(gzip.GzipFile(fileobj=raw) if packed else raw, start=1):
            try:
                content.decode()
            except UnicodeDecodeError:
                return line
    # A gzip file cut short just behind the byte: it is on the line that cannot be read whole.
    return line + 1


def csv_header(path: Path) -> list[str]:
    """The names of a CSV file's columns.

    Raises:
        TraceMissing: there is no such file.
        TraceError: it cannot be read.
    """
    with open_text(path) as text:
        return next(_numbered(path, csv.reader(text, strict=True)), (1, []))[1]


def read_csv(path: Path, names: Sequence[str]) -> Iterator[Chunk]:
    """Read the named columns of a CSV file, some rows at a time; others are ignored, and so are blank lines.

    Args:
        path: the file; its first row is the header.
        names: columns to read.
    Raises:
        TraceMissing: there is no such file.
        TraceError: it cannot be read, lacks a column, has no rows, or a row has too few or too many fields.
    """
    with open_text(path) as text:
        reader = csv.reader(text, strict=True)
        rows = _numbered(path, reader)
        line, header = next(rows, (1, []))
        places = {name: _place(path, line, header, name) for name in names}
        found = False
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            found = True
            lines, fields = zip(*chunk, strict=True)
            if set(map(len, fields)) != {len(header)}:
                line, row = next((n, row) for n, row in chunk if len(row) != len(header))
                raise TraceError(
                    f"{path}, line {line}: got {len(row)} fields; allowed are {len(header)}, as the header"
                )
            columns = list(zip(*fields, strict=True))
            yield Chunk(path, lines, {name: columns[place] for name, place in places.items()})
    if not found:
        raise TraceError(f"{path} has a header and no rows; allowed is a file with rows")


def _numbered(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise TraceError(f"{path}, line {line}: got a row that is not CSV: {error}") from error


def _place(path: Path, line: int, header: list[str], name: str) -> int:
    if name not in header:
        raise TraceError(f"{path}, line {line}: {unknown('column', name, header)}")
    if header.count(name) > 1:
        raise TraceError(f"{path}, line {line}: got column {name} {header.count(name)} times; allowed is once")
    return header.index(name)
