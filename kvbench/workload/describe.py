"""A workload in numbers: what it holds, when it comes, and how much of it would be live at once."""

import heapq

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_number
from kvbench.workload.columns import history_of
from kvbench.workload.contents import NONE
from kvbench.workload.histories import Counts
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns


def describe(columns: TraceColumns, num_available: int | None = None) -> dict[str, int | float | None]:
    """Summarise a workload.

    Prompt tokens of a session are those that its prompts add to what it had said before, output tokens all decoded,
    total tokens their sum. Percentiles are those of the workload itself, which is known whole, not estimates.

    Args:
        columns: at least one request, with arrivals.
        num_available: sessions that there were to choose from; None: these.
    Returns:
        Plain numbers: `num_sessions`, `num_available` of them, `num_requests` (turns), `duration_s` (last − first
        arrival), `arrival_rate_per_s` ((sessions − 1) ÷ duration), `gap_cv` (standard deviation ÷ mean of the gaps
        between arrivals), and sum, min, median, mean, p90 and max of `turns`, `prompt_tokens`, `output_tokens` and
        `total_tokens`, as `prompt_tokens_mean`. Rate and cv are None where no time passes between arrivals.
        `whole_prompt_tokens` are those of all prompts with their histories. `repeated_prompt_share` is, of these,
        the share that was in a prompt or an answer before: what a cache that keeps everything would find.
        `shared_prefix_share` is the same of sessions' first prompts alone: what they share with other sessions.
    Raises:
        ValueError: there are no requests.
    """
    if not columns.num_requests:
        raise ValueError("a workload to describe has at least 1 session, got none")
    own = columns.session_numbers
    firsts = _firsts(columns)
    arrivals_s = session_starts_ns(columns) / NS_PER_S
    gaps_s = np.diff(arrivals_s)
    duration_s = float(arrivals_s[-1] - arrivals_s[0])
    prompts, outputs = session_tokens(columns)
    whole = int(columns.num_prompt_tokens.sum())
    return {
        "num_sessions": firsts.size,
        "num_available": firsts.size if num_available is None else num_available,
        "num_requests": columns.num_requests,
        "duration_s": duration_s,
        "arrival_rate_per_s": gaps_s.size / duration_s if duration_s > 0 else None,
        "gap_cv": float(gaps_s.std() / gaps_s.mean()) if duration_s > 0 else None,
        **_summary("turns", np.bincount(own)),
        **_summary("prompt_tokens", prompts),
        **_summary("output_tokens", outputs),
        **_summary("total_tokens", prompts + outputs),
        "whole_prompt_tokens": whole,
        "repeated_prompt_share": 1 - int(_added(columns, np.zeros_like(own))[0]) / whole,
        "shared_prefix_share": _shared_prefix_share(columns, firsts),
    }


def session_starts_ns(columns: TraceColumns) -> Counts:
    """When each session arrives."""
    return columns.arrivals_ns[_firsts(columns)]


def session_tokens(columns: TraceColumns) -> tuple[Counts, Counts]:
    """Of each session, the tokens that its prompts add to what it had said before, and those of its answers."""
    own = columns.session_numbers
    return _added(columns, own), np.bincount(own, columns.num_output_tokens).astype(np.int64)


def turn_tokens(columns: TraceColumns) -> Counts:
    """Tokens that each prompt adds to the prompt and the answer that it follows; all of them, where it follows none."""
    before = history_of(columns)
    ends = columns.num_prompt_tokens + columns.num_output_tokens
    return columns.num_prompt_tokens - np.where(before == NONE, 0, ends[before])


def _firsts(columns: TraceColumns) -> Counts:
    """The first request of each session."""
    return np.unique(columns.session_numbers, return_index=True)[1]


def _added(columns: TraceColumns, groups: Counts) -> Counts:
    """Tokens of the prompts of each group that none of its prompts and answers had before."""
    if columns.contents is None:
        return np.bincount(groups, columns.num_prompt_tokens).astype(np.int64)
    stretches = np.concatenate([columns.contents.prompts, columns.contents.answers])
    outputs = np.bincount(groups, columns.num_output_tokens).astype(np.int64)
    return columns.contents.num_distinct_tokens(stretches, np.tile(groups, 2)) - outputs


def _shared_prefix_share(columns: TraceColumns, firsts: Counts) -> float:
    if columns.contents is None:
        return 0.0
    prompts = columns.contents.prompts[firsts]
    apart = columns.contents.num_distinct_tokens(prompts, np.zeros_like(firsts))
    return 1 - int(apart[0]) / int(columns.num_prompt_tokens[firsts].sum())


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
    columns: TraceColumns, tokens_per_s: float, most: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count the sessions that would be live over time if none had to wait for memory: the demand, not a measurement.

    A session is live from its arrival, or from when it has a place, to the end of its last turn, where each turn takes
    (decoded tokens ÷ tokens_per_s) from its think time after the last that it follows; prompts cost nothing.

    Args:
        columns: the requests, with arrivals.
        tokens_per_s: tokens that each request decodes a second, > 0.
        most: places, taken in the order of arrival, > 0; None: one for each.
    Returns:
        Times in seconds, increasing, and the number of sessions live from each time on: steps for a chart.
    Raises:
        ValueError: tokens_per_s is not a positive number.
    """
    check_number("tokens_per_s", tokens_per_s, 0, above=True)
    own = columns.session_numbers
    starts_s = session_starts_ns(columns) / NS_PER_S
    lasts_s = np.zeros(starts_s.size)
    np.maximum.at(lasts_s, own, _ends_s(columns, tokens_per_s) - starts_s[own])
    if most is not None:
        starts_s = _placed(starts_s, lasts_s, most)
    ends_s = starts_s + lasts_s
    times_s, place = np.unique(np.concatenate([starts_s, ends_s]), return_inverse=True)
    changes = np.zeros(times_s.size, dtype=np.int64)
    np.add.at(changes, place, np.repeat([1, -1], starts_s.size))
    return times_s, np.cumsum(changes)


def _ends_s(columns: TraceColumns, tokens_per_s: float) -> NDArray[np.float64]:
    """When each turn ends if it takes no more than its decoding."""
    ends_s = columns.arrivals_ns / NS_PER_S + columns.num_output_tokens / tokens_per_s
    if columns.parents is None or columns.parent_offsets is None:
        return ends_s
    think_s = 0 if columns.think_ns is None else columns.think_ns / NS_PER_S
    lasts_s = columns.num_output_tokens / tokens_per_s + think_s
    parents, offsets = columns.parents, columns.parent_offsets
    for row in np.flatnonzero(np.diff(offsets)).tolist():
        ends_s[row] = max(ends_s[row], ends_s[parents[offsets[row] : offsets[row + 1]]].max() + lasts_s[row])
    return ends_s


def _placed(arrivals_s: NDArray[np.float64], lasts_s: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """When each has one of so many places, in the order of arrival."""
    free_s, starts_s = [0.0] * most, arrivals_s.copy()
    for at in np.argsort(arrivals_s, kind="stable"):
        starts_s[at] = max(arrivals_s[at], heapq.heappop(free_s))
        heapq.heappush(free_s, starts_s[at] + lasts_s[at])
    return starts_s
