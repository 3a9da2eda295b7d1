"""What the ledger counts of a strategy on requests, one at a time."""

from collections.abc import Mapping, Sequence

import pandas as pd

from kvbench.backend.counted import Counted
from kvbench.model.geometry import KVGeometry
from kvbench.runner.frames import frames_of
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


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
