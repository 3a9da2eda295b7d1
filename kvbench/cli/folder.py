"""The folder that a run writes: where it is, that it is new, and that nothing else writes it meanwhile."""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kvbench.cli.command_line import CommandLine, line_of, results_folder
from kvbench.cli.keys import compose_config, is_of_hydra
from kvbench.configuration.errors import UsageError, WriteFailed
from kvbench.decide.manifest import MANIFEST
from kvbench.files import clear

LOCK = ".kvbench.lock"
RUN, SWEEP = "hydra.run.dir", "hydra.sweep.dir"


def config_of(command: CommandLine) -> DictConfig:
    """The configuration that says where results go, with Hydra's own settings in it; a single run's is its job's.

    Raises:
        UsageError: it cannot be composed.
    """
    # A sweep's folder is that of all its jobs, so that only what is said of Hydra decides it.
    given = [line_of(o) for o in command.overrides if not command.is_multirun or is_of_hydra(o)]
    return compose_config([f"{_key(command)}={results_folder(command)}", *given], with_hydra=True)


def folder_of(command: CommandLine, config: DictConfig) -> Path:
    """Where a run's or a sweep's results go: as the command line says, its interpolations filled in once for all.

    Raises:
        UsageError: it says no folder.
    """
    key = _key(command)
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {' '.join(str(error).split())}") from error
    if value is None or not str(value):
        raise UsageError(f"{key} is a folder's path, got {value!r}")
    return Path(str(value))


def _key(command: CommandLine) -> str:
    return SWEEP if command.is_multirun else RUN


def folder_override(folder: Path) -> str:
    """What tells Hydra a sweep's folder, letter by letter."""
    return f"{SWEEP}={QuotedString(str(folder), Quote.single).with_quotes()}"


@contextlib.contextmanager
def held(folder: Path, said: str) -> Iterator[None]:
    """Make a folder and keep others out of it while the context lasts; it is removed again if it stays empty.

    Args:
        folder: where to write.
        said: what messages call it.
    Raises:
        UsageError: something stands in it, or something else writes it.
        WriteFailed: it cannot be made.
    """
    with locked(folder, said):
        found = sorted({path.name for path in folder.iterdir()} - {LOCK})
        if found:
            raise UsageError(f"{said}: the folder is not empty ({found[0]} is in it); name a new one")
        yield


@contextlib.contextmanager
def locked(folder: Path, said: str) -> Iterator[None]:
    """As `held`, of a folder with whatever is in it.

    Args:
        folder: where to write.
        said: what messages call it.
    Raises:
        UsageError: something else writes it.
        WriteFailed: it cannot be made.
    """
    made: list[Path] = []
    try:
        made += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / LOCK, said)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        _remove_empty(made)
        raise WriteFailed(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from error
    try:
        clear(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        os.close(lock)
        _remove_empty(made)


def _lock(path: Path, said: str) -> int:
    """Lock a file, which ends with the process that holds it, however that ends."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BlockingIOError as error:
            os.close(lock)
            joins = f", or help it: python -m kvbench work {path.parent}" if (path.parent / MANIFEST).exists() else ""
            raise UsageError(f"{said}: another run is writing to the folder; name a new one{joins}") from error
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # who held it has removed it: the name is another file's, or none's


def _remove_empty(folders: Iterable[Path]) -> None:
    for empty in folders:
        with contextlib.suppress(OSError, ValueError):
            empty.rmdir()
