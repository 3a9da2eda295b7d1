"""From frames to a row a strategy. Functions of rows and of nothing else; formulas stand in schema.py."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kvbench.results.columns import COMPLETED
from kvbench.results.intervals import of_row
from kvbench.results.provenance import whole_steps
from kvbench.results.schema import LATENCIES, SESSIONS, STATISTICS, SUMMARY, WITH_INTERVAL, latency_column
from kvbench.results.statistics import statistic
from kvbench.results.tiers import LOADS, queried_tokens, tier_figures

MIB = 1 << 20
US_PER_S = 1_000_000
RUN = ["strategy", "repetition"]
SESSION = [*RUN, "session"]
REQUEST = [*SESSION, "turn"]
RUNNER = "runner"


def summary_frame(
    steps: pd.DataFrame,
    requests: pd.DataFrame,
    *,
    scenario: str,
    source: str,
    scope: str,
    slot_bytes: int,
    copy_bandwidth_bytes_per_s: float,
    allocator: pd.DataFrame | None = None,
    tiers: pd.DataFrame | None = None,
    about: Mapping[str, Mapping[str, object]] | None = None,
) -> pd.DataFrame:
    """A row a strategy over all repetitions but warm-up, columns as in schema.SUMMARY.

    Args:
        steps: from `frames.steps_frame`.
        requests: from `frames.requests_frame`.
        scenario: its name.
        source: measured or modelled.
        scope: cache or model.
        slot_bytes: bytes of a slot over all layers and rows.
        copy_bandwidth_bytes_per_s: bytes read and written a second, for the roofline.
        allocator: the device allocator's peaks by strategy and repetition, where it has any.
        tiers: what went to and came from each tier below the device, by strategy and repetition, where there are any.
        about: further columns of a strategy, by its name: whether it is lossless, its pool, its quality.
    """
    steps, requests = steps[~steps["warmup"]], requests[~requests["warmup"]]
    tokens = output_tokens(steps)
    rows = []
    for name in steps["strategy"].cat.categories:
        own_steps, own_requests = steps[steps["strategy"] == name], requests[requests["strategy"] == name]
        if own_requests.empty:  # the run was stopped before it had a turn
            continue
        row: dict[str, Any] = {"scenario": scenario, "strategy": name, "source": source, "scope": scope}
        row["simulated_by"] = RUNNER
        row |= _outcomes(own_requests) | _memory(own_steps) | _kept(own_steps)
        row |= _service(own_steps, own_requests)
        times = _times(own_steps)
        row |= {column: values.mean() for column, values in times.items()}
        row["spread"] = _ratio(times["total_s"].std(), row["total_s"])
        row["roofline_share"] = _roofline_share(own_steps, slot_bytes, copy_bandwidth_bytes_per_s)
        row |= (about or {}).get(name, {})
        if "busy_us" in row and not math.isnan(row["roofline_share"]):
            row["roofline_share"] = _ratio(row["busy_bytes"] / copy_bandwidth_bytes_per_s, row["busy_us"] / US_PER_S)
        samples = _samples(whole_steps(own_steps, scope), own_requests, tokens[tokens["strategy"] == name])
        row |= _latencies(samples)
        row |= of_row(row, WITH_INTERVAL, {**times, **_repeated_latencies(samples)})
        row["efficiency"] = _ratio(row["utilization_peak"], row["cumulative_bytes"] / MIB / 1000)
        if allocator is not None:
            peaks = allocator[allocator["strategy"] == name]
            row |= {column: peaks[column].max() for column in peaks.columns if column.startswith("allocator_")}
            row["allocator_unused_share"] = _unused_share(row)
        if tiers is not None and not tiers.empty:
            row |= tier_figures(tiers[tiers["strategy"] == name], own_requests, row["makespan_s"])
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=list(SUMMARY))


def _unused_share(row: Mapping[str, float]) -> float:
    """What a device's allocator reserved beyond the most that was allocated; NaN where it told nothing."""
    return 1 - _ratio(row.get("allocator_allocated_bytes", math.nan), row.get("allocator_reserved_bytes", 0))


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def _per_repetition(frame: pd.DataFrame, column: str) -> pd.Series:
    return frame.groupby("repetition")[column].sum()


def _served(steps: pd.DataFrame) -> pd.Series:
    return steps["prompt_tokens"] + steps["output_tokens"]


def _outcomes(requests: pd.DataFrame) -> dict[str, object]:
    num_repetitions = max(requests["repetition"].nunique(), 1)
    num_requests = len(requests[["session", "turn"]].drop_duplicates())
    counts = requests["outcome"].value_counts()
    failed = [
        f"{name} {count / num_repetitions:g} of {num_requests}" for name, count in counts.items() if name != COMPLETED
    ]
    completed = counts.get(COMPLETED, 0) / num_repetitions
    return {
        "num_repetitions": num_repetitions,
        "num_sessions": requests["session"].nunique(),
        "num_requests": num_requests,
        "num_completed": completed,
        "outcome": COMPLETED if completed == num_requests else ", ".join(sorted(failed)),
        "num_preemptions": requests["num_preemptions"].sum() / num_repetitions,
        "hit_share": _hit_share(requests),
    }


def _hit_share(requests: pd.DataFrame) -> float:
    """Prompt tokens that were found / those that were looked for; NaN where none was shared."""
    hits = requests["hit_tokens"].sum()
    return _ratio(hits, queried_tokens(requests)) if hits else math.nan


def _memory(steps: pd.DataFrame) -> dict[str, float]:
    num_repetitions = max(steps["repetition"].nunique(), 1)
    done = steps[steps["num_tokens"] > 0]
    held = steps["allocated_bytes"] + steps["transient_bytes"] + steps["workspace_bytes"]
    peaks = held.groupby(steps["repetition"]).max()
    weights = done["num_tokens"].to_numpy(float)
    allocated = float(weights @ done["allocated_bytes"].to_numpy(float))
    staging = float(weights @ done["workspace_bytes"].to_numpy(float))
    used = float(weights @ done["used_bytes"].to_numpy(float))
    last = done.groupby("repetition")[["used_bytes", "allocated_bytes"]].last().sum()
    again = done[done["phase"] == "recompute"]
    # What is new in them: the rest of a prompt, or the token that was about to be computed.
    new = again["prompt_tokens"].where(again["prompt_tokens"] > 0, again["output_tokens"])
    return {
        "num_tokens": _served(done).sum() / num_repetitions,
        "num_steps": (done["phase"] != "recompute").sum() / num_repetitions,
        "peak_bytes": peaks.max(),
        "peak_least_bytes": peaks.min(),
        "recomputed_tokens": (again["num_tokens"] - new).sum() / num_repetitions,
        "peak_allocated_bytes": steps["allocated_bytes"].max(),
        "mean_allocated_bytes": _ratio(allocated + staging, weights.sum()),
        "workspace_bytes": steps["workspace_bytes"].max(),
        "peak_host_bytes": steps["host_bytes"].max(),
        "peak_disk_bytes": steps["disk_bytes"].max(),
        "peak_remote_bytes": steps["remote_bytes"].max(),
        "cumulative_bytes": steps["requested_bytes"].sum() / num_repetitions,
        "utilization_peak": (done["used_bytes"] / done["allocated_bytes"]).max(),
        "utilization_final": _ratio(float(last["used_bytes"]), float(last["allocated_bytes"])),
        "utilization_mean": _ratio(used, allocated),
        "reserved_share": _ratio(float(weights @ done["reserved_bytes"].to_numpy(float)), allocated),
        "waste_share": _ratio(float(weights @ done["waste_bytes"].to_numpy(float)), allocated),
        "num_resizes": steps["num_resizes"].sum() / num_repetitions,
        "copied_bytes": steps["copied_bytes"].sum() / num_repetitions,
        "moved_bytes": steps["moved_bytes"].sum() / num_repetitions,
    }


def _kept(steps: pd.DataFrame) -> dict[str, float]:
    """Of each session's last step that appended: tokens seen, kept and altered, mean over repetitions."""
    done = steps[steps["num_tokens"] > 0]
    last = done.groupby(["repetition", "session"])[["seen_tokens", "kept_tokens", "altered_tokens"]].last()
    seen, kept, altered = last.sum() / max(steps["repetition"].nunique(), 1)
    return {
        "seen_tokens": seen,
        "kept_tokens": kept,
        "kept_fraction": _ratio(kept, seen),
        "altered_tokens": altered,
    }


def _times(steps: pd.DataFrame) -> dict[str, pd.Series]:
    """Times and rates, a value a repetition."""
    total_s = _per_repetition(steps, "step_us") / US_PER_S
    stalled = steps["reserve_us"].where(steps["num_resizes"] > 0, 0.0)
    admitted = steps["reserve_us"].where(steps["phase"] == "admit", 0.0)
    parts_us = {"admit_s": admitted, "stall_s": stalled, "allocation_s": stalled.where(stalled > admitted, admitted)}
    return {
        **{name: part_us.groupby(steps["repetition"]).sum() / US_PER_S for name, part_us in parts_us.items()},
        "total_s": total_s,
        "tokens_per_s": _served(steps).groupby(steps["repetition"]).sum() / total_s,
    }


def _service(steps: pd.DataFrame, requests: pd.DataFrame) -> dict[str, float]:
    """How many requests were served, how long all took, and how many were served together."""
    of_repetition = steps.groupby("repetition")
    makespan_s = of_repetition["end_s"].max() - requests.groupby("repetition")["arrival_s"].min()
    completed = (requests["outcome"] == COMPLETED).groupby(requests["repetition"]).sum()
    rate = (completed / makespan_s).where(makespan_s > 0)
    together = (steps["num_live"] * steps["step_us"]).sum()
    return {
        **{f"{name}_share": share for name, share in limit_shares(steps, makespan_s.sum()).items()},
        "num_iterations": of_repetition["iteration"].nunique().mean(),
        "mean_batch": _ratio(float(together), float(steps["step_us"].sum())),
        "makespan_s": makespan_s.mean(),
        "requests_per_s": rate.mean(),
    }


def limit_shares(steps: pd.DataFrame, span_s: float) -> dict[str, float]:
    """What the next request waited for, as shares of a time; when nothing ran, that was arrivals.

    Args:
        steps: of one strategy.
        span_s: seconds from the first arrival to the end, of all repetitions.
    """
    waited_s = steps["step_us"].groupby(steps["limit"], observed=False).sum() / US_PER_S
    shares = {str(name): _ratio(float(waited), span_s) for name, waited in waited_s.items()}
    shares["arrivals"] = 1 - sum(share for name, share in shares.items() if name != "arrivals")
    return shares


def _samples(steps: pd.DataFrame, requests: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, pd.Series]:
    """Samples of each latency by repetition, those that are there."""
    completed = requests[requests["outcome"] == COMPLETED]
    columns = {
        "step": (steps, "step_us"),
        "decode": (steps.loc[steps["phase"] == "decode"], "step_us"),
        "itl": (tokens, "itl_s"),
        "ttft": (completed, "ttft_s"),
        "tpot": (completed, "tpot_s"),
        "latency": (completed, "latency_s"),
        "queue": (requests, "queue_s"),
    }
    assert columns.keys() == LATENCIES.keys()
    return {name: frame.set_index("repetition")[column].dropna() for name, (frame, column) in columns.items()}


def _latencies(samples: Mapping[str, pd.Series]) -> dict[str, float]:
    return {
        latency_column(latency, name): statistic(values.to_numpy(), name)
        for latency, values in samples.items()
        for name in STATISTICS
    }


def _repeated_latencies(samples: Mapping[str, pd.Series]) -> dict[str, list[float]]:
    """The repetitions' own statistics, of those that have intervals."""
    own = {latency: [part.to_numpy() for _, part in values.groupby(level=0)] for latency, values in samples.items()}
    return {
        column: [statistic(part, name) for part in parts]
        for latency, parts in own.items()
        for name in STATISTICS
        if (column := latency_column(latency, name)) in WITH_INTERVAL
    }


def _roofline_share(steps: pd.DataFrame, slot_bytes: int, bandwidth: float) -> float:
    """Of the time that decode steps took, what moving their bytes takes."""
    decode = steps[steps["phase"] == "decode"]
    attended = np.where(decode["attend_us"] > 0, decode["context_tokens"], 0).sum()
    moved_bytes = least_bytes(attended, decode["num_tokens"].sum(), decode["copied_bytes"].sum(), slot_bytes)
    spent_s = decode[["reserve_us", "append_us", "move_us", "attend_us"]].to_numpy().sum() / US_PER_S
    return _ratio(moved_bytes / bandwidth, spent_s)


def least_bytes(attended_tokens: float, num_tokens: float, copied_bytes: float, slot_bytes: int) -> float:
    """What a decode step moves: it reads the live cache once, and reads and writes its token and what it copies."""
    return attended_tokens * slot_bytes + 2 * num_tokens * slot_bytes + 2 * copied_bytes


def iteration_ends(steps: pd.DataFrame) -> pd.Series:
    """When the iteration of each step ended, in seconds: its output tokens are out then."""
    iteration = [steps[key] for key in (*RUN, "iteration")]
    return steps["end_s"].groupby(iteration, observed=True).transform("max")


def iteration_starts(steps: pd.DataFrame) -> pd.Series:
    """When the iteration of each step began, in seconds: all its requests are computed from then on."""
    iteration = [steps[key] for key in (*RUN, "iteration")]
    return (steps["end_s"] - steps["step_us"] / US_PER_S).groupby(iteration, observed=True).transform("min")


def output_tokens(steps: pd.DataFrame) -> pd.DataFrame:
    """When each output token was out, a row a token: token_s, and the gap to the one before it in its turn, itl_s."""
    tokens = steps.assign(token_s=iteration_ends(steps)).loc[steps["output_tokens"] > 0, [*REQUEST, "token_s"]]
    tokens["itl_s"] = tokens.groupby(REQUEST, observed=True)["token_s"].diff()
    return tokens


def sessions_frame(requests: pd.DataFrame) -> pd.DataFrame:
    """A row a session and repetition, columns as in schema.SESSIONS, and those beside them that a sweep has.

    Args:
        requests: a row a request; the turns of a session follow each other.
    """
    if requests.empty:
        return pd.DataFrame(columns=list(SESSIONS))
    starts = np.flatnonzero(requests["turn"] == 0)
    frame = requests.drop(columns=["turn", "queue_s", "ttft_s", "tpot_s"]).iloc[starts].reset_index(drop=True)
    ok = (requests["outcome"] == COMPLETED).to_numpy()
    lengths = np.diff(starts, append=len(requests))
    frame["num_turns"], frame["num_completed"] = lengths, np.add.reduceat(ok, starts, dtype=np.int64)
    for column in frame.columns.intersection(
        ["prompt_tokens", "output_tokens", "hit_tokens", *LOADS, "num_preemptions"]
    ):
        frame[column] = np.add.reduceat(requests[column].to_numpy(), starts)
    for column in frame.columns.intersection(["held_tokens", "peak_bytes"]):
        frame[column] = np.fmax.reduceat(requests[column].to_numpy(), starts)
    last = starts + lengths - 1
    failed = np.minimum.reduceat(np.where(ok, len(requests), np.arange(len(requests))), starts)
    frame["outcome"] = requests["outcome"].to_numpy()[np.minimum(failed, last)]
    ends_s = (requests["arrival_s"] + requests["latency_s"]).to_numpy()[last]
    frame["latency_s"] = np.where(ok[last], ends_s - frame["arrival_s"], math.nan)
    return frame[[name for name in SESSIONS if name in frame] + [name for name in frame if name not in SESSIONS]]
