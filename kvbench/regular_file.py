"""What is read is a regular file: a pipe or a device may have no end, or none to write into it."""

import stat
from pathlib import Path

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


class NotRegular(OSError):
    """A path that leads to no regular file."""


def check_regular(path: Path) -> None:
    """Refuse what is no regular file, before it is opened.

    Raises:
        NotRegular: it is a folder, a pipe or a device; `strerror` says which.
        OSError: there is nothing, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegular(None, f"it is {kind}, not a file")
