"""Files that are read are regular ones; those that are written appear whole, until then under hidden names."""

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


class NotRegular(OSError):
    """A path that leads to no regular file."""


def check_regular(path: Path) -> None:
    """Refuse a pipe, a device or a socket, before it is opened; to open a folder fails by itself.

    Raises:
        NotRegular: it is one; `strerror` says which.
        OSError: there is nothing, or it cannot be looked at.
    """
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise NotRegular(None, f"it is {kind}, not a file")


_NAME = re.compile(r"\..+\.(\d+)\.partial")
_STARTED_S = time.time()


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


def partial_of(path: Path) -> Path:
    """What a file is called while this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def clear(folder: Path) -> None:
    """Remove what processes that are gone left half written in a folder."""
    for path in folder.glob(".*.partial"):
        found = _NAME.fullmatch(path.name)
        with suppress(OSError):  # somebody else is removing it, or nobody may
            if found and not _is_written(int(found[1]), path):
                path.unlink()


def _is_written(pid: int, path: Path) -> bool:
    """Whether a process may still be writing a file; one of this process's number from before it began is another's."""
    if pid == os.getpid():
        return path.stat().st_mtime >= _STARTED_S
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
