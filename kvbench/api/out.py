"""A file that a call is to make."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from kvbench.configuration.errors import UsageError


def new_file(text: str | PathLike[str], suffix: str) -> Path:
    """A file that is yet to be made.

    Raises:
        UsageError: its name ends otherwise, or it exists.
    """
    out = Path(text).expanduser()
    if out.suffix != suffix:
        raise UsageError(f"out is a file whose name ends in {suffix}, got {str(text)!r}")
    if out.exists():
        raise UsageError(f"out={out}: it exists already; name a new file")
    return out


@contextmanager
def written(out: Path) -> Iterator[None]:
    """What is done here writes that file.

    Raises:
        UsageError: the system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"out={out}: it cannot be written: {error.strerror or error}") from error
