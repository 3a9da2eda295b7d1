"""What claims are measured with: counts, times, and the rows that they leave behind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from kvbench.backend.base import Backend
from kvbench.model.geometry import KVGeometry
from kvbench.runner.frames import frames_of
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Setting
from kvbench.studies.claims.counts import counted
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
        self.num_heads = min(timed_heads, self.geometry.num_kv_heads)
        self._timed_backend: Backend | None = None
        self.requests: list[pd.DataFrame] = []
        self.steps: list[pd.DataFrame] = []

    @property
    def timed_backend(self) -> Backend:
        """The backend that times are taken on."""
        if self._timed_backend is None:
            group = self.geometry.num_heads // self.geometry.num_kv_heads
            thin = replace(self.geometry, num_heads=group * self.num_heads, num_kv_heads=self.num_heads)
            self._timed_backend = self.setting.backend_of(thin)
        return self._timed_backend

    def count(self, strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> pd.DataFrame:
        """A summary by strategy without times, exact, with final_bytes and whole_peak_bytes."""
        return counted(strategies, sessions, self.geometry)[0]

    def count_steps(self, strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> pd.DataFrame:
        """The steps of the same."""
        return counted(strategies, sessions, self.geometry)[1]

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
        setting, backend = self.setting, backend or self.timed_backend
        recorder = run(
            strategies,
            sessions,
            backend,
            num_repetitions=setting.num_repetitions,
            num_warmup=setting.num_warmup,
            max_concurrency=max_concurrency,
            budget_bytes=setting.budget_bytes,
            on_iteration=setting.on_iteration,
        )
        summary, by_request, steps = frames_of(recorder, sessions, backend, name)
        self.keep(name, by_request, steps)
        return summary.set_index("strategy", drop=False), steps[~steps["warmup"]]

    def keep(self, name: str, requests: pd.DataFrame, steps: pd.DataFrame) -> None:
        """Keep rows of a timed run under a name, for the results folder."""
        self.requests.append(requests.assign(part=name, strategy=requests["strategy"].astype(str)))
        self.steps.append(steps.assign(part=name, strategy=steps["strategy"].astype(str)))


def tokens_of(strategies: Mapping[str, Strategy], sessions: Sequence[Session]) -> int:
    """Tokens that one repetition appends, over all strategies."""
    return len(strategies) * sum(session.num_tokens for session in sessions)
