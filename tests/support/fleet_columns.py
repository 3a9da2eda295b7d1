"""A fleet's columns by simple arithmetic: what a simulation would leave, without simulating anything."""

import math

import numpy as np

from kvbench.fleet.frames import BytesOverTime, FleetColumns, Objective, fleet_frames

GIB = 1 << 30
MS = 1_000_000
S = 1_000_000_000
OUTCOMES = ("completed", "too_long", "out_of_memory")
SPLITS = {
    "static": (0.16, 0.10, 0.70, 0.04),
    "dynamic": (0.46, 0.15, 0.26, 0.13),
    "paged": (0.97, 0.0, 0.03, 0.0),
}
"""Of what is held or unusable, the shares used, reserved, wasted inside and wasted outside."""

OBJECTIVE = Objective(1.0, 0.05)


def columns(split=(0.4, 0.2, 0.3, 0.1), num_requests=40, slowness=1, failed=0, preempted=0, num_bins=8, **changed):
    """Request i arrives at i × 100 ms; it waits and runs in proportion to its slowness.

    Admitted 20 ms × i × slowness after its arrival, first token 30 ms after that, then nine more, 40 ms apart. Half of
    64 GiB is held or unusable throughout.
    """
    number = np.arange(num_requests, dtype=np.int64)
    arrival = number * 100 * MS
    admitted = arrival + number * 20 * MS * slowness
    first = admitted + 30 * MS
    last = first + 9 * 40 * MS
    outcome = np.where(number < failed, 1, 0)
    makespan = int(last.max()) - int(arrival.min()) if num_requests else 0
    held = [share * 32 * GIB for share in split]
    used, reserved, waste, external = held
    timeline = None
    if num_bins:
        starts = np.arange(num_bins, dtype=np.int64) * (makespan // num_bins)
        flat = [np.full(num_bins, value) for value in (used, reserved, waste, external, used + reserved + waste)]
        live, waiting = np.full(num_bins, 5.0 / slowness), np.arange(num_bins) * 2.0 * slowness
        timeline = BytesOverTime(starts, *flat, live, waiting, 1.5 * flat[0], 1.25 * flat[-1], 2 * live, waiting + 1)
    made = {
        "arrival_ns": arrival,
        "prompt_tokens": 100 + number,
        "output_tokens": np.full(num_requests, 10),
        "admitted_ns": admitted,
        "first_token_ns": np.where(outcome == 0, first, -1),
        "finish_ns": last,
        "num_preemptions": np.where(number < preempted, 1, 0),
        "outcome": outcome,
        "held_tokens": np.where(outcome == 0, 109 + number, 0),
        "outcomes": OUTCOMES,
        "busy_ns": makespan,
        "live_ns": 5.0 / slowness * makespan,
        "num_iterations": 100,
        "recomputed_tokens": 100 * preempted,
        "peak_bytes": 33 * GIB,
        "available_bytes": 64 * GIB,
        "used_byte_ns": used * makespan,
        "reserved_byte_ns": reserved * makespan,
        "waste_byte_ns": waste * makespan,
        "external_byte_ns": external * makespan,
        "allocated_byte_ns": (used + reserved + waste) * makespan,
        "timeline": timeline,
        "about": {"lossless": True, "hardware": "H100", "step_error": math.nan, "step_noise": math.nan},
    }
    return FleetColumns(**(made | changed))


def three(**given):
    """Frames of static, dynamic and paged; static is slowest, paged preempts."""
    slowness = {"static": 8, "dynamic": 3, "paged": 1}
    runs = {
        name: columns(split, slowness=slowness[name], preempted=4 if name == "paged" else 0, **given)
        for name, split in SPLITS.items()
    }
    return fleet_frames(runs, "chat", OBJECTIVE)
