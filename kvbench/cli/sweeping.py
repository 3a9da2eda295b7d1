"""A sweep with a manifest: made, or found unfinished; run; and what it has joined to one."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kvbench.api.collecting import collected
from kvbench.api.working import begin_again, work_on
from kvbench.cli.asked import Asked
from kvbench.cli.command_line import CommandLine, results_folder
from kvbench.cli.folder import SWEEP, held, locked
from kvbench.cli.job import keep
from kvbench.cli.points import manifest_of
from kvbench.cli.terminal import complain, say
from kvbench.cli.writing import writing
from kvbench.configuration.errors import UsageError
from kvbench.decide.manifest import MANIFEST, Manifest, NoManifest, read_manifest
from kvbench.decide.shards import FAILED, STOPPED, Shards
from kvbench.decide.work import Places, is_fresh


def sweep(command: CommandLine, folder: Path, asked: Asked) -> int:
    """Run a sweep's points, those that are not done yet, and join them.

    Args:
        command: checked.
        folder: where it goes, unless it is there unfinished already, and no folder was named.
        asked: how it was asked for.
    Returns:
        1 where a point failed, 2 where one was refused.
    Raises:
        UsageError: something else is in the folder.
        KeyboardInterrupt: it was stopped; says what is done.
    """
    manifest = manifest_of(command, asked)
    is_named = any(override.key_or_group == SWEEP for override in command.overrides)
    folder = folder if is_named else _unfinished(results_folder(command).parent, manifest) or folder
    _settle(folder, manifest)
    if command.workers == 0:
        print(f"{folder}: {len(manifest):,} points. Run them: python -m kvbench work {folder}")
        print(f"and join what is done: python -m kvbench collect {folder}")
        return 0
    begin_again(folder)
    return run(folder, manifest, command.workers or 1)


def run(folder: Path, manifest: Manifest, workers: int) -> int:
    """Run what is left of a sweep, and join what there is, however that ends."""
    try:
        work_on(folder, manifest, workers)
    except KeyboardInterrupt as interrupt:
        with _undone(folder):
            found = collected(folder)
            if not found.num_finished and not found.num_broken and not found.num_refused:
                raise KeyboardInterrupt(str(interrupt)) from None
            join(folder)
            num_done = len(manifest) - found.num_missing
            part = f", and of the next {interrupt}" if str(interrupt) else ""
        raise KeyboardInterrupt(
            f"{num_done:,} of {len(manifest):,} points are done{part}; they are in {folder}; the same command goes on"
        ) from None
    return join(folder)


def join(folder: Path) -> int:
    """Write the frame of all points that there are, with charts and a report; a program's exit status.

    Raises:
        UsageError: there is no manifest, or another process is joining it.
        WriteFailed: a file could not be written; the table was printed, and points are as they were.
    """
    with locked(folder, str(folder)):
        found = collected(folder)
        num_failed = found.num_broken + found.num_refused
        said = f"sweep: {found.num_finished:,} jobs in {folder}"
        said += f", {num_failed:,} failed" if num_failed else ""
        said += f", {found.num_missing:,} missing" if found.num_missing else ""
        say(found.header)
        keep(found.results, folder, replace(found.results, summary=found.rows), said, found.writers)
    if not found.num_finished:
        complain(f"the sweep in {folder} has no finished job")
    return found.status


def _unfinished(home: Path, manifest: Manifest) -> Path | None:
    """The newest folder with a sweep that is the same and not at its end."""
    for path in sorted(home.glob(f"*/{MANIFEST}"), reverse=True):
        with contextlib.suppress(NoManifest):
            if read_manifest(path.parent).identity == manifest.identity and _is_open(path.parent, manifest):
                return path.parent
    return None


def _is_open(folder: Path, manifest: Manifest) -> bool:
    """Whether points are missing, or broke; those that were refused would be again."""
    shards = Shards(Places(folder).shards)
    shards.look()
    states = [told.state for told in shards.told.values()]
    return len(states) < len(manifest) or FAILED in states or STOPPED in states


def _settle(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the folder, unless it is there already."""
    if (folder / MANIFEST).exists():
        return _check_same(folder, manifest)
    try:
        with held(folder, f"{SWEEP}={folder}"), writing(folder):
            manifest.write(folder)
    except UsageError:
        if not (folder / MANIFEST).exists():
            raise
        _check_same(folder, manifest)  # another has begun it meanwhile
    return None


def _check_same(folder: Path, manifest: Manifest) -> None:
    try:
        there = read_manifest(folder)
    except NoManifest as error:
        raise UsageError(f"{SWEEP}={folder}: {error}; name a new folder") from error
    if differences := there.differences(manifest):
        why = "; ".join(differences)
        raise UsageError(f"{SWEEP}={folder}: another sweep is in the folder: {why}; name a new one")


@contextlib.contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """Where nothing was done, nothing is left."""
    try:
        yield
    finally:
        places = Places(folder)
        if is_fresh(places) and not any(places.shards.glob("[!.]*")):
            for path in (places.shards, places.claims, places.turns):
                shutil.rmtree(path, ignore_errors=True)
            (folder / MANIFEST).unlink(missing_ok=True)
            for path in (folder, *folder.parents):
                with contextlib.suppress(OSError):
                    path.rmdir()
