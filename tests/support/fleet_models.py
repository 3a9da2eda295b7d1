"""The fleet's figures, found by the runner on the modelled backend: one row at a time, with the ledger."""

from dataclasses import replace

import numpy as np

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled, ModelledBackend
from kvbench.engine.tiers import BELOW
from kvbench.fleet import OUTCOMES
from kvbench.fleet.result import LOADED
from kvbench.fleet.simulate import EACH_ITS_STEP
from kvbench.plan.area import DEVICE
from kvbench.plan.ops import Drop
from kvbench.results.columns import UNREACHED
from kvbench.results.tier_columns import MOVED
from kvbench.runner.recorder import FINISH, RECOMPUTE, STEP_FIELDS
from kvbench.runner.run import run
from kvbench.timing.prices import (
    DECODE_UNIT,
    LINEAR,
    MIXED_UNIT,
    NODES,
    PREFILL,
    SCALE,
    SIZES,
    STEP,
    UNBOUNDED,
    Prices,
    Sight,
)
from kvbench.timing.pricing import prices_of
from kvbench.workload.columns import requests_by_turn
from kvbench.workload.trace_columns import TraceColumns
from tests.support.machines import GEOMETRY, WEIGHTS, WORK, machine

PRICES = prices_of(machine(), WORK)


def tables(linear_ps, unit_ps, pair_ps):
    """Tables of one sight: a price by tokens, of a unit that a decode step sees, and of a pair."""
    found = np.zeros((PREFILL + 1, SIZES + 1), np.int64)
    found[LINEAR, 1:] = [linear_ps(number) for number in range(1, SIZES + 1)]
    found[[DECODE_UNIT, MIXED_UNIT]], found[PREFILL, : NODES * NODES] = unit_ps, SCALE * pair_ps
    # Besides, an iteration takes 100 ns, and the K and V of a token 1.
    found[STEP] = found[LINEAR] + 100_000 + 1_000 * np.arange(SIZES + 1)
    return found


# Prices of whole nanoseconds, for sums by hand.
ROUND = Prices(
    write_ps=1_000,
    state_ps=0,
    unit_bytes=GEOMETRY.bytes_per_token,
    copy_ps=2_000,
    swap_ps=10_000,
    storage_ps=40_000,
    transfer_ps=5_000,
    step_ps=100_000,
    prompt_ps=0,
    num_sights=1,
    sights=(Sight(UNBOUNDED, 0, 1, 1_000, 1_000),),
    # Weights are read in 50 ns; a token's operations take 10.
    tables=tables(lambda number: max(50_000, 10_000 * number), 1_000, 1_000),
)
SLOT_BYTES = GEOMETRY.bytes_per_token
TIMES = ("reserve_ns", "append_ns", "move_ns", "attend_ns", "model_ns")
COLUMNS = ("admitted_ns", "first_token_ns", "finish_ns", "num_preemptions", "outcome", "finish_order")
PS_PER_NS = 1_000


LATE = (2_000_000_000, 1, 1)
"""Who arrives so late that a bin of the timeline, which no jump goes beyond, has room for many steps."""


def columns_of(rows, num_clients=None):
    """A trace of (arrival in ns, prompt tokens, output tokens), in any order; with clients lengths alone tell."""
    rows = rows if num_clients is None else [(0, *row[1:]) for row in rows]
    arrival_ns, prompts, outputs = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
    lengths = {"num_prompt_tokens": prompts, "num_output_tokens": outputs}
    return TraceColumns(arrival_ns=arrival_ns, num_clients=num_clients, **lengths)


def results(result):
    """A simulation's columns, by name, as lists."""
    return {name: getattr(result, name).tolist() for name in (*COLUMNS, "held_tokens")}


class Dropping(ModelledBackend):
    """The modelled backend, and how many blocks that nobody held were dropped."""

    num_dropped = 0

    def step(self, booking, *what, **how):
        self.num_dropped += sum(isinstance(op, Drop) and op.tier == DEVICE for op in booking.plan)
        return super().step(booking, *what, **how)


def by_runner(
    columns,
    strategy,
    budget_bytes,
    max_batch,
    geometry=GEOMETRY,
    rules=EACH_ITS_STEP,
    hardware=None,
    conditions=None,
    goes_on=None,
):
    """What the runner finds: columns a request, totals, and sums over time in bytes and nanoseconds.

    Args:
        goes_on: of each request whether its session does, where the columns are a part of what says so.
    """
    rows = zip(requests_by_turn(columns), columns.goes_on if goes_on is None else goes_on, strict=True)
    requests = [replace(each, place=(number, 0), goes_on=more) for number, (each, more) in enumerate(rows)]
    alone = Conditions(geometry=geometry, hardware=hardware or machine(), weights=WEIGHTS)
    backend = Dropping(Modelled(memory_fraction=0.5), conditions or alone)
    backend.scheduling = rules
    recorder = run(
        {"it": strategy},
        requests,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=max_batch,
        budget_bytes=budget_bytes,
        num_clients=columns.num_clients,
    )
    rows = dict(zip(STEP_FIELDS, recorder.steps().T, strict=True))
    step_ns = np.maximum(sum(rows[name] for name in TIMES), rows["host_ns"])
    end_ns = np.cumsum(rows["idle_ns"] + step_ns)
    totals = _totals(recorder, rows) | {"num_evicted_blocks": backend.num_dropped}
    totals |= {what: [row[what] for row in recorder.tiers] for what in MOVED}
    return _requests(recorder, rows, end_ns, step_ns), totals, _sums(recorder, rows, step_ns)


def _requests(recorder, rows, end_ns, step_ns):
    num_requests = len(recorder.requests)
    found = {name: np.full(num_requests, -1) for name in ("arrival_ns", "hit_tokens", *LOADED, *COLUMNS)}
    ends = np.zeros(rows["iteration"].max() + 1, np.int64)
    np.maximum.at(ends, rows["iteration"], end_ns)
    steps = rows["num_tokens"] > 0
    starts = {}
    for iteration, moment in zip(rows["iteration"][steps], (end_ns - step_ns)[steps], strict=True):
        starts.setdefault(iteration, moment)
    reached = [ended for ended in recorder.requests if ended.outcome != UNREACHED]
    for order, ended in enumerate(reached):
        own = steps & (rows["session"] == ended.session)
        brought = own & (rows["output_tokens"] > 0)
        iterations = rows["iteration"][own]
        found["outcome"][ended.session] = OUTCOMES.index(ended.outcome)
        found["finish_order"][ended.session] = order
        found["arrival_ns"][ended.session] = ended.arrival_ns
        found["hit_tokens"][ended.session] = ended.hit_tokens
        found["load_ps"][ended.session] = ended.load_wait_ps
        for tier in BELOW:
            found[f"{tier}_tokens"][ended.session] = ended.loaded_tokens.get(tier, 0)
        found["num_preemptions"][ended.session] = ended.num_preemptions
        if own.any():
            found["admitted_ns"][ended.session] = starts[iterations[0]]
        if brought.any():
            found["first_token_ns"][ended.session] = ends[rows["iteration"][brought][0]]
        if ended.outcome == "completed":
            found["finish_ns"][ended.session] = ends[iterations[-1]]
            assert not brought.any() or rows["iteration"][brought][-1] == iterations[-1]
    for lost in recorder.requests:
        if lost.outcome == UNREACHED:
            found["outcome"][lost.session] = OUTCOMES.index(UNREACHED)
    return found


def _totals(recorder, rows):
    # Who gave way as it decoded may come back with a token more than it had, and else with the rest of its prompt.
    new = np.where(rows["prompt_tokens"] > 0, rows["prompt_tokens"], rows["output_tokens"])
    own = np.where(rows["phase"] == RECOMPUTE, new, rows["num_tokens"])
    held = rows["allocated_bytes"] + rows["workspace_bytes"] + rows["transient_bytes"]
    return {
        "held_tokens": [row.held_tokens for row in sorted(recorder.requests, key=lambda row: row.session)],
        "num_tokens": own.sum(),
        "num_recomputed_tokens": rows["num_tokens"].sum() - own.sum(),
        "num_resizes": rows["num_resizes"].sum(),
        "copied_bytes": rows["copied_bytes"].sum(),
        "peak_bytes": held.max(),
        "left_bytes": rows["allocated_bytes"][-1],
    }


def _sums(recorder, rows, step_ns):
    """Time, and bytes and requests times time; what a request that ends in an iteration held counts to its end,
    but no more than was ever held at once."""
    _, firsts, where = np.unique(rows["iteration"], return_index=True, return_inverse=True)
    lasts = np.append(firsts[1:], where.size) - 1
    lasted_ns = np.bincount(where, step_ns)
    # What was lost and the rest of a prompt may be two rows of one step.
    steps = np.unique(np.stack([where, rows["session"]])[:, rows["num_tokens"] > 0], axis=1)
    stepped = np.bincount(steps[0], minlength=lasted_ns.size)
    held = rows["allocated_bytes"] + rows["workspace_bytes"] + rows["transient_bytes"]
    most = np.maximum.accumulate(held)[lasts] - rows["workspace_bytes"].max()
    ends = _ends(recorder, rows)

    def through(name, most):
        freed = np.bincount(where[ends], (rows[name][ends - 1] - rows[name][ends]), lasted_ns.size)
        return np.minimum(rows[name][lasts] + freed, most)

    allocated = through("allocated_bytes", most)
    used = through("used_bytes", allocated)
    wasted = through("waste_bytes", allocated - used)
    return [lasted_ns.sum(), *(lasted_ns @ figure for figure in (used, allocated, wasted)), lasted_ns @ stepped]


def _ends(recorder, rows):
    """The rows in which requests ended for good: of each its last one, a finish."""
    lasts = [np.flatnonzero(rows["session"] == number)[-1] for number in np.unique(rows["session"])]
    return np.array([last for last in lasts if rows["phase"][last] == FINISH and last > 0], np.int64)


def that_go_on(rules):
    """Rules under which two requests do not take turns in giving way to each other for ever, as they may where the
    older one need not go on first; no engine has others."""
    goes_on = rules.fits_prompts or (rules.mixes and rules.counts_decode and rules.plans_steps)
    return rules._replace(waits_for_end=rules.waits_for_end or not goes_on)
