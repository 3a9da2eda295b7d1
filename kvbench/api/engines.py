"""Which code runs what a configuration asks for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kvbench.api.job import Job
from kvbench.configuration.chosen import is_fleet, scenario_of
from kvbench.configuration.errors import UsageError, needing_extra
from kvbench.configuration.parts import Config
from kvbench.ledger import LedgerError


def job_of(name: str, config: Config, config_text: str, asked: Mapping[str, Any]) -> Job:
    """Build all that a configuration describes, and check it.

    Args:
        name: the scenario's or the experiment's.
        config: composed and resolved.
        config_text: the same as YAML, for config.yaml; "" where it was put together in Python.
        asked: what was asked for, for environment.json; `overrides`, a line KEY=VALUE each, among it.
    Returns:
        The job, whose `run` raises UsageError too: not all can be checked before.
    Raises:
        UsageError: the configuration is wrong.
        FileNotFoundError: a trace is missing.
    """
    with _input():
        job = _job_of(name, config, config_text, asked)
    return job._replace(run=_input()(job.run))


@contextmanager
def _input() -> Iterator[None]:
    """What only a run finds out of what it was given is bad input too: plans of a strategy of the user's own, sizes."""
    try:
        yield
    except LedgerError as error:
        raise UsageError(str(error)) from error
    except OverflowError as error:
        raise UsageError(f"a number is too large, or makes a time or a size that is: {error}") from error


def _job_of(name: str, config: Config, config_text: str, asked: Mapping[str, Any]) -> Job:
    if "experiment" in config:
        from kvbench.api.study import study_job

        return study_job(name, config, config_text, asked)
    name = scenario_of(config).named(name)
    if is_fleet(config):
        with needing_extra():
            from kvbench.api.fleet import fleet_job
        return fleet_job(name, config, config_text, asked)
    from kvbench.api.scenario import scenario_job

    return scenario_job(name, config, config_text, asked)
