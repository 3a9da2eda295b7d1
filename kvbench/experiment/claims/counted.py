"""Counts without tensors: strategies and ledger do what they always do, and nothing is carried out."""

from collections.abc import Mapping, Sequence
from time import perf_counter_ns

import pandas as pd

from kvbench.area import Area
from kvbench.backend.base import NO_TIMES, Times
from kvbench.frames import frames_of
from kvbench.geometry import KVGeometry
from kvbench.ops import Plan
from kvbench.runner import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


class Counted:
    """A backend that carries nothing out: what the ledger books is exact, and times are none.

    Args:
        geometry: the shape of a token's K and V.
    """

    source, scope, num_rows = "counted", "cache", 1
    signals: tuple[str, ...] = ()
    is_repeatable = True
    hardware = None
    now_ns = staticmethod(perf_counter_ns)

    def __init__(self, geometry: KVGeometry) -> None:
        self.geometry = geometry

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token."""
        return self.geometry.bytes_per_token

    def memory_bytes(self) -> int:
        """As much as there is a number for."""
        return 2**62

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """No inputs are needed."""

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Nothing is held."""

    def begin_iteration(self) -> None:
        """Nothing is shared by a pass."""

    def check(self, plan: Plan) -> Times:
        """Nothing is waited for."""
        return NO_TIMES

    def end_repetition(self) -> None:
        """Nothing is held."""

    def open(self, seq: int) -> None:
        """Nothing is held."""

    def step(self, plan: Plan, seq: int, num_queries: int, continued: bool = False) -> Times:
        """Carry nothing out."""
        return NO_TIMES

    def drain(self) -> list[Times] | None:
        """No time is late."""
        return None

    def allocator_peaks(self) -> dict[str, int]:
        """There is no allocator."""
        return {}

    def describe(self) -> dict[str, object]:
        """There is no device."""
        return {"device": "none", "device_name": "counted", "attention": "off"}


def counted(
    strategies: Mapping[str, Strategy], sessions: Sequence[Session], geometry: KVGeometry
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run strategies on requests, one at a time, without tensors.

    Returns:
        The summary, by strategy, and its steps; their times mean nothing.
    """
    backend = Counted(geometry)
    recorder = run(strategies, sessions, backend, num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None)
    summary, _, steps = frames_of(recorder, sessions, backend, "counted")
    summary["final_bytes"] = [_final_bytes(_of(steps, name)) for name in summary["strategy"]]
    summary["whole_peak_bytes"] = [whole_peak_bytes(_of(steps, name)) for name in summary["strategy"]]
    return summary.set_index("strategy", drop=False), steps


def _of(steps: pd.DataFrame, strategy: str) -> pd.DataFrame:
    return steps[steps["strategy"] == strategy]


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
