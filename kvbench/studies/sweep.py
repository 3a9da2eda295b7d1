"""Experiments that are sweeps over lists of appends: a manifest of points, run and joined like any sweep."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kvbench.decide.sweep import Point
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.workload.scenario import Appends, Scenario


def lists_of(scenarios: Mapping[str, Scenario]) -> dict[str, tuple[int, ...]]:
    """Each workload's appends.

    Raises:
        ValueError: there is none, or one is no list of appends.
    """
    if not scenarios:
        raise ValueError("scenarios: name at least one, such as short_chat")
    lists = {}
    for name, scenario in scenarios.items():
        if not isinstance(scenario, Appends):
            raise ValueError(
                f"scenarios: {name} is no list of appends, as short_chat is, but {type(scenario).__name__}"
            )
        lists[name] = tuple(scenario.appends)
    return lists


def tokens_of(scenarios: Mapping[str, Scenario]) -> dict[str, int]:
    """Each workload's tokens, of lists of appends."""
    return {name: sum(appends) for name, appends in lists_of(scenarios).items()}


def compared(
    strategies: Mapping[str, Strategy], scenarios: Mapping[str, Scenario], values: Mapping[str, object] | None = None
) -> list[Point]:
    """A point a workload, at which all strategies are compared.

    Args:
        strategies: by name.
        scenarios: lists of appends, by name.
        values: what else tells these points from others.
    """
    nothing_drawn = np.random.default_rng(0)
    return [
        Point(
            scenario=name,
            sessions=scenario.workload(nothing_drawn).sessions,
            strategies=strategies,
            max_concurrency=scenario.max_concurrency,
            values=values or {},
        )
        for name, scenario in scenarios.items()
    ]


@dataclass(frozen=True, kw_only=True)
class SweepExperiment(Experiment):
    """The base of experiments that say what is run as points, and what their joined rows show."""

    @property
    def points(self) -> list[Point]:
        """The manifest: what is run, in order."""
        raise NotImplementedError

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one repetition, over all points and strategies."""
        return sum(point.num_tokens for point in self.points)

    def findings(self, measured: Results, setting: Setting) -> Findings:
        """What the joined rows of all points show."""
        raise NotImplementedError

    def run(self, setting: Setting) -> Findings:
        """Run the points, and say what was found."""
        return self.findings(setting.run(self.points), setting)
