"""What a summary says of a fleet's requests, summed up as they end."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kvbench.fleet.histogram import Histogram, SampleList
from kvbench.fleet.result import Served
from kvbench.results.schema import STATISTICS, latency_column
from kvbench.workload.request import NS_PER_S


class Objective(NamedTuple):
    """The service objective: the most TTFT and TPOT, in seconds; infinity for any."""

    ttft_s: float
    tpot_s: float


class RequestTimes(NamedTuple):
    """Of each request, in seconds, NaN where it has none."""

    queue_s: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    latency_s: np.ndarray


def _after(moment_ns: np.ndarray, start_ns: np.ndarray) -> np.ndarray:
    """Seconds from a moment to another; NaN where either never came."""
    both = (moment_ns | start_ns) >= 0  # -1 is of what never was
    return np.where(both, (moment_ns - start_ns) / NS_PER_S, np.nan)


class RequestSums:
    """Counts, tokens and times of requests.

    Args:
        outcomes: names of outcomes, by code.
        objective: what goodput counts.
        kept: how times are kept: SampleList, for exact percentiles, or Histogram, in memory that is bounded.
    """

    def __init__(
        self, outcomes: Sequence[str], objective: Objective, kept: Callable[[], SampleList | Histogram] = Histogram
    ) -> None:
        self.outcomes = tuple(outcomes)
        self.counts = np.zeros(len(outcomes), np.int64)
        """Requests by outcome."""
        self.num_sessions = self.num_preemptions = self.num_tokens = self.num_within = 0
        self._first_ns, self._last_ns = math.inf, -math.inf
        self.objective = objective
        self._times = {name: kept() for name in ("ttft", "tpot", "latency", "queue")}

    def times(self, ended: Served) -> RequestTimes:
        """Times from moments. TPOT is that of a completed request whose last output token is not its first."""
        gaps = np.maximum(ended.output_tokens - 1, 0)
        spaced = _after(ended.finish_ns, ended.first_token_ns)
        with np.errstate(divide="ignore", invalid="ignore"):
            tpot_s = np.where(self._completed(ended) & (gaps > 0), spaced / gaps, np.nan)
        return RequestTimes(
            queue_s=_after(ended.admitted_ns, ended.arrival_ns),
            ttft_s=_after(ended.first_token_ns, ended.arrival_ns),
            tpot_s=tpot_s,
            latency_s=_after(ended.finish_ns, ended.arrival_ns),
        )

    def add(self, ended: Served) -> RequestTimes:
        """Add requests, at least one; their times."""
        completed, times = self._completed(ended), self.times(ended)
        self.counts += np.bincount(ended.outcome, minlength=len(self.outcomes))
        self.num_sessions += int((ended.turn == 0).sum())
        self.num_preemptions += int(ended.num_preemptions.sum())
        self.num_tokens += int((ended.prompt_tokens + ended.output_tokens)[completed].sum())
        within = completed & ~(times.ttft_s > self.objective.ttft_s) & ~(times.tpot_s > self.objective.tpot_s)
        self.num_within += int(within.sum())
        self._first_ns = min(self._first_ns, int(ended.arrival_ns.min()))
        self._last_ns = max(self._last_ns, int(ended.finish_ns.max()))
        for name, kept in self._times.items():
            values = getattr(times, f"{name}_s")[slice(None) if name == "queue" else completed]
            kept.add(values[~np.isnan(values)])
        return times

    def _completed(self, ended: Served) -> np.ndarray:
        completed: np.ndarray = ended.outcome == self.outcomes.index("completed")
        return completed

    @property
    def num_requests(self) -> int:
        """All that were added."""
        return int(self.counts.sum())

    @property
    def num_completed(self) -> int:
        """Those that completed."""
        return int(self.counts[self.outcomes.index("completed")])

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the last end."""
        return (self._last_ns - self._first_ns) / NS_PER_S

    def latencies(self) -> dict[str, float]:
        """Columns of the summary: statistics of all times."""
        return {
            latency_column(latency, name): kept.statistic(name)
            for latency, kept in self._times.items()
            for name in STATISTICS
        }
