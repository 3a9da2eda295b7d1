"""The one place that all printed text goes through, whoever prints it: progress, tables, errors, libraries."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO

from kvbench.printable import bounded, printable_lines


class Shown:
    """A stream on which control characters, and letters that its encoding lacks, are shown as text.

    Args:
        stream: what is written to.
    """

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
            shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(shown)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """While the context lasts, whatever is printed is shown so."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if stream is None else Shown(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def complain(message: object) -> None:
    """Say what is wrong, in a message that can be read whole, whatever came in."""
    print(f"kvbench: {bounded(str(message))}", file=sys.stderr, flush=True)
