"""What is said when the command line or a configuration file is wrong, or results cannot be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


def cause(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class UsageError(ValueError):
    """Bad input: the message is all that the user sees. Exit status 2."""

    status: ClassVar[int] = 2


class WriteFailed(UsageError):
    """A file or a folder could not be written. Exit status 1."""

    status: ClassVar[int] = 1


@contextmanager
def refusing(where: str = "") -> Iterator[None]:
    """What is done here takes the user's input, and refuses it with a ValueError.

    Args:
        where: what stands before the message, such as `model=NAME: `.
    Raises:
        UsageError: it was refused.
    """
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{where}{error}") from error


@contextmanager
def needing_extra() -> Iterator[None]:
    """What an extra brings that is not installed is bad input: the message says what to install."""
    try:
        yield
    except ImportError as error:
        raise UsageError(str(error)) from error
