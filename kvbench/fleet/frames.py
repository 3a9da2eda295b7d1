"""From a fleet simulation's columns to frames: a row a strategy, a row a request, and a row a stretch of time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.fleet.histogram import SampleList
from kvbench.fleet.sums import Objective, RequestSums, RequestTimes
from kvbench.results.intervals import of_row
from kvbench.results.results import Results
from kvbench.results.schema import REQUESTS, STEPS, SUMMARY, TIMELINE, WITH_INTERVAL
from kvbench.workload.request import NS_PER_S

ENGINE = "fleet"
_NOT_KEPT = ("peak_bytes",)
"""Columns of a request that the simulation has no use for; each is a session of one turn."""


class BytesOverTime(NamedTuple):
    """What was the case over time: columns of one length, a value a stretch, all stretches equally long.

    Args:
        time_ns: starts of the stretches, from the run's start.
        used_bytes: slots that hold tokens, as all that follow averaged over the stretch, of all replicas together.
        reserved_bytes: allocated slots that tokens to come will fill.
        waste_bytes: allocated slots that no token will ever fill.
        external_bytes: free and not usable while a request waits for memory.
        allocated_bytes: used, reserved and waste together.
        num_live: requests live.
        num_waiting: requests that have arrived and are not live.
        used_max_bytes: the most at any time in the stretch, as those that follow; of replicas, the sum of each one's.
        allocated_max_bytes: of allocated slots.
        live_max: of requests live.
        waiting_max: of requests that have arrived and are not live.
    """

    time_ns: np.ndarray
    used_bytes: np.ndarray
    reserved_bytes: np.ndarray
    waste_bytes: np.ndarray
    external_bytes: np.ndarray
    allocated_bytes: np.ndarray
    num_live: np.ndarray
    num_waiting: np.ndarray
    used_max_bytes: np.ndarray
    allocated_max_bytes: np.ndarray
    live_max: np.ndarray
    waiting_max: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FleetColumns:
    """What the simulation of one strategy leaves: columns a request, sums, integrals over time, and a timeline.

    Moments are nanoseconds from the run's start, -1 where they never came. An integral is bytes times nanoseconds, of
    all replicas; NaN where memory was not split so far.

    Args:
        arrival_ns: [num_requests] arrivals.
        prompt_tokens: [num_requests] tokens appended at once.
        output_tokens: [num_requests] tokens generated.
        admitted_ns: [num_requests] first admissions.
        first_token_ns: [num_requests] when the first output token was out.
        finish_ns: [num_requests] when the request ended: where it completed, its last output token was out.
        num_preemptions: [num_requests] times that it gave its memory back.
        outcome: [num_requests] codes.
        held_tokens: [num_requests] tokens that its cache had been given at the end.
        outcomes: the codes' names.
        busy_ns: time of all iterations, of all replicas.
        live_ns: requests live times that time.
        num_iterations: passes over the live requests, of all replicas.
        recomputed_tokens: tokens computed again after preemptions.
        peak_bytes: the most bytes held at any time.
        available_bytes: what caches may hold together, of all replicas.
        used_byte_ns: integral of slots that hold tokens.
        reserved_byte_ns: of allocated slots that tokens to come will fill.
        waste_byte_ns: of allocated slots that no token will ever fill.
        external_byte_ns: of what is free and not usable while a request waits for memory.
        allocated_byte_ns: of allocated slots.
        timeline: the same and more over time; None where it was not kept.
        sums: of requests whose columns were not kept, under the objective of the frames; None: of those above.
        about: further columns of the summary, such as lossless, num_resizes, copied_bytes, moved_bytes, pool_bytes.
    Raises:
        ValueError: columns differ in length, or `about` names what is no column of the summary.
    """

    arrival_ns: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    admitted_ns: np.ndarray
    first_token_ns: np.ndarray
    finish_ns: np.ndarray
    num_preemptions: np.ndarray
    outcome: np.ndarray
    held_tokens: np.ndarray
    outcomes: tuple[str, ...]
    busy_ns: int
    live_ns: float
    num_iterations: int
    recomputed_tokens: int
    peak_bytes: int
    available_bytes: int
    used_byte_ns: float
    reserved_byte_ns: float
    waste_byte_ns: float
    external_byte_ns: float
    allocated_byte_ns: float
    timeline: BytesOverTime | None = None
    sums: RequestSums | None = None
    about: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"a request has a value in each column, got {lengths}")
        unknown = [name for name in self.about if name not in SUMMARY]
        if unknown:
            raise ValueError(f"about names columns of the summary, got {', '.join(unknown)}")


def fleet_frames(runs: Mapping[str, FleetColumns], scenario: str, objective: Objective) -> Results:
    """What is left of a scenario's simulations.

    Args:
        runs: by strategy.
        scenario: its name.
        objective: what goodput counts.
    """
    summaries, requests, timelines = [], [], []
    names = list(runs)
    for code, (name, run) in enumerate(runs.items()):
        sums = run.sums or RequestSums(run.outcomes, objective, SampleList)
        times = sums.times(run) if run.sums else sums.add(run)
        summaries.append(_summary_row(name, run, sums, scenario, objective))
        requests.append(_requests(run, times).assign(strategy=_named(code, len(times.ttft_s), names)))
        if run.timeline is not None:
            size = len(run.timeline.time_ns)
            timelines.append(_timeline(run.timeline).assign(strategy=_named(code, size, names)))
    kept = [name for name in REQUESTS if name not in _NOT_KEPT]
    over_time = pd.concat(timelines, ignore_index=True) if timelines else pd.DataFrame(columns=list(TIMELINE))
    return Results(
        summary=pd.DataFrame(summaries).reindex(columns=list(SUMMARY)),
        requests=pd.concat(requests, ignore_index=True)[kept],
        steps=pd.DataFrame(columns=list(STEPS)),
        timeline=over_time[list(TIMELINE)],
    )


def _named(code: int, size: int, names: list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(np.full(size, code, dtype=np.int8), categories=names)


def _requests(run: FleetColumns, times: RequestTimes) -> pd.DataFrame:
    num_requests = len(run.arrival_ns)
    return pd.DataFrame(
        {
            "repetition": np.zeros(num_requests, dtype=np.int8),
            "warmup": np.zeros(num_requests, dtype=bool),
            "session": np.arange(num_requests),
            "turn": np.zeros(num_requests, dtype=np.int64),
            "outcome": pd.Categorical.from_codes(run.outcome.astype(np.int8), categories=list(run.outcomes)),
            "arrival_s": run.arrival_ns / NS_PER_S,
            "prompt_tokens": run.prompt_tokens,
            "output_tokens": run.output_tokens,
            "held_tokens": run.held_tokens,
            "num_preemptions": run.num_preemptions,
            "queue_s": times.queue_s,
            "ttft_s": times.ttft_s,
            "tpot_s": times.tpot_s,
            "latency_s": times.latency_s,
        }
    )


def _timeline(timeline: BytesOverTime) -> pd.DataFrame:
    columns = timeline._asdict()
    return pd.DataFrame({"time_s": columns.pop("time_ns") / NS_PER_S, **columns})


def _summary_row(
    name: str, run: FleetColumns, sums: RequestSums, scenario: str, objective: Objective
) -> dict[str, object]:
    row = {"scenario": scenario, "strategy": name, "source": "modelled", "scope": "model", "engine": ENGINE}
    row |= _outcomes(run, sums) | _service(run, sums, objective) | _memory(run)
    row |= sums.latencies() | dict(run.about)
    return row | of_row(row, WITH_INTERVAL, {})


def _outcomes(run: FleetColumns, sums: RequestSums) -> dict[str, object]:
    num_requests = sums.num_requests
    failed = [
        f"{name} {count} of {num_requests}"
        for name, count in zip(sums.outcomes, sums.counts, strict=True)
        if count and name != "completed"
    ]
    return {
        "num_repetitions": 1,
        "num_sessions": num_requests,
        "num_requests": num_requests,
        "num_completed": sums.num_completed,
        "outcome": ", ".join(sorted(failed)) or "completed",
        "num_preemptions": sums.num_preemptions,
        "recomputed_tokens": run.recomputed_tokens,
        "num_iterations": run.num_iterations,
    }


def _service(run: FleetColumns, sums: RequestSums, objective: Objective) -> dict[str, float]:
    """Rates over the makespan, and how many requests met the objective."""
    makespan_s = sums.makespan_s
    return {
        "num_tokens": sums.num_tokens,
        "total_s": run.busy_ns / NS_PER_S,
        "makespan_s": makespan_s,
        "mean_batch": _ratio(run.live_ns, run.busy_ns),
        "tokens_per_s": _ratio(sums.num_tokens, makespan_s),
        "requests_per_s": _ratio(sums.num_completed, makespan_s),
        "goodput_per_s": _ratio(sums.num_within, makespan_s),
        "attained_share": _ratio(sums.num_within, sums.num_requests),
        "ttft_objective_s": objective.ttft_s if math.isfinite(objective.ttft_s) else math.nan,
        "tpot_objective_s": objective.tpot_s if math.isfinite(objective.tpot_s) else math.nan,
    }


def _memory(run: FleetColumns) -> dict[str, float]:
    return {
        "peak_bytes": run.peak_bytes,
        "available_bytes": run.available_bytes,
        "utilization_mean": _ratio(run.used_byte_ns, run.allocated_byte_ns),
        "reserved_share": _ratio(run.reserved_byte_ns, run.allocated_byte_ns),
        "waste_share": _ratio(run.waste_byte_ns, run.allocated_byte_ns),
        "external_share": _ratio(run.external_byte_ns, run.allocated_byte_ns + run.external_byte_ns),
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
