"""A run: the command line is checked, Hydra composes, and each job runs."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kvbench.cli.asked import Asked, asked_for
from kvbench.cli.catalogue import CONF
from kvbench.cli.command_line import CommandLine, check, read, results_folder, trusted_packages
from kvbench.cli.errors import UsageError
from kvbench.cli.keys import check_keys
from kvbench.cli.source import VERSION_BASE
from kvbench.ledger import LedgerError
from kvbench.workload.trace import TraceMissing

_refused: list[UsageError] = []
"""What jobs of this process were refused for; Hydra would print a job's exception in its own way."""

HYDRA_ONLY = ("--hydra-help", "--info=")
PRINT_ONLY = ("--cfg=", "--info=")


def main(arguments: list[str]) -> int:
    """Check the arguments, then let Hydra compose and run the jobs.

    Raises:
        UsageError: the arguments or a configuration file are wrong.
    """
    _refused.clear()
    with read(arguments) as command:
        asked = asked_for(arguments, command)
        if _has(command, HYDRA_ONLY) and not command.overrides:
            sys.argv = ["kvbench", *command.flags]
            _program(asked)()
            return 0
        check(command)
        check_keys(command)
        folder = _folder(command)
        sys.argv = ["kvbench", *command.argv(), *_folder_overrides(command, folder)]
        try:
            _hydra(_program(asked))
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise UsageError(" ".join(str(error).split())) from error
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error}") from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_written(folder)) from None
        finally:
            _remove_empty(folder)
        if _refused and not command.is_multirun:
            raise _refused[0]
        has_result = _has(command, PRINT_ONLY) or (folder / "summary.csv").is_file()
    return 2 if _refused else 0 if has_result else 1


def _program(asked: Asked) -> Callable[[], None]:
    """What Hydra runs; what was asked for goes with each job, whatever process a launcher runs it in."""

    @hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        _job(config, asked)

    return job


def _has(command: CommandLine, flags: tuple[str, ...]) -> bool:
    return any(flag.startswith(flags) for flag in command.flags)


def _hydra(program: Callable[[], None]) -> None:
    """Run Hydra so that it raises instead of printing: `main` says what went wrong."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        program()
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _job(config: DictConfig, asked: Asked) -> None:
    from kvbench.cli.compose import is_fleet
    from kvbench.cli.experiment import run_experiment
    from kvbench.cli.job import run_scenario

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    overrides = list(hydra_config.overrides.task)
    choices = hydra_config.runtime.choices
    is_sweep = hydra_config.mode == hydra.types.RunMode.MULTIRUN
    try:
        plain, text = _resolved(config)
        # What a file could set is not what the user typed.
        plain["trusted"] = trusted_packages(OverridesParser.create().parse_overrides(overrides))
        if "experiment" in plain:
            run_experiment(choices["experiment"], plain, text, asked.record(overrides), folder)
        elif is_fleet(plain):
            try:
                from kvbench.cli.fleet import run_fleet
            except ImportError as error:  # the extra is not installed
                raise UsageError(str(error)) from error
            run_fleet(choices["scenario"], plain, text, asked.record(overrides), folder)
        else:
            run_scenario(choices["scenario"], plain, text, asked.record(overrides), folder)
    except TraceMissing as error:
        if is_sweep and plain["scenario"].get("path") is None:
            print(f"skipped {choices.get('scenario')}: {error}", flush=True)
        else:
            _refuse(UsageError(str(error)), overrides, is_sweep)
    except LedgerError as error:  # a strategy of the user's own
        _refuse(UsageError(str(error)), overrides, is_sweep)
    except UsageError as error:
        _refuse(error, overrides, is_sweep)


def _refuse(error: UsageError, overrides: list[str], is_sweep: bool) -> None:
    """Remember a refused job; in a sweep, say so at once and let the others run."""
    _refused.append(error)
    if is_sweep:
        print(f"kvbench: job {' '.join(overrides)}: {error}", file=sys.stderr, flush=True)


def _resolved(config: DictConfig) -> tuple[dict[str, object], str]:
    """The configuration as plain values and as text, interpolations filled in."""
    try:
        return OmegaConf.to_container(config, resolve=True), OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(" ".join(str(error).split())) from error


def _folder(command: CommandLine) -> Path:
    """Where results go; a folder that holds some already is refused, so that none are lost or mixed."""
    key = "hydra.sweep.dir" if command.is_multirun else "hydra.run.dir"
    given = [str(o.value()) for o in command.overrides if o.key_or_group == key]
    folder = Path(given[-1]) if given else results_folder(command)
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{key}={folder}: the folder is not empty; name a new one")
    return folder


def _folder_overrides(command: CommandLine, folder: Path) -> list[str]:
    if _has(command, PRINT_ONLY):
        return []
    key = "hydra.sweep.dir" if command.is_multirun else "hydra.run.dir"
    return [] if any(o.key_or_group == key for o in command.overrides) else [f"{key}={folder}"]


def _written(folder: Path) -> str:
    """What an interrupted run leaves behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        return "nothing was written"
    shown = ", ".join(str(path.relative_to(folder)) for path in files[:8])
    return f"{len(files)} whole files are in {folder}: {shown}{', …' if len(files) > 8 else ''}"  # noqa: PLR2004


def _remove_empty(folder: Path) -> None:
    """Remove a results folder, its jobs' and those that it stands in below the working directory, where empty."""
    jobs = sorted((path for path in folder.glob("*") if path.is_dir()), reverse=True)
    above = [] if folder.is_absolute() else list(folder.parents)[:-1]
    for empty in [*jobs, folder, *above]:
        with contextlib.suppress(OSError):
            empty.rmdir()
