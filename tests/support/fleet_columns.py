"""A fleet's results by simple arithmetic: what a simulation would leave, without simulating anything."""

import math
from dataclasses import fields

import numpy as np

from kvbench.fleet.by_replica import ByReplica
from kvbench.fleet.frames import FleetRun, fleet_frames
from kvbench.fleet.result import LOADED, Binding, FleetResult, Timeline, Totals
from kvbench.fleet.state import ALLOCATED, BATCH, DURATION, NO_MEMORY, NUM_CLASSES, NUM_SUMS, USED, WASTED
from kvbench.fleet.sums import Objective
from kvbench.timing.prices import PS_PER_NS

GIB = 1 << 30
MS = 1_000_000
S = 1_000_000_000
SPLITS = {
    "static": (0.16, 0.10, 0.70, 0.04),
    "dynamic": (0.46, 0.15, 0.26, 0.13),
    "paged": (0.97, 0.0, 0.03, 0.0),
}
"""Of what is held or unusable, the shares used, reserved, wasted inside and wasted outside."""

OBJECTIVE = Objective(1.0, 0.05)


def columns(
    split=(0.4, 0.2, 0.3, 0.1), num_requests=40, slowness=1, failed=0, preempted=0, num_bins=8, facts=None, **changed
):
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
    used, reserved, waste, external = (share * 32 * GIB for share in split)
    flat = {
        "used": used,
        "allocated": used + reserved + waste,
        "reserved": reserved,
        "internal_waste": waste,
        "blocked_free": external,
        "batch": 5.0 / slowness,
        "busy": 1.0,
        "most_used": 1.5 * used,
        "most_allocated": 1.25 * (used + reserved + waste),
        "most_batch": 10.0 / slowness,
    }
    waiting = np.arange(num_bins) * 2.0 * slowness
    own = {name: np.full(num_bins, value) for name, value in flat.items()}
    own |= dict.fromkeys(("looked", "found"), np.zeros(num_bins))
    own |= dict.fromkeys(("found_below", "loads"), np.zeros((3, num_bins)))
    timeline = Timeline(bin_ns=makespan // max(num_bins, 1), queue=waiting, most_queue=waiting + 1, **own)
    sums = np.zeros((NUM_CLASSES, NUM_SUMS))
    sums[NO_MEMORY, [DURATION, USED, ALLOCATED, WASTED, BATCH]] = [1, used, flat["allocated"], waste, flat["batch"]]
    counts = dict.fromkeys((field.name for field in fields(Totals)), 0) | {
        "busy_ns": makespan,
        "num_iterations": 100,
        "peak_bytes": 33 * GIB,
    }
    made = {
        "arrival_ns": arrival,
        "prompt_tokens": 100 + number,
        "output_tokens": np.full(num_requests, 10),
        "admitted_ns": admitted,
        "first_token_ns": np.where(outcome == 0, first, -1),
        "finish_ns": last,
        "num_preemptions": np.where(number < preempted, 1, 0),
        "outcome": outcome,
        "finish_order": number,
        "held_tokens": np.where(outcome == 0, 109 + number, 0),
        "replica": 0 * number,
        "session": number,
        "turn": 0 * number,
        "hit_tokens": 0 * number,
        **dict.fromkeys(LOADED, 0 * number),
        "totals": Totals(**counts | {"num_recomputed_tokens": 100 * preempted}),
        "limits": Binding(*[math.nan] * len(Binding._fields)),
        "timeline": timeline,
        "by_replica": ByReplica(1, *np.zeros((5, 0, 1))),
        "limit_bytes": used + reserved + waste + external,
        "num_replicas": 1,
        "is_split": True,
        "sums": makespan * PS_PER_NS * sums,
    }
    known = {"lossless": True, "hardware": "H100", "step_error": math.nan, "step_noise": math.nan}
    return FleetRun(FleetResult(**made | changed), known | {"available_bytes": 64 * GIB} | (facts or {}))


def three(**given):
    """Frames of static, dynamic and paged; static is slowest, paged preempts."""
    slowness = {"static": 8, "dynamic": 3, "paged": 1}
    runs = {
        name: columns(split, slowness=slowness[name], preempted=4 if name == "paged" else 0, **given)
        for name, split in SPLITS.items()
    }
    return fleet_frames(runs, "chat", OBJECTIVE)
