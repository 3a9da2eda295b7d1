"""Strategies on several workloads: what experiments that compare have in common."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kvbench.results.results import Results
from kvbench.runner.frames import results_of
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Setting
from kvbench.workload.scenario import Appends, Scenario


def tokens_of(scenarios: Mapping[str, Scenario]) -> dict[str, int]:
    """Each workload's tokens.

    Raises:
        ValueError: there is none, or one is no list of appends.
    """
    if not scenarios:
        raise ValueError("scenarios: name at least one, such as short_chat")
    for name, scenario in scenarios.items():
        if not isinstance(scenario, Appends):
            raise ValueError(
                f"scenarios: {name} is no list of appends, as short_chat is, but {type(scenario).__name__}"
            )
    return {name: sum(scenario.appends) for name, scenario in scenarios.items()}


def measure(strategies: Mapping[str, Strategy], scenarios: Mapping[str, Scenario], setting: Setting) -> Results:
    """Run all strategies on each workload in turn, repetitions interleaved.

    Args:
        strategies: by name.
        scenarios: by name.
        setting: backend and repetitions.
    Returns:
        The frames of all workloads, each with a column `scenario`.
    """
    summaries, requests, steps = [], [], []
    for name, scenario in scenarios.items():
        sessions = scenario.workload(np.random.default_rng(setting.seed)).sessions
        recorder = run(
            strategies,
            sessions,
            setting.backend,
            num_repetitions=setting.num_repetitions,
            num_warmup=setting.num_warmup,
            max_concurrency=scenario.max_concurrency,
            budget_bytes=setting.budget_bytes,
            on_iteration=setting.on_iteration,
        )
        found = results_of(recorder, sessions, setting.backend, name)
        summaries.append(found.summary)
        requests.append(found.requests.assign(scenario=name))
        steps.append(found.steps.assign(scenario=name))
    summary, by_request, by_step = (pd.concat(parts, ignore_index=True) for parts in (summaries, requests, steps))
    return Results(summary=summary, requests=by_request, steps=by_step)
