"""A run: the command line is checked, Hydra composes, and each job runs."""

import contextlib
import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kvbench.cli.asked import Asked, asked_for
from kvbench.cli.command_line import CommandLine, check, line_of, read, trusted_packages
from kvbench.cli.failure import failure_of, note
from kvbench.cli.folder import RUN, SWEEP, config_of, folder_of, folder_override, held
from kvbench.cli.keys import check_keys, is_of_hydra, plain
from kvbench.cli.points import has_manifest
from kvbench.cli.source import VERSION_BASE
from kvbench.cli.sweep import collect
from kvbench.cli.sweeping import sweep
from kvbench.cli.terminal import complain
from kvbench.configuration.catalogue import CONF, default_strategies
from kvbench.configuration.errors import UsageError, cause
from kvbench.workload.trace import TraceMissing


class TraceSkipped(UsageError):
    """A published trace that is not on this machine: a sweep goes on without it, and has not failed."""


HYDRA_HELP, INFO = ("--hydra-help",), ("--info=",)
PRINT_ONLY = ("--cfg=", *INFO)


def main(arguments: list[str]) -> int:
    """Check the arguments, then run the job that Hydra composes, or let it run a sweep's.

    Raises:
        UsageError: the arguments or a configuration file are wrong, or results cannot be written.
        KeyboardInterrupt: it was stopped; says what it leaves behind.
    """
    with read(arguments) as command:
        asked = asked_for(arguments, command)
        if _has(command, HYDRA_HELP) or (_has(command, INFO) and not command.overrides):
            sys.argv = ["kvbench", *command.flags]
            _program(asked)()
            return 0
        check(command)
        check_keys(command)
        if _has(command, PRINT_ONLY):
            sys.argv = ["kvbench", *command.argv()]
            _hydra(_program(asked))
            return 0
        config = config_of(command)
        folder = folder_of(command, config)
        if has_manifest(command):
            return sweep(command, folder, asked)
        if command.workers is not None:
            raise UsageError("workers=N is of a sweep with a manifest; Hydra's launchers have settings of their own")
        with held(folder, f"{SWEEP if command.is_multirun else RUN}={folder}"):
            try:
                return _sweep(command, folder, asked) if command.is_multirun else _run(config, folder, asked)
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(str(interrupt) or _written(folder)) from None


def _run(config: DictConfig, folder: Path, asked: Asked) -> int:
    """Run the one job of a configuration that is there already: Hydra itself would compose it twice more."""
    before = HydraConfig.instance().cfg
    with open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(folder)
    HydraConfig.instance().set_config(config)  # what ${hydra:…} reads
    job = copy.deepcopy(config)
    with open_dict(job):
        del job["hydra"]
    try:
        _carry_out(job, HydraConfig.get(), asked)
    except Exception as error:
        if (refusal := _refusal_of(error)) is error:
            raise
        raise refusal from error
    finally:
        HydraConfig.instance().cfg = before
    return 0


def _refusal_of(error: BaseException) -> BaseException:
    """What is told of an error: bad input where it comes from the configuration's values, or else the error itself."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return UsageError(cause(error))
    return error


def _sweep(command: CommandLine, folder: Path, asked: Asked) -> int:
    """Run a sweep's jobs and join what they leave, whatever ended it: 1 where one failed, 2 where one was refused."""
    swept = [override.key_or_group for override in command.overrides if override.is_sweep_override()]
    given = [line_of(override) for override in command.overrides if not is_of_hydra(override)]
    sys.argv = ["kvbench", *command.argv(), folder_override(folder)]
    try:
        _hydra(_program(asked))
    except BaseException:
        collect(folder, swept, given)
        raise
    num_finished, failures = collect(folder, swept, given)
    if not num_finished:
        complain(f"the sweep in {folder} has no finished job")
    if any(not failure.is_refusal for failure in failures):
        return 1
    return 2 if failures else 0 if num_finished else 1


def _program(asked: Asked) -> Callable[[], None]:
    """What Hydra runs; what was asked for goes with each job, whatever process a launcher runs it in."""

    @hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        _job_of_sweep(config, HydraConfig.get(), asked)

    program: Callable[[], None] = job
    return program


def _has(command: CommandLine, flags: tuple[str, ...]) -> bool:
    return any(flag.startswith(flags) for flag in command.flags)


def _hydra(program: Callable[[], None]) -> None:
    """Run Hydra so that it raises instead of printing: `main` says what went wrong."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        program()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _refusal_of(error) from error
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _job_of_sweep(config: DictConfig, hydra_config: HydraConf, asked: Asked) -> None:
    """Run one job; where it fails in any way, note it and let the others run."""
    sweep, folder = Path(os.path.abspath(hydra_config.sweep.dir)), Path(hydra_config.runtime.output_dir)
    try:
        if sweep not in folder.parents:
            raise UsageError(f"hydra.sweep.subdir={hydra_config.sweep.subdir} is no folder below that of the sweep")
        with held(folder, f"hydra.sweep.subdir={hydra_config.sweep.subdir}"):
            _carry_out(config, hydra_config, asked)
    except TraceSkipped as skipped:
        print(f"skipped {hydra_config.runtime.choices.get('scenario')}: {skipped}", flush=True)
    except (Exception, SystemExit) as error:  # whatever it is, it is this job's
        strategies = list(config.get("strategy") or [])
        note(
            sweep,
            failure_of(_refusal_of(error), hydra_config, strategies, asked.record(list(hydra_config.overrides.task))),
        )
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # Hydra made it; where nothing was written, nothing is left


def _carry_out(config: DictConfig, hydra_config: HydraConf, asked: Asked) -> None:
    """Run one job.

    Raises:
        UsageError: the configuration is wrong, a strategy plans what cannot be done, or results cannot be written.
        TraceSkipped: a published trace is not there, which ends no sweep.
    """
    from kvbench.cli.job import run_job

    folder = Path(hydra_config.runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    overrides = list(hydra_config.overrides.task)
    choices = hydra_config.runtime.choices
    try:
        if not any(override.lstrip("~").startswith("strategy=") for override in overrides):
            leave_out(config)
        plain, text = _resolved(config)
        # What a file could set is not what the user typed.
        plain["trusted"] = trusted_packages(OverridesParser.create().parse_overrides(overrides))
        run_job(str(choices.get("scenario") or choices["experiment"]), plain, text, asked.record(overrides), folder)
    except TraceMissing as error:
        if plain["scenario"].get("path") is None:
            raise TraceSkipped(str(error)) from error
        raise UsageError(str(error)) from error


def leave_out(config: DictConfig) -> None:
    """Of the strategies that are there by default, leave a fleet those that it compares where none is named.

    Raises:
        UsageError: these are no list of names.
    """
    from kvbench.configuration.chosen import compared

    if "strategy" in config:
        with open_dict(config):
            for name in set(default_strategies()) - set(compared(config)):
                config["strategy"].pop(name, None)


def _resolved(config: DictConfig) -> tuple[dict[str, Any], str]:
    """The configuration as plain values and as text, interpolations filled in."""
    try:
        return plain(config), OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(cause(error)) from error


def _written(folder: Path) -> str:
    """What an interrupted run leaves behind."""
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    if not files:
        return "nothing was written"
    shown = ", ".join(str(path.relative_to(folder)) for path in files[:8])
    return f"{len(files)} whole files are in {folder}: {shown}{', …' if len(files) > 8 else ''}"  # noqa: PLR2004
