"""Claims on pieces of work by processes that share nothing but a folder: no server, and no clock that must agree.

A claim is a folder that appears whole under its name, which the file system gives to one of those who ask. Whether its
owner lives, a process of the same kernel asks the kernel (a lock that ends with the owner, however that ends); others
watch whether the owner's beat goes on, by their own clock. Who errs does work twice; rows are told once all the same.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

OWNER = "owner"
BEAT_S, LEASE_S = 5.0, 120.0
"""Between two beats; and without one, until an owner on another machine is taken to be dead."""
_NAME = re.compile(r"(.+)\.(\d+)")
_KERNEL = Path("/proc/sys/kernel/random/boot_id")
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def appear(path: Path, write: Callable[[Path], object]) -> bool:
    """Let `write` fill a folder under a hidden name, then give it its own, unless that is another's already.

    Args:
        path: the final name; the folder that it is in is there.
        write: fills the folder that it is given, with at least one file.
    Returns:
        Whether it is there now, as this call wrote it.
    """
    hidden = path.with_name(f".{uuid.uuid4().hex}")
    hidden.mkdir()
    try:
        write(hidden)
        os.rename(hidden, path)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return True


def disappear(path: Path) -> None:
    """Remove a folder so that nobody sees a part of it."""
    hidden = path.with_name(f".{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):  # another has removed it
        os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def kernel() -> str:
    """What processes share that one kernel runs, whatever they call their machine."""
    try:
        return _KERNEL.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


@dataclass
class Claims:
    """What is claimed in a folder.

    Args:
        folder: holds a folder a claim; it is there.
        now_s: seconds on a clock of this process that goes forward.
        lease_s: how long the beat of an owner on another machine may be out.
        beat_s: seconds between two beats of this process's claims.
    """

    folder: Path
    now_s: Callable[[], float] = time.monotonic
    lease_s: float = LEASE_S
    beat_s: float = BEAT_S
    _watched: dict[str, tuple[bytes, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Claim something while the context lasts; yields whether it could be had.

        Raises:
            OSError: nothing can be written there.
        """
        attempt = self._next_attempt(name)
        if attempt is None:
            yield False
            return
        path, held = self.folder / f"{name}.{attempt}", []
        try:
            if not appear(path, lambda hidden: held.append(_owned(hidden / OWNER))):
                yield False
                return
            with _beating(held[0], self.beat_s):
                yield True
        finally:
            if held:
                self._remove(name, attempt, held[0])
                os.close(held[0])

    def living(self) -> list[dict[str, object]]:
        """The owners that live, of all that is claimed."""
        found = []
        for path in sorted(self.folder.glob("[!.]*")):
            if self._lives(path):
                with contextlib.suppress(OSError, ValueError):
                    found.append(json.loads((path / OWNER).read_text(encoding="ascii").rpartition("\n")[0]))
        return found

    def _next_attempt(self, name: str) -> int | None:
        """The number of the next claim on something; None where it is claimed."""
        attempts = self._attempts(name)
        if not attempts:
            return 0
        return None if self._lives(self.folder / f"{name}.{attempts[-1]}") else attempts[-1] + 1

    def _attempts(self, name: str) -> list[int]:
        found = (_NAME.fullmatch(each) for each in os.listdir(self.folder))
        return sorted(int(each[2]) for each in found if each and each[1] == name)

    def _lives(self, path: Path) -> bool:
        """Whether a claim's owner is alive, as far as can be told; who has removed it, is not."""
        try:
            with (path / OWNER).open("rb") as file:
                said = file.read()
                with contextlib.suppress(OSError, ValueError):  # of a file system without locks the beat tells
                    if json.loads(said.rpartition(b"\n")[0])["kernel"] == kernel():
                        return _is_locked(file.fileno())
        except FileNotFoundError:
            return False
        now_s = self.now_s()
        before, since_s = self._watched.get(path.name, (b"", now_s))
        if said != before:
            self._watched[path.name] = said, now_s
            return True
        return now_s - since_s <= self.lease_s

    def _remove(self, name: str, attempt: int, held: int) -> None:
        """Remove one's own claim, and those before it, whose owners are gone; where it is another's now, nothing."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(held), (self.folder / f"{name}.{attempt}" / OWNER).stat()):
                for each in self._attempts(name):
                    if each <= attempt:
                        disappear(self.folder / f"{name}.{each}")


def _owned(path: Path) -> int:
    """Write who owns a claim; the file stays open and locked."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    owner = {"kernel": kernel(), "host": platform.node(), "pid": os.getpid()}
    with open(file, "wb", closefd=False) as written:
        written.write(json.dumps(owner).encode("ascii") + b"\n")
    return file


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _beating(file: int, beat_s: float) -> Iterator[None]:
    """While the context lasts, a thread says again and again that this process lives."""
    ended, place = threading.Event(), os.lseek(file, 0, os.SEEK_END)

    def beat() -> None:
        number = 0
        while not ended.wait(beat_s):
            number += 1
            with contextlib.suppress(OSError):  # where the disk is full, rows cannot be written either, and say so
                os.pwrite(file, f"{number:>12}".encode("ascii"), place)

    thread = threading.Thread(target=beat, name="beat of a claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
