"""What one run of a benchmark reports, whichever wrote it, and the measurement that it makes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.calibration.validation.points import (
    ServingPoint,
    System,
    all_at_once,
    at_times,
    clients,
    kind_of,
    region_of,
)
from kvbench.workload.trace_columns import TraceColumns

SEED = 0
ENGINES = {"vllm": "vllm", "sglang": "sglang", "trt": "trtllm", "tensorrt": "trtllm"}
"""Engines by how benchmarks' words for them begin."""
STATISTICS, MEDIAN = ("mean", "p50", "p90", "p95", "p99"), "median"


@dataclass(frozen=True, kw_only=True, eq=False)
class Export:
    """One run.

    Args:
        what: its name in the file.
        model: as the file has it; "": it does not say.
        engine: the same.
        prompts: tokens, of each request that ended; of one alone where only the mean is told.
        outputs: the same.
        number: requests that ended.
        reported: figures by kind, seconds or a rate; > 0.
        concurrency: clients, at most so many requests at once; None: no bound, or not said.
        rate: requests a second; inf: all at once; None: not said.
        burstiness: shape of the gaps between arrivals: 1 are a Poisson process's, inf even ones.
        starts_s: when each was sent, ascending; None: not said.
        by_request: times by measure, of each; {}: not said.
        left_out: what of it is not told, and why.
    """

    what: str
    model: str = ""
    engine: str = ""
    prompts: NDArray[np.int64]
    outputs: NDArray[np.int64]
    number: int
    reported: Mapping[str, float]
    concurrency: int | None = None
    rate: float | None = None
    burstiness: float = 1.0
    starts_s: NDArray[np.float64] | None = None
    by_request: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def said(self, concurrency: int | None, rate: float | None) -> "Export":
        """The same, with what is said beside the file."""
        return replace(
            self,
            concurrency=self.concurrency if concurrency is None else concurrency,
            rate=self.rate if rate is None else rate,
        )

    @property
    def point(self) -> ServingPoint:
        """The measurement.

        Raises:
            ValueError: how requests came is not said, or there are none.
        """
        if self.number < 1 or not self.reported:
            raise ValueError("it reports no request that ended, or no figure of them")
        if (self.prompts < 1).any() or (self.outputs < 1).any():
            raise ValueError("it has requests without a token of prompt or answer")
        columns, how = self._columns()
        replays = self.starts_s is not None and columns.num_clients is None
        return ServingPoint(
            what=f"{self.what}: {self.number:,} requests, {how}",
            region=region_of(columns),
            system=System(model=self.model, engine=self.engine),
            columns=columns,
            reported=self.reported,
            by_request=self.by_request if replays else None,
        )

    def _columns(self) -> tuple[TraceColumns, str]:
        if self.concurrency is not None and not self._is_open:
            return clients(self.prompts, self.outputs, self.concurrency, self.number), f"{self.concurrency:,} at once"
        if self.starts_s is not None:
            return at_times(self.starts_s, self.prompts, self.outputs), "as they were sent"
        if self.rate is None:
            raise ValueError("how requests came is not said: give concurrency=NUMBER, or rate=REQUESTS_A_SECOND")
        prompts, outputs = np.resize(self.prompts, self.number), np.resize(self.outputs, self.number)
        if math.isinf(self.rate):
            return all_at_once(prompts, outputs, self.number), "all at once"
        times_s = _times_s(self.number, self.rate, self.burstiness)
        return at_times(times_s, prompts, outputs), f"{self.rate:g} a second"

    @property
    def _is_open(self) -> bool:
        """Whether requests come at a rate at which fewer are under way than there may be."""
        if self.rate is None or math.isinf(self.rate):
            return False
        tokens = float(self.outputs.mean())
        latency = self.reported.get("latency", self.reported.get("ttft", 0.0) + self.reported.get("tpot", 0.0) * tokens)
        assert self.concurrency is not None
        return self.rate * latency < self.concurrency


def _times_s(number: int, rate: float, burstiness: float) -> NDArray[np.float64]:
    """Arrivals at a rate, drawn, and as long in all as so many requests take at it."""
    if math.isinf(burstiness):
        return np.asarray(np.arange(number) / rate, np.float64)
    found = np.cumsum(np.random.default_rng(SEED).gamma(burstiness, size=number))
    return np.asarray((found - found[0]) * (number / rate / found[-1]), np.float64)


def engine_of(word: object) -> str:
    """The engine that a benchmark's word for a server means; "" where it means none."""
    text = str(word or "").lower()
    return next((engine for begins, engine in ENGINES.items() if text.startswith(begins)), "")


def reported_of(found: Mapping[str, Mapping[str, Any]], scale: float) -> dict[str, float]:
    """Figures by kind, from statistics by measure.

    Args:
        found: by measure, statistics by name: mean, median, p50, p90, p95, p99.
        scale: what values are multiplied by to be seconds.
    """
    values = {
        kind_of(measure, "p50" if name == MEDIAN else name): value
        for measure, statistics in found.items()
        for name, value in statistics.items()
        if name in (*STATISTICS, MEDIAN)
    }
    return {
        kind: float(value) * scale
        for kind, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value) and value > 0
    }
