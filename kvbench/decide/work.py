"""A worker of a sweep: it claims chunks of points, runs them, and leaves shards, until nothing is left to do."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvbench.decide.claims import Claims, appear, disappear
from kvbench.decide.manifest import Combination, Manifest
from kvbench.decide.shards import STOPPED, PointOutcome, Shards, write_shard

FLUSH_S = 1.0
"""After so long a shard is written though its chunk is not at its end: a point that takes longer has one of its own."""
WAIT_S = 0.5
"""Between two looks at whether others have done what they claimed."""


@dataclass(frozen=True)
class Places:
    """Where things are in a sweep's folder.

    Args:
        folder: the sweep's.
    """

    folder: Path

    @property
    def shards(self) -> Path:
        """Rows of finished points."""
        return self.folder / "points"

    @property
    def claims(self) -> Path:
        """What workers are at."""
        return self.folder / ".claims"

    @property
    def turns(self) -> Path:
        """A folder a turn: the first, and one a `resume`."""
        return self.folder / ".turns"

    def make(self) -> None:
        """Make the folders.

        Raises:
            OSError: they cannot be made.
        """
        for path in (self.shards, self.claims, self.turns):
            path.mkdir(parents=True, exist_ok=True)

    def turn(self) -> int:
        """The turn that workers are in, from 0."""
        return max([int(path.name) for path in self.turns.glob("[0-9]*")], default=0)

    def next_turn(self) -> int:
        """Begin another turn, in which what failed is tried again; several that begin one at once share it."""
        turn = self.turn() + 1
        appear(self.turns / f"{turn:06d}", lambda hidden: (hidden / "begun").touch())
        return turn

    def clear(self) -> None:
        """Remove what workers that are gone left half written; there are none that live."""
        for left in [*self.shards.glob(".*"), *self.claims.glob("*"), *self.claims.glob(".*")]:
            shutil.rmtree(left, ignore_errors=True)


@dataclass
class SweepWorker:
    """Runs a sweep's points beside others that do the same.

    Args:
        manifest: the sweep's.
        places: where it is.
        carry_out: runs a point; what is wrong with it is in the outcome. A signal ends it with KeyboardInterrupt, which
            may bear the results of a part.
        now_s: seconds on a clock of this process that goes forward.
        wait: waits so many seconds.
        on_look: told whenever more may be known of what is done.
        goes_on: whether to claim more.
    """

    manifest: Manifest
    places: Places
    carry_out: Callable[[Combination], PointOutcome]
    now_s: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] = time.sleep
    on_look: Callable[[Shards], object] = lambda shards: None
    goes_on: Callable[[], bool] = lambda: True
    claims: Claims = field(init=False)
    shards: Shards = field(init=False)
    _turn: int = field(init=False)
    _pending: list[tuple[int, PointOutcome]] = field(default_factory=list)
    _written: list[str] = field(default_factory=list)
    _flushed_s: float = 0.0

    def __post_init__(self) -> None:
        self.places.make()
        self._turn = self.places.turn()
        self.claims = Claims(self.places.claims, now_s=self.now_s)
        self.shards = Shards(self.places.shards)

    def work(self) -> None:
        """Run what is left, and wait for what others have claimed, whose it is if they die.

        Raises:
            OSError: rows cannot be written; those that are, stand.
            KeyboardInterrupt: a signal came; what is done stands.
        """
        left = dict(enumerate(self.manifest.chunks()))
        while left and self.goes_on():
            self.shards.look()
            self.on_look(self.shards)
            left = {chunk: points for chunk, points in left.items() if self._todo(points)}
            if not [chunk for chunk, points in left.items() if self.goes_on() and self._ran(chunk, points)] and left:
                self.wait(WAIT_S)
        self.shards.look()
        self.on_look(self.shards)

    def _todo(self, points: range) -> list[int]:
        return [point for point in points if not self.shards.is_settled(point, self._turn)]

    def _ran(self, chunk: int, points: range) -> bool:
        """Claim a chunk and run what is left of it; whether it could be claimed."""
        with self.claims.claimed(f"{self._turn}-{chunk:06d}") as is_mine:
            if is_mine:
                self.shards.look(chunk)  # what others finished until they let go of it
                self._written, self._flushed_s = [], self.now_s()
                with self._kept(chunk):
                    for point in self._todo(points):
                        if not self.goes_on():
                            break
                        self._run(chunk, point)
        return is_mine

    def _run(self, chunk: int, point: int) -> None:
        try:
            outcome = self.carry_out(self.manifest.combination(point))
        except KeyboardInterrupt as stop:
            results = getattr(stop, "results", None)
            if results is not None:
                self._pending.append((point, PointOutcome(state=STOPPED, results=results, error=str(stop))))
            raise
        self._pending.append((point, outcome))
        if self.now_s() - self._flushed_s >= FLUSH_S:
            self._flush(chunk)

    @contextlib.contextmanager
    def _kept(self, chunk: int) -> Iterator[None]:
        """What is done of a chunk is written however it ends, as one shard where it can be."""
        try:
            yield
            self._flush(chunk, whole=True)
        except KeyboardInterrupt:
            self._flush(chunk)
            raise

    def _flush(self, chunk: int, *, whole: bool = False) -> None:
        """Write what is done and not written; at the end of a chunk, with what of it was written before."""
        more = self._written if whole and len(self._written) + bool(self._pending) > 1 else []
        if self._pending or more:
            name = write_shard(self.places.shards, chunk, self._turn, self._pending, more)
            self._pending = []
            for each in more:
                disappear(self.places.shards / each)
            self._written = [*([] if whole else self._written), name]
            self.shards.look(chunk)
        self._flushed_s = self.now_s()
        self.on_look(self.shards)


def is_fresh(places: Places) -> bool:
    """Whether nobody is at work in a sweep's folder."""
    return not Claims(places.claims).living()
