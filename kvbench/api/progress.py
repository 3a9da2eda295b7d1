"""Signs of life: a bar on a terminal or in a notebook; elsewhere a line with an estimate, and one every 30 s."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tqdm.auto import tqdm

EVERY_S = 30.0
_hushed = ContextVar("hushed", default=False)
Advance = Callable[[str, int], None]
"""Says what is being done, and how much more of it is."""


class Signs:
    """What a run says of itself in lines.

    Args:
        total: of all that is to be done; 0 where that is not known.
        unit: what is counted.
        now: seconds on a clock that only goes forward.
    """

    def __init__(self, total: int, unit: str, now: Callable[[], float] = time.monotonic) -> None:
        self._total, self._unit, self._now = total, unit, now
        self._start_s = now()
        self._done = 0
        self._what = ""

    def advance(self, what: str, amount: int) -> None:
        """Count what was done."""
        self._what = what
        self._done += amount

    def first(self, estimate_s: float | None) -> str:
        """The line at the start."""
        if not self._total:
            return f"running: how long it takes is not known beforehand; a line every {EVERY_S:.0f} s"
        about = "how long is told when the first are done" if estimate_s is None else f"about {duration(estimate_s)}"
        return f"running: {self._total:,} {self._unit}, {about}; a line every {EVERY_S:.0f} s"

    def line(self) -> str:
        """A sign of life: what is done, how much of it, and by the speed so far how long it takes."""
        spent_s = self._now() - self._start_s
        parts = [f"running for {duration(spent_s)}"]
        if self._what:
            parts.append(self._what)
        if self._total:
            parts.append(f"{min(self._done, self._total):,} of {self._total:,} {self._unit}")
        if 0 < self._done < self._total:
            parts.append(f"about {duration(spent_s * (self._total - self._done) / self._done)} to go")
        return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]


def duration(seconds: float) -> str:
    """A time in whole seconds, minutes or hours, as is told of one that is not known to better."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s or less"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """While the context lasts, runs show no signs of life: whoever runs them does."""
    before = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(before)


@contextlib.contextmanager
def watched(total: int, unit: str, estimate_s: float | None = None) -> Iterator[Advance]:
    """While the context lasts, show how far it has come; yields what is told of each advance.

    Args:
        total: of all that is to be done; 0 where that is not known.
        unit: what is counted.
        estimate_s: how long it takes, where that can be told beforehand.
    """
    if _hushed.get():
        yield lambda what, amount: None
        return
    hidden = False if is_notebook() else None  # None: where stderr is no terminal
    with tqdm(total=total or None, unit=unit, disable=hidden, leave=False) as bar:
        if not bar.disable:

            def move(what: str, amount: int) -> None:
                bar.set_description(what, refresh=False)
                bar.update(amount)

            yield move
            return
    with _told(total, unit, estimate_s) as advance:
        yield advance


def is_notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


@contextlib.contextmanager
def alive() -> Iterator[None]:
    """While the context lasts, which draws bars of its own on a terminal, give signs of life elsewhere."""
    with contextlib.nullcontext() if sys.stderr.isatty() else _told(0, "", None):
        yield


@contextlib.contextmanager
def _told(total: int, unit: str, estimate_s: float | None) -> Iterator[Advance]:
    signs = Signs(total, unit)
    _say(signs.first(estimate_s))
    ended = threading.Event()
    teller = threading.Thread(target=tell, args=(signs, ended.wait, _say), name="signs of life", daemon=True)
    teller.start()
    try:
        yield signs.advance
    finally:
        ended.set()
        teller.join()


def tell(signs: Signs, wait: Callable[[float], bool], say: Callable[[str], None]) -> None:
    """Say a line each time that waiting for so long ends without the end.

    Args:
        signs: what there is to say.
        wait: waits for so many seconds, and says whether the end came.
        say: prints a line.
    """
    while not wait(EVERY_S):
        say(signs.line())


def _say(line: str) -> None:
    print(f"kvbench: {line}", file=sys.stderr, flush=True)
