"""The one place that all printed text goes through, whoever prints it: progress, tables, errors, libraries."""

import codecs
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from kvbench.messages import bounded, printable, printable_lines

PLAIN = {"±": "+-", "µ": "u", "–": "-", "…": "...", "×": "x", "→": "->", "≥": ">=", "≤": "<="}
"""What stands for letters that kvbench prints, where an encoding lacks them; others are shown as escapes."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in letters), error.end


codecs.register_error("kvbench_plain", _plain)


class Shown:
    """A stream on which control characters, and letters that its encoding lacks, are shown as text.

    Where it fails, as a reader that is gone or a disk that is full makes it, nothing more is written to it: what is
    printed ends no run.

    Args:
        stream: what is written to.
    """

    error: Exception | None = None
    """Why it failed; None as long as it did not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; a progress bar's return to the start of its line is let through, at the start alone."""
        start = "\r" if text.startswith("\r") else ""
        shown = start + printable_lines(text[len(start) :])
        encoding = getattr(self._stream, "encoding", None)
        if encoding and not shown.isascii():
            shown = shown.encode(encoding, "kvbench_plain").decode(encoding)
        with self._bearing():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Have what was written be seen."""
        with self._bearing():
            self._stream.flush()

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    @contextlib.contextmanager
    def _bearing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            if self.error is None:
                self.error = error
                self._let_go()

    def _let_go(self) -> None:
        """Let what is still in buffers go nowhere, so that it fails no more."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """While the context lasts, whatever is printed is shown so; on a stream that was closed, nowhere."""
    _keep_numbers()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = (Shown(nowhere if stream is None else stream) for stream in before)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = before


def _keep_numbers() -> None:
    """Open what was closed of a process's first three files, lest a results file take its number and get its output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def unsaid() -> str:
    """Why what was printed is not whole; "" where it is, or where its reader wanted no more."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None or isinstance(error, BrokenPipeError):
        return ""
    return f"not all could be printed: {getattr(error, 'strerror', None) or error}"


def say(lines: Iterable[object]) -> None:
    """Print lines; a line break in what one of them tells begins no other."""
    print("\n".join(map(printable, lines)), flush=True)


def complain(message: object) -> None:
    """Say what is wrong, in a message that can be read whole, whatever came in."""
    print(f"kvbench: {bounded(str(message))}", file=sys.stderr, flush=True)
