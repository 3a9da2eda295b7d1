"""From a fleet simulation's results to frames: a row a strategy, a row a request, and a row a stretch of time."""

import math
from collections.abc import Mapping, Sized
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.engine.tiers import BELOW
from kvbench.fleet.histogram import SampleList
from kvbench.fleet.hits import HITS, HitSums
from kvbench.fleet.replays import Replays
from kvbench.fleet.result import FleetResult, Served, wasted_bytes
from kvbench.fleet.state import ALLOCATED, BATCH, DURATION, NO_MEMORY, OUTCOMES, USED, WASTED
from kvbench.fleet.sums import Objective, RequestSums, RequestTimes
from kvbench.fleet.upkeep import Upkeep
from kvbench.results.columns import REQUESTS, STEPS
from kvbench.results.intervals import of_row
from kvbench.results.provenance import FLEET
from kvbench.results.results import Results
from kvbench.results.schema import REPLICAS, SUMMARY, TIMELINE, WITH_INTERVAL
from kvbench.timing.doubt import reaching
from kvbench.timing.prices import PS_PER_NS, PS_PER_S
from kvbench.workload.request import NS_PER_S

_NOT_KEPT = ("peak_bytes",)
"""Columns of a request that the simulation has no use for."""


class FleetRun(NamedTuple):
    """What became of the requests under one strategy.

    Args:
        result: of the simulation.
        facts: what the strategy is, by column of the summary.
        sums: of requests whose columns were not kept, under the objective of the frames; None: of the result's.
        replays: what figures were with other times of work.
        upkeep: what all accelerators take.
        hits: what was found, by turn and by tenant; None: nobody counted.
    """

    result: FleetResult
    facts: Mapping[str, object]
    sums: RequestSums | None = None
    replays: Replays = Replays()
    upkeep: Upkeep = Upkeep()
    hits: HitSums | None = None


def fleet_frames(runs: Mapping[str, FleetRun], scenario: str, objective: Objective) -> Results:
    """What is left of a scenario's simulations.

    Args:
        runs: by strategy.
        scenario: its name.
        objective: what goodput counts.
    Raises:
        ValueError: facts name what is no column of the summary.
    """
    summaries, requests, timelines, replicas = [], [], [], []
    replays: list[dict[str, object]] = []
    hits: list[dict[str, object]] = []
    names = list(runs)
    for code, (name, run) in enumerate(runs.items()):
        result, found = run.result, run.hits
        sums = run.sums or RequestSums(OUTCOMES, objective, SampleList)
        times = sums.times(result) if run.sums else sums.add(result)
        summaries.append(summary_row(name, run, scenario, sums))
        replays += [{"strategy": name, "replay": turn, **each} for turn, each in enumerate(run.replays.rows)]
        hits += [{"strategy": name, **each} for each in (() if found is None else found.rows())]
        requests.append(_requests(result, times, _named(code, len(times.ttft_s), names)))
        if result.by_replica.batch.size:
            own = _replicas(result)
            replicas.append(own.assign(strategy=_named(code, len(own), names)))
        timelines.append(_timeline(result).assign(strategy=_named(code, len(result.timeline.used), names)))
    return Results(
        summary=pd.DataFrame(summaries).reindex(columns=list(SUMMARY)),
        requests=pd.concat(requests, ignore_index=True) if len(requests) > 1 else requests[0],
        steps=pd.DataFrame(columns=list(STEPS)),
        timeline=pd.concat(timelines, ignore_index=True)[list(TIMELINE)],
        replicas=pd.concat(replicas, ignore_index=True)[list(REPLICAS)] if replicas else None,
        replays=pd.DataFrame(replays) if replays else None,
        tables={"hits": pd.DataFrame(hits)[list(HITS)]} if hits else {},
    )


def summary_row(name: str, run: FleetRun, scenario: str, sums: RequestSums) -> dict[str, object]:
    """A row of the summary, without what a fleet has no figure for.

    Args:
        name: the strategy's.
        run: what became of the requests.
        scenario: its name.
        sums: of all requests.
    Raises:
        ValueError: facts name what is no column of the summary.
    """
    result, again = run.result, run.replays
    if unknown := [column for column in run.facts if column not in SUMMARY]:
        raise ValueError(f"facts name columns of the summary, got {', '.join(unknown)}")
    row: dict[str, object] = {
        "scenario": scenario,
        "strategy": name,
        "source": "modelled",
        "scope": "model",
        "simulated_by": FLEET,
    }
    row |= _counts(result) | _outcomes(sums) | _service(result, sums, run.upkeep) | _memory(result)
    row |= _tiers(result, sums.makespan_s)
    row |= sums.latencies() | dict(run.facts)
    return row | of_row(row, WITH_INTERVAL, {}, again.values, again.drawn_from, reaching)


def figures_of(upkeep: Upkeep, result: FleetResult, sums: RequestSums) -> dict[str, float]:
    """The figures of the summary that have intervals."""
    found = _service(result, sums, upkeep) | sums.latencies()
    return {column: found[column] for column in WITH_INTERVAL if column in found}


def _named(code: int, size: int, names: list[str]) -> "pd.Categorical[str]":
    return pd.Categorical.from_codes(np.full(size, code, dtype=np.int8), categories=pd.Index(names))


def _requests(run: Served, times: RequestTimes, strategy: "pd.Categorical[str]") -> pd.DataFrame:
    """Rows by session and turn; what there is of millions is held once more, and no oftener."""
    num_requests = len(run.arrival_ns)
    columns = {
        "repetition": np.zeros(num_requests, dtype=np.int8),
        "warmup": np.zeros(num_requests, dtype=bool),
        "strategy": strategy,
        "session": run.session,
        "turn": run.turn,
        "outcome": pd.Categorical.from_codes(run.outcome.astype(np.int8), categories=pd.Index(OUTCOMES)),
        "arrival_s": run.arrival_ns / NS_PER_S,
        "prompt_tokens": run.prompt_tokens,
        "output_tokens": run.output_tokens,
        "held_tokens": run.held_tokens,
        "hit_tokens": run.hit_tokens,
        **{f"{tier}_tokens": _slim(getattr(run, f"{tier}_tokens")) for tier in BELOW},
        "load_wait_s": _slim(run.load_ps) / np.float32(PS_PER_S),
        "num_preemptions": run.num_preemptions,
        **times._asdict(),
    }
    if any(len(each) != num_requests for each in columns.values()):
        raise ValueError(f"columns of requests have the same length, {num_requests:,}; {_lengths(columns)}")
    order = np.lexsort((run.turn, run.session)) if run.turn.any() else np.arange(num_requests)
    kept = (name for name in REQUESTS if name not in _NOT_KEPT)
    return pd.DataFrame({name: columns.pop(name)[order] for name in kept}, copy=False)


def _lengths(columns: Mapping[str, Sized]) -> str:
    return "got " + ", ".join(f"{name} {len(each):,}" for name, each in columns.items())


def _timeline(result: FleetResult) -> pd.DataFrame:
    over = result.timeline
    return pd.DataFrame(
        {
            "time_s": np.arange(len(over.used)) * over.bin_ns / NS_PER_S,
            "used_bytes": over.used,
            "reserved_bytes": over.reserved,
            "waste_bytes": over.internal_waste,
            "external_bytes": over.blocked_free,
            "allocated_bytes": over.allocated,
            "num_live": over.batch,
            "num_waiting": over.queue,
            "used_max_bytes": over.most_used,
            "allocated_max_bytes": over.most_allocated,
            "live_max": over.most_batch,
            "waiting_max": over.most_queue,
            "queried_tokens": over.looked,
            "hit_tokens": over.found,
            **{f"{tier}_tokens": over.found_below[i] for i, tier in enumerate(BELOW)},
            **{f"{tier}_loads": over.loads[i] for i, tier in enumerate(BELOW)},
        }
    )


def _replicas(result: FleetResult) -> pd.DataFrame:
    over = result.by_replica
    num_replicas, num_stretches = over.batch.shape
    return pd.DataFrame(
        {
            "replica": np.repeat(np.arange(num_replicas), num_stretches),
            "time_s": np.tile(np.arange(num_stretches) * over.stretch_ns / NS_PER_S, num_replicas),
            "num_live": over.batch.ravel(),
            "num_waiting": over.queue.ravel(),
            "allocated_bytes": over.allocated.ravel(),
            "queried_tokens": over.looked.ravel(),
            "found_tokens": over.found.ravel(),
        }
    )


def _counts(result: FleetResult) -> dict[str, float]:
    """What replicas count, and what bound them: under a column's own name it is that column."""
    named = vars(result.totals) | result.limits._asdict()
    return {name: value for name, value in named.items() if name in SUMMARY} | {
        "recomputed_tokens": result.totals.num_recomputed_tokens,
        "hit_share": _ratio(result.totals.num_hit_tokens, result.totals.num_queried_tokens),
    }


def _tiers(result: FleetResult, makespan_s: float) -> dict[str, float]:
    """What tiers below the device gave and took, and the share of all replicas' time that it is on their links."""
    found: dict[str, float] = {}
    span_s = makespan_s * result.num_replicas
    num_come = sum(used.num_prefetched_blocks for used in result.tiers)  # to the first tier, over others' links
    for (name, _, block_bytes, link, computing_ps), num_loaded, num_written, num_tokens, num_prefetched in result.tiers:
        block_s = link.block_ps / PS_PER_S
        figures = {
            "hit_share": _ratio(num_tokens, result.totals.num_queried_tokens),
            "loaded_bytes": num_loaded * block_bytes,
            "written_bytes": num_written * block_bytes,
            "prefetched_bytes": num_prefetched * block_bytes,
            "load_s": num_loaded * block_s,
            "saved_s": num_loaded * computing_ps / PS_PER_S,
            "load_share": _ratio(num_loaded * block_s, span_s),
            "write_share": _ratio((num_written - num_come) * block_s, span_s),
        }
        num_come = 0
        found |= {f"{name}_{figure}": value for figure, value in figures.items()}
    return found


def _slim(figures: np.ndarray) -> np.ndarray:
    """Figures of requests, a byte each where there are none."""
    return figures if figures.any() else np.zeros(figures.size, np.int8)


def _outcomes(sums: RequestSums) -> dict[str, object]:
    num_requests = sums.num_requests
    failed = [
        f"{name} {count} of {num_requests}"
        for name, count in zip(sums.outcomes, sums.counts, strict=True)
        if count and name != "completed"
    ]
    return {
        "num_repetitions": 1,
        "num_sessions": sums.num_sessions,
        "num_requests": num_requests,
        "num_completed": sums.num_completed,
        "outcome": ", ".join(sorted(failed)) or "completed",
        "num_preemptions": sums.num_preemptions,
    }


def _service(result: FleetResult, sums: RequestSums, upkeep: Upkeep) -> dict[str, float]:
    """Rates over the makespan, what they cost, and how many requests met the objective."""
    makespan_s, objective = sums.makespan_s, sums.objective
    tokens_per_s = _ratio(sums.num_tokens, makespan_s)
    return {
        "num_tokens": sums.num_tokens,
        "total_s": result.totals.busy_ns / NS_PER_S,
        "makespan_s": makespan_s,
        "mean_batch": _ratio(float(result.sums[:, BATCH].sum()) / PS_PER_NS, result.totals.busy_ns),
        "tokens_per_s": tokens_per_s,
        **upkeep.of(tokens_per_s),
        "requests_per_s": _ratio(sums.num_completed, makespan_s),
        "goodput_per_s": _ratio(sums.num_within, makespan_s),
        "attained_share": _ratio(sums.num_within, sums.num_requests),
        "ttft_objective_s": objective.ttft_s if math.isfinite(objective.ttft_s) else math.nan,
        "tpot_objective_s": objective.tpot_s if math.isfinite(objective.tpot_s) else math.nan,
    }


def _memory(result: FleetResult) -> dict[str, float]:
    """Shares over time; those of reserved memory and of waste are empty (NaN) where memory was not split so far."""
    used, allocated, counted = result.sums.sum(axis=0)[[USED, ALLOCATED, WASTED]]
    wasted = float(wasted_bytes(used, allocated, counted, result.is_split))
    blocked = result.sums[NO_MEMORY]
    external = float(result.limit_bytes / result.num_replicas * blocked[DURATION] - blocked[ALLOCATED])
    return {
        "utilization_mean": _ratio(used, allocated),
        "reserved_share": _ratio(allocated - used - wasted, allocated),
        "waste_share": _ratio(wasted, allocated),
        "external_share": _ratio(external, allocated + external),
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
