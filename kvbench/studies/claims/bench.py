"""What claims are measured with: counts, times, and the rows that they leave behind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from kvbench.backend.base import Backend
from kvbench.backend.counted import CountedBackend
from kvbench.decide.sweep import Point
from kvbench.model.geometry import KVGeometry
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Setting
from kvbench.workload.request import Session


class ClaimsBench:
    """Counts under the model's geometry; times on fewer heads, since cache and attention cost in proportion to them.

    Args:
        setting: what the configuration gives.
        timed_heads: KV heads of the model in timed runs, at most the model's own, > 0.
        workloads: the article's lists of appends, by name.
    """

    def __init__(self, setting: Setting, timed_heads: int, workloads: Mapping[str, tuple[int, ...]]) -> None:
        self.setting = setting
        self.workloads = workloads
        self.geometry: KVGeometry = setting.backend.geometry
        self.num_heads = min(timed_heads, self.geometry.plain.num_kv_heads)
        self._timed_backend: Backend | None = None
        self.requests: list[pd.DataFrame] = []
        self.steps: list[pd.DataFrame] = []

    @property
    def timed_backend(self) -> Backend:
        """The backend that times are taken on."""
        if self._timed_backend is None:
            thin = self.geometry.reshaped(num_kv_heads=self.num_heads)
            self._timed_backend = self.setting.backend_of(thin)
        return self._timed_backend

    @property
    def counting(self) -> Setting:
        """The setting without tensors: what is counted is exact, once, and its times mean nothing."""
        return replace(
            self.setting,
            backend=CountedBackend(self.geometry),
            num_repetitions=1,
            num_warmup=0,
            budget_bytes=None,
            on_iteration=None,
        )

    def count(self, strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> pd.DataFrame:
        """A summary by strategy without times, exact, with final_bytes and whole_peak_bytes."""
        results = self._counted(strategies, sessions)
        own = [results.steps[results.steps["strategy"] == name] for name in results.summary["strategy"]]
        summary = results.summary.assign(
            final_bytes=[_final_bytes(steps) for steps in own],
            whole_peak_bytes=[whole_peak_bytes(steps) for steps in own],
        )
        return summary.set_index("strategy", drop=False)

    def count_steps(self, strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> pd.DataFrame:
        """The steps of the same."""
        return self._counted(strategies, sessions).steps

    def _counted(self, strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> Results:
        return self.counting.run([Point(scenario="counted", sessions=sessions, strategies=strategies)])

    def time(
        self,
        name: str,
        strategies: Mapping[str, Strategy],
        sessions: Sequence[Session],
        max_concurrency: int = 1,
        backend: Backend | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Measure strategies on sessions; rows are kept under a name.

        Args:
            name: the claim and what was run, such as "C9 short chat".
            strategies: by name.
            sessions: in order of arrival.
            max_concurrency: sessions live at once.
            backend: where; None for that of few heads.
        Returns:
            The summary by strategy, and the steps without warm-up.
        """
        point = Point(scenario=name, sessions=sessions, strategies=strategies, max_concurrency=max_concurrency)
        results = self.setting.run([point], backend or self.timed_backend)
        self.keep(name, results)
        return results.summary.set_index("strategy", drop=False), results.steps[~results.steps["warmup"]]

    def keep(self, name: str, results: Results) -> None:
        """Keep rows of a timed run under a name, for the results folder."""
        for kept, frame in ((self.requests, results.requests), (self.steps, results.steps)):
            kept.append(frame.assign(part=name, strategy=frame["strategy"].astype(str)))


def tokens_of(strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> int:
    """Tokens that one repetition appends, over all strategies."""
    return len(strategies) * sum(session.num_tokens for session in sessions)


def _final_bytes(steps: pd.DataFrame) -> float:
    done = steps[steps["num_tokens"] > 0]
    return float(done["allocated_bytes"].iloc[-1]) if len(done) else float("nan")


def whole_peak_bytes(steps: pd.DataFrame) -> float:
    """The peak if each resize held its whole old buffer beside the whole new one.

    Args:
        steps: of one strategy with one resize a step at most, and one request.
    """
    after = steps["allocated_bytes"]
    before = after.shift(fill_value=0)
    return float((after + before.where(steps["num_resizes"] > 0, 0)).max())
