"""A sweep: a manifest of points, each a run of its own, and what they leave joined to one."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from kvbench.backend.base import Backend
from kvbench.results.columns import REQUESTS, STEPS
from kvbench.results.results import Results
from kvbench.results.schema import SUMMARY
from kvbench.runner.frames import results_of
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session

OWN_COLUMNS = ("strategy", "scenario")
"""What may be swept, and the rows name already."""
FRAMES: dict[str, Iterable[str]] = {
    "summary": SUMMARY,
    "requests": REQUESTS,
    "steps": STEPS,
    "timeline": (),
    "replays": (),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep.

    Args:
        scenario: what its requests are called.
        sessions: the requests, in order of arrival.
        strategies: by name; all see the same requests, their repetitions interleaved.
        max_concurrency: sessions live at once, > 0.
        values: what else tells this point from others, by name: columns of the joined rows.
    """

    scenario: str
    sessions: Sequence[Session]
    strategies: Mapping[str, Strategy]
    max_concurrency: int = 1
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one repetition, over all strategies."""
        return len(self.strategies) * sum(session.num_tokens for session in self.sessions)

    def run(
        self,
        backend: Backend,
        *,
        num_repetitions: int,
        num_warmup: int,
        budget_bytes: int | None,
        on_iteration: Callable[[str, int, int], None] | None = None,
    ) -> Results:
        """Run it; its environment names its scenario. See `runner.run`."""
        recorder = run(
            self.strategies,
            self.sessions,
            backend,
            num_repetitions=num_repetitions,
            num_warmup=num_warmup,
            max_concurrency=self.max_concurrency,
            budget_bytes=budget_bytes,
            on_iteration=on_iteration,
        )
        results = results_of(recorder, self.sessions, backend, self.scenario)
        return replace(results, environment={"scenario": self.scenario})


def joined(jobs: Sequence[Results], values: Sequence[Mapping[str, object]]) -> Results:
    """One `Results` of several, their rows told apart by the scenario and by what was swept.

    Args:
        jobs: in order.
        values: of what was swept, a mapping a job: columns of its rows.
    Returns:
        The frames; without a job, empty ones.
    """
    frames: dict[str, pd.DataFrame] = {}
    for name, columns in FRAMES.items():
        told = [_told_apart(name, job, own) for job, own in zip(jobs, values, strict=True)]
        frames[name] = _rows(told) if told else pd.DataFrame(columns=list(columns))
    summary, requests, steps, timeline, replays = (frames[name] for name in FRAMES)
    return Results(
        summary=summary,
        requests=requests,
        steps=steps,
        timeline=timeline if len(timeline) else None,
        replays=replays if len(replays) else None,
    )


def swept_values(overrides: Iterable[str], parameters: Iterable[str]) -> dict[str, object]:
    """A job's values of the swept parameters that its rows do not name already.

    Args:
        overrides: the job's, each as key=value.
        parameters: keys of what was swept.
    """
    pairs = (str(line).partition("=")[::2] for line in overrides)
    given = {key.lstrip("+"): _number(value) for key, value in pairs}
    return {key: given.get(key) for key in parameters if key not in OWN_COLUMNS}


def _number(text: str) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _told_apart(name: str, job: Results, values: Mapping[str, Any]) -> pd.DataFrame:
    """A job's rows of one frame with what tells them apart. A study's name their own scenario, as each summary does.

    Words are kept as categories where rows are many: a fleet's job may have one for each of millions of requests.
    """
    frame: pd.DataFrame | None = getattr(job, name)
    if frame is None:
        return pd.DataFrame()
    if name == "summary":
        return frame.assign(**values)
    told = ({"scenario": job.environment["scenario"]} if "scenario" in job.environment else {}) | dict(values)
    nothing = np.zeros(len(frame), dtype=np.int8)
    for key, value in told.items():
        told[key] = pd.Categorical.from_codes(nothing, pd.Index([value])) if isinstance(value, str) else value
    return frame.assign(**told, strategy=frame["strategy"].astype("category"))


def _rows(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all frames; a column that is of categories in each stays so. Frames without rows say nothing."""
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    words = [str(name) for name in frames[0] if all(_is_words(frame.get(name)) for frame in frames)]
    categories = {name: union_categoricals([frame[name] for frame in frames]) for name in words}
    together = pd.concat([frame.drop(columns=words) for frame in frames], ignore_index=True)
    return together.assign(**categories)[[*frames[0], *(name for name in together if name not in frames[0])]]


def _is_words(column: pd.Series | None) -> bool:
    return column is not None and isinstance(column.dtype, pd.CategoricalDtype)
