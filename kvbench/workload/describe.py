"""A workload in numbers: what it holds, when it comes, and how much of it would be live at once."""

import heapq

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_number
from kvbench.workload.request import NS_PER_S
from kvbench.workload.scenario import Workload


def describe(workload: Workload) -> dict[str, int | float | None]:
    """Summarise a workload.

    Prompt tokens are all tokens of the prompts of a session's turns, output tokens all decoded, total tokens their
    sum. Percentiles are those of the workload itself, which is known whole, not estimates.

    Args:
        workload: at least one session.
    Returns:
        Plain numbers: `num_sessions`, `num_available` of them, `num_requests` (turns), `duration_s` (last − first
        arrival), `arrival_rate_per_s` ((sessions − 1) ÷ duration), `gap_cv` (standard deviation ÷ mean of the gaps
        between arrivals), and sum, min, median, mean, p90 and max of `turns`, `prompt_tokens`, `output_tokens` and
        `total_tokens`, as `prompt_tokens_mean`. Rate and cv are None where no time passes between arrivals.
    Raises:
        ValueError: the workload has no sessions.
    """
    sessions = workload.sessions
    if not sessions:
        raise ValueError("a workload to describe has at least 1 session, got none")
    arrivals_s = np.array([session.arrival_ns for session in sessions], dtype=np.float64) / NS_PER_S
    gaps_s = np.diff(arrivals_s)
    duration_s = float(arrivals_s[-1] - arrivals_s[0])
    prompts = np.array([session.num_prompt_tokens for session in sessions], dtype=np.int64)
    output = np.array([session.num_decode_tokens for session in sessions], dtype=np.int64)
    turns = np.array([len(session.turns) for session in sessions], dtype=np.int64)
    return {
        "num_sessions": len(sessions),
        "num_available": workload.num_available,
        "num_requests": int(turns.sum()),
        "duration_s": duration_s,
        "arrival_rate_per_s": gaps_s.size / duration_s if duration_s > 0 else None,
        "gap_cv": float(gaps_s.std() / gaps_s.mean()) if duration_s > 0 else None,
        **_summary("turns", turns),
        **_summary("prompt_tokens", prompts),
        **_summary("output_tokens", output),
        **_summary("total_tokens", prompts + output),
    }


def _summary(name: str, values: NDArray[np.int64]) -> dict[str, int | float]:
    return {
        f"{name}_sum": int(values.sum()),
        f"{name}_min": int(values.min()),
        f"{name}_median": float(np.median(values)),
        f"{name}_mean": float(values.mean()),
        f"{name}_p90": float(np.percentile(values, 90)),
        f"{name}_max": int(values.max()),
    }


def concurrency(
    workload: Workload, tokens_per_s: float, most: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count the requests that would be live over time if none had to wait for memory: the demand, not a measurement.

    A request is live from its arrival, or from when it has a place, for (decoded tokens ÷ tokens_per_s + its think
    times); prompts cost nothing.

    Args:
        workload: the requests.
        tokens_per_s: tokens that each request decodes a second, > 0.
        most: places, taken in the order of arrival, > 0; None: one for each.
    Returns:
        Times in seconds, increasing, and the number of requests live from each time on: steps for a chart.
    Raises:
        ValueError: tokens_per_s is not a positive number.
    """
    check_number("tokens_per_s", tokens_per_s, 0, above=True)
    starts_s = np.array([session.arrival_ns for session in workload.sessions], dtype=np.float64) / NS_PER_S
    think_ns = [sum(turn.think_ns for turn in session.turns) for session in workload.sessions]
    decoded = np.array([session.num_decode_tokens for session in workload.sessions], dtype=np.float64)
    lasts_s = decoded / tokens_per_s + np.array(think_ns, dtype=np.float64) / NS_PER_S
    if most is not None:
        starts_s = _placed(starts_s, lasts_s, most)
    ends_s = starts_s + lasts_s
    times_s, place = np.unique(np.concatenate([starts_s, ends_s]), return_inverse=True)
    changes = np.zeros(times_s.size, dtype=np.int64)
    np.add.at(changes, place, np.repeat([1, -1], starts_s.size))
    return times_s, np.cumsum(changes)


def _placed(arrivals_s: NDArray[np.float64], lasts_s: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """When each has one of so many places, in the order of arrival."""
    free_s, starts_s = [0.0] * most, arrivals_s.copy()
    for at in np.argsort(arrivals_s, kind="stable"):
        starts_s[at] = max(arrivals_s[at], heapq.heappop(free_s))
        heapq.heappush(free_s, starts_s[at] + lasts_s[at])
    return starts_s
