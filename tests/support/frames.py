"""Synthetic frames by simple arithmetic: what a run would write, without running anything."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvbench.results.schema import REQUESTS, STEPS
from kvbench.results.summary import summary_frame

SLOT_BYTES = 32_768
SHORT_CHAT = [50, 100, 150, 200, 250, 300]


@dataclass(frozen=True)
class Growth:
    """How a made-up strategy grows: to `first` at the start, then by a factor, never beyond the most.

    A factor of 0 grows to exactly what is needed.
    """

    first: int = 0
    factor: float = 0.0
    most: int = 1 << 40

    def capacity(self, held: int, needed: int) -> int:
        return held if needed <= held else min(max(int(held * self.factor), needed), self.most)


THREE = {
    "static": Growth(first=8192, most=8192),
    "dynamic": Growth(first=512, factor=1.5, most=8192),
    "concat": Growth(),
}


@dataclass
class Frames:
    summary: pd.DataFrame
    requests: pd.DataFrame
    steps: pd.DataFrame


def make_frames(work=None, strategies=None, num_repetitions=3, num_warmup=1, noise=0.02, scenario="short_chat", seed=0):
    """Frames of strategies on requests.

    Args:
        work: a request's appends each; request number i arrives at iteration 4 i.
        strategies: name to Growth.
        num_repetitions: counted ones.
        num_warmup: flagged ones before them.
        noise: standard deviation over mean of every step's time.
    """
    work = [SHORT_CHAT] if work is None else work
    strategies = THREE if strategies is None else strategies
    rng = np.random.default_rng(seed)
    step_rows, request_rows = [], []
    for repetition in range(num_warmup + num_repetitions):
        for name, growth in strategies.items():
            flags = {"repetition": repetition, "warmup": repetition < num_warmup, "strategy": name}
            rows, outcomes = _repetition(work, growth, rng, noise)
            step_rows += [row | flags for row in rows]
            request_rows += [row | flags for row in outcomes]
    steps = pd.DataFrame(step_rows, columns=list(STEPS))
    requests = pd.DataFrame(request_rows, columns=list(REQUESTS))
    for frame in (steps, requests):
        frame["strategy"] = pd.Categorical(frame["strategy"], categories=list(strategies))
    steps["phase"] = pd.Categorical(steps["phase"])
    summary = summary_frame(
        steps,
        requests,
        scenario=scenario,
        source="measured",
        scope="cache",
        slot_bytes=SLOT_BYTES,
        copy_bandwidth_bytes_per_s=1e10,
    )
    return Frames(summary, requests, steps)


def decode_work(prompt=600, output=1000):
    """One request: a prompt at once, then a token at a time."""
    return [[prompt] + [1] * output]


def multi_work(num_requests=6, seed=3):
    """Several requests that are live together."""
    rng = np.random.default_rng(seed)
    return [[int(rng.integers(100, 800))] + [1] * int(rng.integers(20, 90)) for _ in range(num_requests)]


def sweep_summary(parameter, values, make, strategies=None):
    """The summary of a sweep: make(value) gives the strategies of each job, or a scenario's frames."""
    parts = []
    for value in values:
        made = make(value)
        summary = made.summary if isinstance(made, Frames) else make_frames(strategies=made).summary
        parts.append(summary.assign(**{parameter: [value] * len(summary)}))
    return pd.concat(parts, ignore_index=True)


def _repetition(work, growth, rng, noise):
    rows, ended = [], {}
    capacity, used = {}, {}
    clock_us, iteration = 0.0, 0
    first_us, last_us = {}, {}
    while len(ended) < len(work):
        for number, appends in enumerate(work):
            at = iteration - 4 * number
            if number in ended or at < 0:
                continue
            if at == 0:
                capacity[number], used[number] = growth.first, 0
                rows.append(_row(number, iteration, "admit", 0, capacity, used, 0, 0, 5.0, clock_us))
            tokens = appends[at] if at < len(appends) else 0
            needed = used[number] + tokens
            if needed > growth.most:
                ended[number] = "too_long"
            elif tokens:
                before = capacity[number]
                capacity[number] = growth.capacity(before, needed)
                copied = used[number] if capacity[number] != before else 0
                used[number] = needed
                reserve_us = (10.0 + 0.05 * copied) if capacity[number] != before else 0.0
                time_us = (30.0 + 0.2 * tokens + 0.01 * needed) * (1 + noise * rng.standard_normal()) + reserve_us
                clock_us += time_us
                last_us[number] = clock_us
                phase = "decode" if tokens == 1 else "prefill"
                row = _row(number, iteration, phase, tokens, capacity, used, copied, reserve_us, time_us, clock_us)
                if capacity[number] != before:
                    row |= {"num_resizes": int(before > 0), "transient_bytes": min(before, used[number]) * SLOT_BYTES}
                    row["requested_bytes"] = capacity[number] * SLOT_BYTES
                rows.append(row)
                if tokens == 1:
                    first_us.setdefault(number, clock_us)
            else:
                ended[number] = "completed"
            if number in ended:
                held = used.pop(number)
                del capacity[number]
                ended[number] = _request(number, appends, ended[number], held, first_us, last_us)
                rows.append(_row(number, iteration, "finish", 0, capacity, used, 0, 0, 2.0, clock_us))
        iteration += 1
    return rows, [ended[number] for number in sorted(ended)]


def _row(number, iteration, phase, tokens, capacity, used, copied, reserve_us, time_us, clock_us):
    allocated, holding = sum(capacity.values()) * SLOT_BYTES, sum(used.values()) * SLOT_BYTES
    return dict.fromkeys(STEPS, 0) | {
        "session": number,
        "iteration": iteration,
        "phase": phase,
        "num_tokens": tokens,
        "prompt_tokens": tokens if phase == "prefill" else 0,
        "output_tokens": int(phase == "decode"),
        "limit": "arrivals",
        "context_tokens": used.get(number, 0),
        "capacity_tokens": capacity.get(number, 0),
        "used_bytes": holding,
        "allocated_bytes": allocated,
        "waste_bytes": allocated - holding,
        "requested_bytes": allocated if phase == "admit" else 0,
        "copied_bytes": copied * SLOT_BYTES,
        "num_live": len(used),
        "reserve_us": float(reserve_us),
        "attend_us": time_us - reserve_us,
        "step_us": time_us,
        "end_s": clock_us / 1e6,
    }


def _request(number, appends, outcome, held, first_us, last_us):
    outputs = appends.count(1)
    has_outputs = outcome == "completed" and outputs > 1
    return {
        "session": number,
        "turn": 0,
        "outcome": outcome,
        "arrival_s": number * 1e-3,
        "prompt_tokens": sum(appends) - outputs,
        "output_tokens": outputs,
        "held_tokens": held,
        "num_preemptions": 0,
        "queue_s": 0.0,
        "ttft_s": first_us[number] / 1e6 if has_outputs else np.nan,
        "tpot_s": (last_us[number] - first_us[number]) / 1e6 / (outputs - 1) if has_outputs else np.nan,
    }


def within(frame, **halves):
    """The frame with intervals around columns' figures: half widths by column, NaN for none."""
    ends = {}
    for column, half in halves.items():
        ends |= {f"{column}_low": frame[column] - half, f"{column}_high": frame[column] + half}
    return frame.assign(**ends)
