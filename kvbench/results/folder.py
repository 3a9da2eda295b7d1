"""A file of a results folder: whole under its final name, or not there."""

import os
from collections.abc import Callable
from pathlib import Path

from kvbench.partial import clear, partial_of


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name beside it, then give it its own; nothing is left of a failure.

    What killed processes left in the folder is removed.

    Args:
        path: the final name; its folder is made.
        write: writes to the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    partial = partial_of(path)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
