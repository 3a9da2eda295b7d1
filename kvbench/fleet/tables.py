"""The kernel's tables: made from a trace and settings, and read when it has run."""

import math
from dataclasses import fields
from typing import Any

import numpy as np

from kvbench.backend.shares import parts_in, parts_of, voters_of
from kvbench.fleet.bounds import check_memory
from kvbench.fleet.by_replica import by_replica
from kvbench.fleet.prefix.fetches import FETCH
from kvbench.fleet.prefix.segments import TURN
from kvbench.fleet.result import LOADED, Binding, FleetResult, Served, TierUsed, Totals
from kvbench.fleet.rules import BoundRule, copies_of
from kvbench.fleet.sends import Following
from kvbench.fleet.sessions import sends_of
from kvbench.fleet.space import NUM_ORDERS
from kvbench.fleet.state import (
    BLOCKS,
    BUDDY,
    COMPUTING,
    CONTIGUOUS,
    COPIES_EVICTED,
    COUNTERS,
    COUNTING,
    DURATION,
    FIXED,
    FOREVER,
    FULL_BATCH,
    LIVE,
    MOST_TIERS,
    NO_MEMORY,
    NONE,
    NUM_COLUMNS,
    REPLICA,
    REQUEST,
    TABLES,
    Hold,
    Tables,
)
from kvbench.fleet.timeline import timeline_of
from kvbench.ledger.costs import AreaCost, area_cost, workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import DEVICE, DISK, HOST, Blocks, Chunks
from kvbench.strategy.base import all_at_once
from kvbench.timing.prices import MOST_SIGHTS, PS_PER_NS, UNBOUNDED, Prices, moved_ps, num_scoring, scoring_ps
from kvbench.workload.trace_columns import TraceColumns

NUM_BINS = 512
PIECE = 1 << 12
"""Rows of requests that are written at once."""
ADDRESSES = ("order_at", "known_at", "runs_at", "table_at", "turns_at", "loads_at", "fetches_at")
"""Of tables that only some runs have."""
WHOLE = np.dtype((np.void, REQUEST.itemsize))
"""A request's row as NumPy copies it at once: field by field it takes eight times as long."""
ASIDE = (
    *("aside_bytes", "aside_chunk", "aside_units", "aside_seen", "aside_unit", "most_aside", "moved_bytes"),
    *("way_ps", "far_ps"),
)
IDLE = (
    *("copies", "cuts", *ASIDE, "num_pinned", "interval", "by_norm"),
    *("voters", "is_each", "score_ps", "slide_ps", "slide_bytes"),
)
"""What is 0 where no slots go aside, and where none are reduced."""


def fixed_of(rule: BoundRule, geometry: KVGeometry, budget_bytes: int, prices: Prices, **chosen: int) -> np.ndarray:
    """What does not change: one FIXED record.

    Raises:
        ValueError: layers with a window would give blocks back, or other slots than the rest reduce.
    """
    if rule.turns is not None and any(group.tokens for group in geometry.groups):
        raise ValueError(f"a fleet reduces slots that all layers hold alike; {geometry.called} has {geometry.kinds}")
    area = rule.area if rule.tables is None else rule.areas[0]
    cost = area_cost(area, geometry, 1)
    if cost.frees_windows:
        raise ValueError(
            "window_blocks: keep, or late, in a fleet, where blocks that a window has left go with the next step; got "
            f"free, and {geometry.called} has {geometry.kinds}"
        )
    holds = _holds_of(cost, rule.layout == CONTIGUOUS) if rule.tables is None else _holds_of_tables(rule, geometry)
    kept_bytes = 0 if rule.tables is None else sum(hold.is_state * hold.block_bytes for hold in holds)
    state_bytes = 0 if kept_bytes else geometry.state_bytes
    fixed_bytes = workspace_bytes(rule.areas, geometry, 1)
    if rule.layout == BLOCKS:  # a pool has blocks alone: states that are not kept are set aside beside it
        fixed_bytes += chosen["max_batch"] * state_bytes
        state_bytes = 0
    limit_bytes = max(budget_bytes - fixed_bytes, 0)
    is_small_pool = False
    if isinstance(area.layout, Blocks):
        # A pool is set aside whole, or there is none.
        pool_bytes = cost.bytes_of(area.layout.pool)
        is_small_pool = pool_bytes + cost.bytes_of(rule.unit) <= limit_bytes
        limit_bytes = pool_bytes if pool_bytes <= limit_bytes else 0
    slots = cost.slots_in(limit_bytes - state_bytes)
    figures: dict[str, Any] = {
        "layout": rule.layout,
        "is_lazy": int(not rule.reserves),
        "unit": rule.unit,
        "max_tokens": UNBOUNDED if rule.max_tokens is None else rule.max_tokens,
        "slot_bytes": cost.unit_bytes if rule.tables is None else sum(hold.slot_bytes for hold in holds),
        "num_groups": 0 if rule.tables is None else len(holds),
        "window_interval": 0 if rule.tables is None else rule.tables.window_interval,
        "state_bytes": state_bytes,
        "kept_bytes": kept_bytes,
        "state_interval": 0 if rule.tables is None else rule.tables.state_interval,
        "is_bounded": int(cost.unit_bytes == 0 or min(row[0] for row in (*holds, *prices.sights)) < UNBOUNDED),
        **_turning(rule, geometry, prices),
        "fixed_bytes": fixed_bytes,
        "limit_bytes": limit_bytes,
        "limit_slots": UNBOUNDED if slots is None else slots,
        "is_small_pool": int(is_small_pool),
        **dict.fromkeys(ADDRESSES, 0),
        "num_runs": 0,
        "space_slots": 0 if slots is None else slots // chosen["min_block"] * chosen["min_block"],
        "num_holds": len(holds),
        "holds": holds,
        **chosen,
        **prices._asdict(),
    }
    fixed = np.zeros(1, FIXED)
    for name in FIXED.names or ():
        if name in TABLES:
            fixed[name][0, : len(figures[name])] = np.array(list(figures[name]), FIXED[name].base)
        else:
            fixed[name] = figures[name]
    return fixed


def _turning(rule: BoundRule, geometry: KVGeometry, prices: Prices) -> dict[str, int]:
    """What is asked where slots are reduced, and how many units each of an area's slots is."""
    costs = [area_cost(area, geometry, 1) for area in rule.areas]
    slot_units = sum(sight.weight for sight in prices.sights)
    parts = parts_of(costs, geometry)
    units = [slot_units * parts_in(cost, geometry, parts) for cost in costs]
    found = {"is_turning": int(rule.turns is not None), "unit_parts": parts, "slot_units": units[-1]}
    if rule.turns is None:
        return found | dict.fromkeys(IDLE, 0) | {"aside_group": 1}
    found["copies"], found["cuts"] = copies_of(rule.area), int(rule.turns.at_once is not all_at_once)
    is_copied = found["copies"] == COPIES_EVICTED
    slot_bytes = costs[-1].unit_bytes
    found["slide_ps"] = (prices.launch_ps + moved_ps(slot_bytes, prices.copy_ps, prices)) * is_copied
    found["slide_bytes"] = costs[-1].largest_bytes(1) * is_copied
    found["voters"], found["is_each"] = voters_of(rule.area.score)
    found["score_ps"] = scoring_ps(num_scoring(1, *voters_of(rule.area.score)), 1, prices)
    found |= dict.fromkeys(ASIDE, 0) | {"aside_group": 1, "num_pinned": rule.turns.num_pinned}
    found |= {"interval": rule.turns.interval, "by_norm": int(rule.turns.by_norm)}
    *far, aside = costs[:-1] or costs
    if not isinstance(aside.area.layout, Chunks):
        return found
    far = far[bool(rule.turns.num_pinned) :]
    is_here = aside.area.tier == DEVICE
    by_tier = {DEVICE: 0, HOST: prices.swap_ps, DISK: prices.disk_ps}
    return found | {
        "aside_bytes": aside.unit_bytes * is_here,
        "aside_group": aside.unit_tokens,
        "aside_chunk": aside.area.layout.num_tokens,
        "aside_units": units[-2] * (is_here and aside.area.attended),
        "aside_seen": int(aside.area.attended),
        "aside_unit": rule.turns.aside_unit,
        "most_aside": rule.turns.most_aside,
        "moved_bytes": aside.unit_bytes,
        "way_ps": by_tier[aside.area.tier],
        "far_ps": by_tier[far[-1].area.tier] if far else 0,
    }


def _holds_of(cost: AreaCost, is_copied: bool) -> tuple[Hold, ...]:
    """What layers hold of a sequence, those together that hold equally many tokens; growth copies it, or adds to it.

    Raises:
        ValueError: they hold too many different numbers.
    """
    found: dict[tuple[int, int], Hold] = {}
    for group in cost.groups:
        most = UNBOUNDED if group.most_tokens is None else group.most_tokens
        is_chunk = int(group.is_chunked and most < UNBOUNDED)
        before = found.get((most, is_chunk), Hold(most, 0, is_chunk, 0, 0, 0))
        found[most, is_chunk] = before._replace(
            slot_bytes=before.slot_bytes + group.unit_bytes,
            tensor_bytes=max(before.tensor_bytes, group.tensor_bytes * is_copied),
            layer_bytes=max(before.layer_bytes, group.unit_bytes // group.num_layers),
        )
    if len(found) > MOST_SIGHTS:
        raise ValueError(f"layers hold at most {MOST_SIGHTS} different numbers of tokens, got {len(found)}")
    return tuple(found.values())


def _holds_of_tables(rule: BoundRule, geometry: KVGeometry) -> tuple[Hold, ...]:
    """What groups of layers hold that have tables of blocks of their own, those that look at all tokens first.

    Raises:
        ValueError: there are too many.
    """
    assert rule.tables is not None
    if len(rule.areas) > MOST_SIGHTS:
        raise ValueError(f"groups of layers with tables of their own are at most {MOST_SIGHTS}, got {len(rule.areas)}")
    costs = [area_cost(area, geometry, 1) for area in rule.areas]
    return tuple(
        Hold(
            most_tokens=UNBOUNDED if table.window is None else table.window,
            slot_bytes=0 if table.has_states else cost.unit_bytes,
            is_chunk=0,
            tensor_bytes=0,
            layer_bytes=0,
            most_blocks=rule.tables.most_blocks(table),
            block_bytes=cost.block_bytes,
            is_state=int(table.has_states),
        )
        for cost, table in zip(costs, rule.tables.tables, strict=True)
    )


def tables_of(
    fixed: np.ndarray, prices: np.ndarray, num_replicas: int, last_ns: int, following: Following, num_sessions: int
) -> Tables:
    """All tables, before the first request arrives.

    Args:
        fixed: from `fixed_of`.
        prices: by size.
        num_replicas: how many there are.
        last_ns: when the last request arrives, of those that arrive at their times.
        following: who follows whom.
        num_sessions: of which the router knows where each is served.
    Raises:
        ValueError: this machine has no memory for them.
    """
    (own,) = fixed
    num_live = max(int(own["max_batch"]) + 1, int(own["unit"]) if own["layout"] == BLOCKS else 0)
    num_ranges = int(own["space_slots"] // own["min_block"]) if own["space"] == BUDDY else int(own["max_batch"]) + 2
    space = (4, 1 if own["space"] == COUNTING else max(num_ranges, NUM_ORDERS))
    sums = (NUM_BINS + 1, NUM_COLUMNS)
    each_bytes = num_live * LIVE.itemsize + 8 * (math.prod(space) + math.prod(sums))
    check_memory(f"replicas={num_replicas}, max_batch={num_live - 1}: the tables", num_replicas * each_bytes)
    live = np.zeros((num_replicas, num_live), LIVE)
    live["vacant"] = np.arange(live.shape[1])
    now = np.zeros(num_replicas, REPLICA)
    for name in ("next", "tail", "unseen", "oldest", "youngest", "first_new", "first_ended"):
        now[name] = NONE
    now["unseen_ns"] = FOREVER
    now["number"] = np.arange(num_replicas)
    now["peak_bytes"] = own["fixed_bytes"] if own["limit_bytes"] else 0
    now["bin_ns"] = now["bin_end_ns"] = max(last_ns // NUM_BINS, 1)
    return Tables(
        requests=np.zeros(0, REQUEST),
        replicas=now,
        live=live,
        sums=np.zeros((num_replicas, *sums)),
        space=np.zeros((num_replicas, *space), np.int64),
        fixed=fixed,
        prices=prices,
        sends=sends_of(following.places.size),
        frees=sends_of(0, int(own["num_clients"])),
        following=following,
        turns=np.zeros(0, TURN),
        homes=np.full(num_sessions, NONE),
        loads=np.zeros((0, MOST_TIERS + 1), np.int64),
        fetches=np.zeros((0, MOST_TIERS), FETCH),
    )


def check_order(columns: TraceColumns) -> None:
    """Refuse a trace that cannot be served.

    Raises:
        ValueError: the trace is empty, has no arrivals, or is not in their order.
    """
    arrival_ns = columns.arrivals_ns
    if not arrival_ns.size:
        raise ValueError("no request to simulate: the trace is empty")
    if arrival_ns[0] < 0 or (np.diff(arrival_ns) < 0).any():
        raise ValueError("a fleet's requests come in order of arrival, at 0 ns or later: sort the trace by_arrival()")


def requests_of(columns: TraceColumns) -> np.ndarray:
    """Requests as the kernel's table has them before they arrive."""
    before = np.zeros(1, REQUEST)
    for name in ("follows", "admitted_ns", "first_token_ns", "finish_ns", "outcome", "finish_order"):
        before[name] = NONE
    requests = np.empty(columns.num_requests, REQUEST)
    # A piece at a time, so that a row is written while it is in the cache.
    for first in range(0, requests.size, PIECE):
        own = slice(first, first + PIECE)
        rows = requests[own]
        rows.view(WHOLE)[:] = before.view(WHOLE)
        rows["arrival_ns"] = columns.arrivals_ns[own]
        rows["prompt"] = columns.num_prompt_tokens[own]
        rows["output"] = columns.num_output_tokens[own]
    return requests


def served_of(requests: np.ndarray, numbers: np.ndarray, turns: np.ndarray, loads: np.ndarray) -> Served:
    """What became of requests that have ended; the columns are their tables', not copies.

    Args:
        requests: their REQUEST records.
        numbers: theirs in the trace: each is a session of its own where none are told.
        turns: their TURN records; empty where there are none.
        loads: what they have loaded, as in `Tables`; empty where there is nothing to load from.
    """
    renamed = {"prompt_tokens": "prompt", "output_tokens": "output", "held_tokens": "held"}
    columns = {name: requests[renamed.get(name, name)] for name in (field.name for field in fields(Served)[:-7])}
    none = np.broadcast_to(np.int64(0), requests.size)
    columns |= dict(zip(LOADED, loads.T if loads.size else [none] * len(LOADED), strict=True))
    if not turns.size:
        return Served(**columns, session=numbers, turn=none, hit_tokens=none)
    return Served(**columns, session=turns["session"], turn=turns["turn"], hit_tokens=turns["hit_tokens"])


def result_of(
    tables: Tables, served: Served, makespan_ns: int, tiers: tuple[TierUsed, ...], *, first_ns: int
) -> FleetResult:
    """What the tables say when all requests have ended, from the first arrival to the last end."""
    now, (own,) = tables.replicas, tables.fixed
    assert (now["num_live"] == 0).all()
    assert (now["allocated"] == 0).all()
    summed = {name: sum(now[name].tolist()) for name in COUNTERS}  # of whole numbers of any size
    summed["peak_bytes"] = int(now["peak_bytes"].max())
    busy_ns = sum((now["clock_ns"] - now["idle_ns"]).tolist())
    limit_bytes = int(own["limit_bytes"])
    is_split = bool(own["is_split"])
    timeline, sums = timeline_of(tables.sums, now["bin_ns"], makespan_ns, limit_bytes, is_split)
    return FleetResult(
        **vars(served),
        totals=Totals(makespan_ns=makespan_ns, busy_ns=busy_ns, **summed),
        limits=_limits(sums, (makespan_ns - first_ns) * now.size, bool(own["is_small_pool"])),
        timeline=timeline,
        by_replica=by_replica(tables.sums, now["bin_ns"], makespan_ns),
        limit_bytes=limit_bytes * now.size,
        num_replicas=now.size,
        is_split=is_split,
        sums=sums,
        tiers=tiers,
    )


def _limits(sums: np.ndarray, span_ns: int, is_small_pool: bool) -> Binding:
    """What bound the service, of sums over all replicas and the time that all of them together had."""
    bound_ps = dict(zip((FULL_BATCH, NO_MEMORY, COMPUTING), sums[FULL_BATCH:, DURATION].tolist(), strict=True))
    arrivals_ps = max(span_ns * PS_PER_NS - sum(bound_ps.values()), 0.0)
    whole_ps = arrivals_ps + sum(bound_ps.values()) or math.nan
    memory = bound_ps[NO_MEMORY] / whole_ps
    return Binding(
        arrivals_share=arrivals_ps / whole_ps,
        batch_share=bound_ps[FULL_BATCH] / whole_ps,
        memory_share=memory * (not is_small_pool),
        pool_share=memory * is_small_pool,
        computing_share=bound_ps[COMPUTING] / whole_ps,
    )
