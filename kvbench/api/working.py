"""Workers of a sweep that has a manifest: here in processes, and elsewhere whoever calls `work` on its folder."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from kvbench.api.beside import as_worker, run_beside
from kvbench.api.points import carry_out
from kvbench.api.progress import watched
from kvbench.configuration.errors import UsageError, WriteFailed
from kvbench.decide.manifest import Manifest, NoManifest, read_manifest, this_machine, versions
from kvbench.decide.shards import Shards, Unreadable
from kvbench.decide.work import Places, SweepWorker, is_fresh
from kvbench.workload.trace import FOLDER_VARIABLE


def work(folder: str | Path, *, workers: int = 1, trusted: Iterable[str] = ()) -> None:
    """Run points of a sweep that nobody has run yet, beside others that do the same, until none is left.

    Whoever can read and write the folder can: an array of Slurm's jobs, a Ray cluster, another machine. What was run is
    in the folder, and `collect` joins it.

    Args:
        folder: the sweep's, with its manifest.
        workers: processes here; 1: this one.
        trusted: packages of yours that the manifest may name.
    Raises:
        ValueError: there is no manifest, it is of other code or packages, or its measured points are another machine's.
        KeyboardInterrupt: it was stopped; what is done stands.
    """
    folder = Path(os.path.abspath(folder))
    work_on(folder, checked(folder, tuple(trusted)), workers)


def resume(folder: str | Path, *, workers: int = 1, trusted: Iterable[str] = ()) -> None:
    """Run what a sweep lacks: points that were never run, and those that failed. See `work`.

    Args:
        folder: as in `work`.
        workers: as in `work`.
        trusted: as in `work`.
    Raises:
        ValueError: as in `work`.
        KeyboardInterrupt: it was stopped; what is done stands.
    """
    folder = Path(os.path.abspath(folder))
    manifest = checked(folder, tuple(trusted))
    begin_again(folder)
    work_on(folder, manifest, workers)


def checked(folder: Path, trusted: tuple[str, ...]) -> Manifest:
    """A folder's manifest, where its points may be run here.

    Raises:
        UsageError: they may not.
    """
    try:
        manifest = read_manifest(folder)
    except NoManifest as error:
        raise UsageError(str(error)) from error
    if strangers := sorted(set(manifest.trusted) - set(trusted)):
        named = ",".join(manifest.trusted)
        raise UsageError(f"{folder} names classes of {', '.join(strangers)}; to let it, say so: trusted=[{named}]")
    machine = None if manifest.machine is None else this_machine()
    here = replace(manifest, versions=versions(), machine=machine)
    if differences := manifest.differences(here):
        why = "; ".join(differences)
        raise UsageError(f"{folder} is not this kvbench's, or not this machine's, to go on with: {why}")
    return manifest


def begin_again(folder: Path) -> None:
    """What failed may be tried again, unless somebody is at work, whose sweep it is then."""
    places = Places(folder)
    with _writing(folder):
        places.make()
        if is_fresh(places):
            places.clear()
            if any(places.shards.iterdir()):
                places.next_turn()


def work_on(folder: Path, manifest: Manifest, workers: int = 1) -> None:
    """Run a sweep's points in so many processes, and show how far they have come.

    Raises:
        WriteFailed: rows cannot be written; those that are, stand.
        KeyboardInterrupt: it was stopped; what is done stands.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UsageError(f"workers is a whole number of processes, at least 1, got {workers!r}")
    places = Places(folder)
    with _writing(folder):
        places.make()
    if manifest.machine is not None and (workers > 1 or not is_fresh(places)):
        _say("several workers measure on one machine: their times disturb each other; workers=1 measures alone")
    with _shown(manifest, places) as on_look:
        if workers == 1:
            run_here(folder, manifest, on_look)
        else:
            _run_beside(folder, manifest, workers, on_look)


def run_here(
    folder: Path,
    manifest: Manifest,
    on_look: Callable[[Shards], object] = lambda shards: None,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Run a sweep's points in this process.

    Raises:
        WriteFailed: rows cannot be written.
        KeyboardInterrupt: it was stopped.
    """
    with _writing(folder), _where_asked(manifest):
        run = partial(carry_out, manifest, folder, say=_say)
        SweepWorker(manifest, Places(folder), run, on_look=on_look, goes_on=goes_on).work()


def _run_beside(folder: Path, manifest: Manifest, workers: int, on_look: Callable[[Shards], object]) -> None:
    """Run a sweep's points in processes, and look what they leave."""
    shards = Shards(Places(folder).shards)

    def look() -> None:
        shards.look()
        on_look(shards)

    failed = run_beside(_worker, (folder, manifest), workers, look)
    if failed and any(not shards.is_settled(point, Places(folder).turn()) for point in range(len(manifest))):
        raise WriteFailed(f"{folder}: workers ended before its points: exit status {failed[0]}; `resume` goes on")


def _worker(folder: Path, manifest: Manifest) -> None:
    """A process of a sweep; it ends with the one that started it."""
    goes_on = as_worker()
    try:
        run_here(folder, manifest, goes_on=goes_on)
    except KeyboardInterrupt:
        sys.exit(1)
    except UsageError as error:
        _say(str(error))
        sys.exit(error.status)


@contextlib.contextmanager
def _shown(manifest: Manifest, places: Places) -> Iterator[Callable[[Shards], object]]:
    """While the context lasts, how many points are settled is shown, with the time left."""
    turn = places.turn()
    shards = Shards(places.shards)
    shards.look()
    there = _num_settled(shards, turn)
    if there:
        _say(f"{there:,} of {len(manifest):,} points are done already")
    with watched(len(manifest) - there, "points") as advance:
        seen = there

        def on_look(shards: Shards) -> None:
            nonlocal seen
            settled = _num_settled(shards, turn)
            advance("sweep", settled - seen)
            seen = settled

        yield on_look


def _num_settled(shards: Shards, turn: int) -> int:
    return sum(shards.is_settled(point, turn) for point in shards.told)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise WriteFailed(f"cannot write to {folder}: {why}; what is there stands, and `resume` goes on") from error
    except Unreadable as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def _where_asked(manifest: Manifest) -> Iterator[None]:
    """While the context lasts, paths of the configuration are below the folder that it was asked for in."""
    directory, traces = manifest.asked.get("working_directory"), manifest.asked.get(FOLDER_VARIABLE)
    if traces is not None:
        os.environ.setdefault(FOLDER_VARIABLE, str(traces))
    if directory is None:
        yield
        return
    try:
        there = contextlib.chdir(str(directory))
        there.__enter__()
    except OSError as error:
        raise UsageError(f"{directory}, where the sweep was asked for, cannot be entered: {error.strerror}") from error
    try:
        yield
    finally:
        there.__exit__(None, None, None)


def _say(line: str) -> None:
    tqdm.write(f"kvbench: {line}", file=sys.stderr)
