"""What is read is a regular file: a pipe or a device may have no end, or none to write into it."""

import stat
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
