"""A job: what a configuration asks for, checked, with nothing run yet."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import Config, is_fleet
from kvbench.results.results import Results


class Job(NamedTuple):
    """A run that may begin.

    Args:
        header: what will be run, on what, a line each.
        run: runs it, with signs of life on stderr.
    """

    header: list[str]
    run: Callable[[], Results]


class Stopped(KeyboardInterrupt):
    """A signal ended a run after a part of it was done.

    Args:
        how_far: what is done, in words.
        results: of that part.
    """

    def __init__(self, how_far: str, results: Results) -> None:
        super().__init__(how_far)
        self.results = results


def job_of(name: str, config: Config, config_text: str, asked: Mapping[str, Any]) -> Job:
    """Build all that a configuration describes, and check it.

    Args:
        name: the scenario's or the experiment's.
        config: composed and resolved.
        config_text: the same as YAML, for config.yaml; "" where it was put together in Python.
        asked: what was asked for, for environment.json; `overrides`, a line KEY=VALUE each, among it.
    Raises:
        UsageError: the configuration is wrong.
        FileNotFoundError: a trace is missing.
    """
    if "experiment" in config:
        from kvbench.api.study import study_job

        return study_job(name, config, config_text, asked)
    if is_fleet(config):
        try:
            from kvbench.api.fleet import fleet_job
        except ImportError as error:  # the extra is not installed
            raise UsageError(str(error)) from error
        return fleet_job(name, config, config_text, asked)
    from kvbench.api.scenario import scenario_job

    return scenario_job(name, config, config_text, asked)
