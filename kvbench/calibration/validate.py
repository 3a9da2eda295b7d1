"""Hold a model against what it was not fitted to: the same runs measured twice, and modelled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvbench.backend.base import Backend
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session

STEP = ["strategy", "session", "step"]
"""What tells a step in every run: the strategy, the session, and which of its steps."""

OF_REQUEST: tuple[str, ...] = ("num_tokens", "context_tokens", "capacity_tokens", "request_bytes", "requested_bytes")
OF_REQUEST += ("copied_bytes", "moved_bytes", "num_resizes")
OF_ALL = ("used_bytes", "allocated_bytes", "workspace_bytes", "host_bytes", "disk_bytes", "transient_bytes")
"""What must be equal in every step; of all live requests only where the same ones are live in it."""

OnIteration = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ValidationCase:
    """A workload that fitted nothing.

    Args:
        name: the scenario's.
        sessions: in order of arrival.
        max_concurrency: requests live at once.
    """

    name: str
    sessions: Sequence[Session]
    max_concurrency: int


@dataclass(frozen=True)
class Outcome:
    """One strategy in one case. Errors are shares of what was measured.

    Args:
        case: the workload's name.
        strategy: its name.
        measured_us: mean time of a step that appends, each step the median of its repetitions; mean of both
            measurements.
        modelled_us: the same, modelled.
        error: distance of the modelled mean from a measured one, mean over the two.
        noise: distance of the second measured mean from the first.
        step_error: as error, of single steps: mean over them.
        step_noise: as noise, of single steps: mean over them.
        differences: columns of bytes, slots and resizes in which a step of the model is not what was measured.
    """

    case: str
    strategy: str
    measured_us: float
    modelled_us: float
    error: float
    noise: float
    step_error: float
    step_noise: float
    differences: tuple[str, ...]


def steps_of(
    backend: Backend,
    strategies: Mapping[str, Strategy],
    case: ValidationCase,
    budget_bytes: int,
    num_repetitions: int = 1,
    on_iteration: OnIteration | None = None,
) -> pd.DataFrame:
    """Run a case, after a repetition of warm-up where repetitions differ; a row a step, see `typical`.

    Args:
        backend: the machine, or its model.
        strategies: by name.
        case: the workload.
        budget_bytes: what live requests may hold together.
        num_repetitions: measured ones, > 0; one where each takes the same time.
        on_iteration: see `runner.run`.
    """
    recorder = run(
        strategies,
        case.sessions,
        backend,
        num_repetitions=1 if backend.is_repeatable else num_repetitions,
        num_warmup=0 if backend.is_repeatable else 1,
        max_concurrency=case.max_concurrency,
        budget_bytes=budget_bytes,
        on_iteration=on_iteration,
    )
    return typical(steps_frame(recorder))


def typical(steps: pd.DataFrame) -> pd.DataFrame:
    """A row a step, by STEP: the median of its repetitions, warm-up left out; of counts, the first one's."""
    kept = steps[~steps["warmup"]].copy()
    kept["strategy"] = kept["strategy"].astype(str)
    kept["step"] = kept.groupby(["strategy", "repetition", "session"]).cumcount()
    by_step = kept.groupby(STEP)
    found = by_step[["iteration", "phase", *OF_REQUEST, *OF_ALL]].first()
    return found.assign(step_us=by_step["step_us"].median())


def outcomes_of(
    case: ValidationCase, strategies: Iterable[str], first: pd.DataFrame, second: pd.DataFrame, model: pd.DataFrame
) -> list[Outcome]:
    """Hold each strategy's model against its two measurements, all from `steps_of`."""
    return [_outcome(case.name, name, first.loc[[name]], second.loc[[name]], model.loc[[name]]) for name in strategies]


def _outcome(case: str, strategy: str, first: pd.DataFrame, second: pd.DataFrame, model: pd.DataFrame) -> Outcome:
    appends = first["num_tokens"] > 0
    of_steps = [frame["step_us"].reindex(first.index)[appends] for frame in (first, second, model)]
    means = [each.mean() for each in of_steps]
    return Outcome(
        case,
        strategy,
        measured_us=float(means[0] + means[1]) / 2,
        modelled_us=float(means[2]),
        error=_error(*(pd.Series([mean]) for mean in means)),
        noise=float(abs(means[1] - means[0]) / means[0]),
        step_error=_error(*of_steps),
        step_noise=float(((of_steps[1] - of_steps[0]).abs() / of_steps[0]).mean()),
        differences=differences(first, model),
    )


def _error(first: pd.Series, second: pd.Series, model: pd.Series) -> float:
    """Distance from each of two measurements as a share of it, the mean of both, and over steps."""
    return float(np.mean([((model - each).abs() / each).mean() for each in (first, second)]))


def differences(first: pd.DataFrame, model: pd.DataFrame) -> tuple[str, ...]:
    """Columns of bytes, slots and resizes in which a step differs."""
    if not first.index.equals(model.index):
        return ("steps",)
    together = ("iteration",) if not first["iteration"].equals(model["iteration"]) else OF_ALL
    return tuple(
        name for name in (*OF_REQUEST, *together) if name != "iteration" and not first[name].equals(model[name])
    )
