"""Simulate a fleet: a whole trace through replicas of a model, under one strategy."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from kvbench.checks import check_int, check_number
from kvbench.engine.eviction import EVICTIONS, LRU
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet.blocks import BLOCK, run_blocks, run_whole
from kvbench.fleet.bounds import (
    EACH_ITS_STEP,
    LATEST_NS,
    MOST_BATCH,
    MOST_BYTES,
    MOST_REPLICAS,
    MOST_TOKENS,
    check_requests,
    last_arrival_ns,
)
from kvbench.fleet.prefix.known import KnownTables
from kvbench.fleet.prefix.runs import NameTables, Runs, known_of, names_of, runs_of
from kvbench.fleet.prefix.tier_tables import plans_of, tier_rules, tiers_of, used_of
from kvbench.fleet.prefix.uses import order_of
from kvbench.fleet.result import FleetResult, Served
from kvbench.fleet.rules import BoundRule, bound_rule
from kvbench.fleet.sessions import following_of, num_sessions
from kvbench.fleet.state import BLOCKS, CONTIGUOUS, LOAD_PARTS, PREEMPTIONS, PREFIX, ROUTINGS, SESSION, SPACES, Tables
from kvbench.fleet.tables import check_order, fixed_of, result_of, tables_of
from kvbench.messages import unknown
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import DEVICE
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import Paged
from kvbench.timing.links import Link
from kvbench.timing.prices import UNBOUNDED, Prices
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns

Serve = Callable[[Tables, BoundRule, TraceColumns, int, Runs | None], tuple[Served, int]]
NO_LINKS: Mapping[str, Link] = MappingProxyType({})
LONGEST_JUMP = 1 << 16
"""Iterations taken at once, at most."""


def simulate(
    columns: TraceColumns,
    strategy: Strategy,
    prices: Prices,
    *,
    geometry: KVGeometry,
    budget_bytes: int,
    max_batch: int,
    scheduling: Scheduling = EACH_ITS_STEP,
    preemption: str = "recompute",
    replicas: int = 1,
    routing: str = "round_robin",
    routing_seed: int = 0,
    routing_load: float = 1.0,
    routing_delay_s: float = 0.0,
    space: str = "counting",
    min_block_tokens: int = 1,
    split: bool = True,
    step_by_step: bool = False,
    links: Mapping[str, Link] = NO_LINKS,
    seed: int = 0,
    repeats: int = 1,
    fold: Callable[[Served], object] | None = None,
    block: int = BLOCK,
    serve: Serve = run_whole,
) -> FleetResult:
    """Run a trace through continuous batching, from event to event.

    As `kvbench.runner.scheduler` with the modelled backend decides and counts, so does this: first come, first
    served; a step of every live request an iteration; where memory does not last, the youngest gives way. The same
    requests are admitted, preempted and finished, at the same times, with the same bytes.

    Args:
        columns: the trace, in order of arrival.
        strategy: one that decides by an integer rule.
        prices: of the model on an accelerator.
        geometry: bytes of a slot.
        budget_bytes: memory of each replica for caches.
        max_batch: as in `Fleet`, like all that stand there.
        scheduling: how an iteration is filled.
        preemption: as in `Fleet`.
        replicas: so too.
        routing: so too.
        routing_seed: so too.
        routing_load: so too.
        routing_delay_s: so too.
        space: so too; of a strategy without contiguous slots only counting.
        min_block_tokens: slots of a buddy allocator's smallest range, a power of two.
        split: as in `Fleet`.
        step_by_step: take every iteration by itself, to the same result.
        links: of tiers below the device, by name.
        seed: what latencies of their transfers are drawn with.
        repeats: as in `Fleet`.
        fold: takes what became of requests, some at a time, as they end; nothing else keeps it, and memory does not
            grow with them. None: the result has it of all.
        block: requests that get a row at once, with a fold.
        serve: how the kernel is called without a fold.
    Returns:
        What became of every request, and of the replicas.
    Raises:
        ValueError: a parameter is out of its range, the trace has no arrivals, or the strategy no integer rule.
    """
    check_settings(max_batch, preemption, replicas, routing, space, routing_delay_s)
    for name, value in (("tokens", scheduling.tokens), ("sequences", scheduling.sequences)):
        if value is not None:
            check_int(f"scheduling.{name}", value, 1, MOST_TOKENS)
    _check_memory(budget_bytes, min_block_tokens)
    rule = bound_rule(strategy)
    _check_space(strategy, rule, geometry, space, preemption)
    check_order(columns)
    scheduling = scheduling.of_pool(rule.layout == BLOCKS)
    max_batch = min(max_batch, scheduling.most_live(max_batch))
    following = following_of(columns, repeats)
    shares = _shares(columns, strategy, geometry, preemption)
    plans = plans_of(strategy, rule, geometry, links, prices) if shares else ()
    has_links = any(area.tier != DEVICE for area in rule.areas)
    most = check_requests(columns, prices, max_batch, repeats, scheduling=scheduling, has_links=has_links)
    fixed = fixed_of(
        rule,
        geometry,
        budget_bytes,
        prices,
        max_batch=min(max_batch, columns.num_requests * repeats),
        tokens=UNBOUNDED if scheduling.tokens is None else scheduling.tokens,
        chunks=int(scheduling.chunks),
        mixes=int(scheduling.mixes),
        counts_decode=int(scheduling.counts_decode),
        evicts=int(scheduling.evicts or rule.tables is not None),
        num_clients=min(columns.num_clients or 0, columns.num_requests * repeats),
        is_awaited=int(columns.num_clients is not None or following.num_parents.size > 0),
        preemption=PREEMPTIONS.index(preemption),
        routing=ROUTINGS.index(routing),
        space=SPACES.index(space),
        min_block=min_block_tokens,
        is_split=int(split),
        waits_for_end=int(scheduling.waits_for_end),
        fits_prompts=int(scheduling.fits_prompts),
        plans_steps=int(scheduling.plans_steps),
        is_asked=int(shares or scheduling.fits_prompts or (rule.tables is not None and rule.tables.has_states)),
        shares=int(shares),
        num_replicas=replicas,
        **tier_rules(strategy, plans, prices, seed),
        routing_seed=routing_seed,
        routing_load=round(routing_load * LOAD_PARTS),
        max_jump=1 if step_by_step else min(most, LONGEST_JUMP),
    )
    homes = num_sessions(columns) * repeats if ROUTINGS[SESSION] == routing else 0
    tables = tables_of(fixed, prices.tables, replicas, last_arrival_ns(columns, repeats), following, homes)
    runs = runs_of(columns.contents, rule.unit) if shares and columns.contents is not None else None
    names = None if runs is None else names_of(tables, runs, repeats)
    known = _known(tables, names, routing_delay_s)
    tiers = None if runs is None or not plans else tiers_of(tables, plans, runs, repeats)
    eviction = strategy.eviction if isinstance(strategy, Paged) else EVICTIONS[LRU]
    order = (
        None
        if names is None or eviction == EVICTIONS[LRU]
        else order_of(tables.fixed, names, eviction, columns.goes_on)
    )
    if fold is None:
        ended = serve(tables, rule, columns, repeats, runs)
    else:
        ended = run_blocks(tables, rule, columns, repeats, runs, block, fold)
    del names, known, order  # the kernel knew their addresses
    used = () if tiers is None else used_of(plans, tiers)
    return result_of(tables, *ended, used, first_ns=int(columns.arrivals_ns[0]))


def _known(tables: Tables, names: NameTables | None, delay_s: float) -> KnownTables | None:
    """What a router knows that does not see blocks; None: it does, or there are none with names.

    Raises:
        ValueError: groups of layers have tables of blocks of their own, or there is no memory for it.
    """
    delay_ns = round(delay_s * NS_PER_S)
    if names is None or delay_ns == 0:
        return None
    if tables.fixed["num_groups"]:
        raise ValueError(
            f"routing_delay_s={delay_s:g} is of layers that all hold the same blocks, and here groups of them have "
            "tables of their own: leave it 0, or set window_blocks to keep where these are windows"
        )
    return known_of(tables.fixed, names, delay_ns)


def _check_space(strategy: Strategy, rule: BoundRule, geometry: KVGeometry, space: str, preemption: str) -> None:
    """Refuse where and how slots are held that a strategy's rule does not go with."""
    if rule.turns is not None and (space != "counting" or preemption != "recompute"):
        raise ValueError(
            f"{type(strategy).__name__} reduces what a sequence holds, which is counted, and computed again after a "
            f"preemption; got space={space} and preemption={preemption}"
        )
    if rule.layout != CONTIGUOUS and space != "counting":
        raise ValueError(f"space={space} places contiguous slots; {type(strategy).__name__} takes them in units")
    if space != "counting" and (geometry.state_bytes or any(group.tokens for group in geometry.groups)):
        raise ValueError(
            f"space={space} places slots that all cost the same; {geometry.called} has {geometry.kinds}: use counting"
        )


def _shares(columns: TraceColumns, strategy: Strategy, geometry: KVGeometry, preemption: str) -> bool:
    """Whether requests share blocks."""
    keeps = isinstance(strategy, Paged) and bool(strategy.prefix_caching)
    if not keeps or (columns.contents is None and not geometry.state_bytes):
        return False
    if geometry.state_bytes and not strategy.cuts_prompts:
        raise ValueError(
            f"states that others may go on from lie in blocks of the pool; {geometry.called} has {geometry.kinds}: fit "
            "the strategy to it first (Strategy.fitted)"
        )
    if preemption != "recompute":
        raise ValueError(f"blocks that others may find are computed again after a preemption; got {preemption=!s}")
    return columns.contents is not None


def _check_memory(budget_bytes: int, min_block_tokens: int) -> None:
    check_int("budget_bytes", budget_bytes, 1, MOST_BYTES)
    check_int("min_block_tokens", min_block_tokens, 1, MOST_TOKENS)
    if min_block_tokens & (min_block_tokens - 1):
        raise ValueError(f"min_block_tokens is a power of two, got {min_block_tokens}")


def check_settings(
    max_batch: int, preemption: str, replicas: int, routing: str, space: str, routing_delay_s: float
) -> None:
    """Refuse settings of `simulate` that are out of their range.

    Raises:
        ValueError: there is such a setting.
    """
    check_int("max_batch", max_batch, 1, MOST_BATCH)
    check_int("replicas", replicas, 1, MOST_REPLICAS)
    for name, value, allowed in (
        ("preemption", preemption, PREEMPTIONS),
        ("routing", routing, ROUTINGS),
        ("space", space, SPACES),
    ):
        if value not in allowed:
            raise ValueError(unknown(name, value, allowed))
    check_number("routing_delay_s", routing_delay_s, 0, LATEST_NS / NS_PER_S)
    if routing_delay_s and routing != ROUTINGS[PREFIX]:
        raise ValueError(
            f"routing_delay_s={routing_delay_s:g} is how late a router knows of blocks, and routing={routing} asks for "
            "none: leave it 0, or set routing to prefix"
        )
