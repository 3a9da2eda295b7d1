"""Files that are being written, under hidden names of their own until they are whole."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"\..+\.(\d+)\.partial")
_STARTED_S = time.time()


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
