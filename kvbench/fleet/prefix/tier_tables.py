"""Tables of the tiers below the device that a fleet's replicas have, and what they say when it has run."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.engine.tiers import BELOW, COST, THROUGH, latencies_ps, tier_blocks
from kvbench.fleet.bounds import check_memory
from kvbench.fleet.prefix.runs import MOST_NUMBERS, Runs
from kvbench.fleet.prefix.segments import CELL
from kvbench.fleet.prefix.tier import KEPT, TIER
from kvbench.fleet.result import TierPlan, TierUsed
from kvbench.fleet.rules import BoundRule
from kvbench.fleet.state import NONE, Tables
from kvbench.ledger.costs import area_cost
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import Paged
from kvbench.timing.links import Link, computing_ps, token_ps
from kvbench.timing.prices import Prices


class TierTables(NamedTuple):
    """Tables of tiers; they are kept as long as their addresses are known.

    Args:
        rows: TIER records [replicas, tiers].
        tables: CELL records [runs of all copies, replicas], a tier.
        kept: KEPT records [replicas, more than there can be], a tier.
        latencies: int64, a tier; those that one is drawn from, empty where it does not vary.
    """

    rows: NDArray[np.void]
    tables: list[NDArray[np.void]]
    kept: list[NDArray[np.void]]
    latencies: list[NDArray[np.int64]]


def plans_of(
    strategy: Strategy, rule: BoundRule, geometry: KVGeometry, links: Mapping[str, Link], prices: Prices
) -> tuple[TierPlan, ...]:
    """The tiers that a strategy has, the next below the device first.

    Args:
        strategy: of blocks with names.
        rule: its own.
        geometry: what an accelerator's layers hold.
        links: of tiers, by name.
        prices: of computing.
    Raises:
        ValueError: nothing says what a link takes, a tier holds no block, or layers hold unlike tokens.
    """
    tier_bytes = strategy.tier_bytes if isinstance(strategy, Paged) else {}
    if tier_bytes and any(group.tokens for group in geometry.groups) and not _holds_alike(rule, geometry):
        raise ValueError(
            f"{next(iter(tier_bytes))}_bytes: tiers keep blocks that all layers hold alike; {geometry.called} has "
            f"{geometry.kinds}: set window_blocks to keep, or it to 0"
        )
    made, block_bytes = [], area_cost(rule.area, geometry, 1).whole_bytes(rule.unit)
    for name, num_bytes in tier_bytes.items():
        if name not in links:
            raise ValueError(f"{name}_bytes: a fleet loads from the {name} over a link; got links of {list(links)}")
        num_blocks = tier_blocks(num_bytes, block_bytes)
        if num_blocks == 0:
            raise ValueError(f"{name}_bytes holds at least a block of {block_bytes:,} bytes, got {num_bytes:,}")
        computed_ps = computing_ps(1, rule.unit, token_ps(prices))
        made.append(TierPlan(name, num_blocks, block_bytes, links[name], computed_ps))
    return tuple(made)


def _holds_alike(rule: BoundRule, geometry: KVGeometry) -> bool:
    """Whether layers with a window hold the same blocks as others."""
    return rule.tables is None and not area_cost(rule.area, geometry, 1).frees_windows


def tier_rules(strategy: Strategy, plans: tuple[TierPlan, ...], prices: Prices, seed: int) -> dict[str, int]:
    """What does not change of tiers, as a FIXED record has it."""
    if not plans or not isinstance(strategy, Paged):
        return dict.fromkeys(("num_tiers", "writes_through", "weighs_loads", "token_ps", "tier_seed", "fetches"), 0)
    return {
        "num_tiers": len(plans),
        "writes_through": int(strategy.tier_writes == THROUGH),
        "weighs_loads": int(strategy.tier_loads == COST),
        "token_ps": token_ps(prices),
        "tier_seed": seed,
        "fetches": int(strategy.prefetch),
    }


def tiers_of(tables: Tables, plans: tuple[TierPlan, ...], runs: Runs, repeats: int) -> TierTables:
    """Tables for a trace so many times; their addresses are written to those of the kernel.

    Raises:
        ValueError: there are too many blocks, or no memory for them.
    """
    num_replicas, num_copies = tables.replicas.size, runs.num_copies * repeats
    num_runs = runs.rows.size * num_copies
    num_blocks = int((runs.rows["past"].astype(np.int64) - runs.rows["first"]).sum()) * num_copies
    # A stretch has a block at least; one more is put in before another leaves, and one is cut in two.
    sizes = [min(plan.num_blocks, num_blocks) + 3 for plan in plans]
    names = ", ".join(f"{plan.name} {size:,}" for plan, size in zip(plans, sizes, strict=True))
    what = f"blocks of tiers ({names}), {num_runs:,} stretches of text, repeats={repeats}, replicas={num_replicas},"
    check_memory(what, num_replicas * sum(num_runs * CELL.itemsize + size * KEPT.itemsize for size in sizes))
    if max(sizes) > MOST_NUMBERS:
        raise ValueError(f"{what} are more than {MOST_NUMBERS:,}, which a fleet can number")
    made = TierTables(
        np.zeros((num_replicas, len(plans)), TIER),
        [np.zeros((num_runs, num_replicas), CELL) for _ in plans],
        [np.zeros((num_replicas, size), KEPT) for size in sizes],
        [_latencies(plan.link) for plan in plans],
    )
    made.rows["stride"], made.rows["iteration"] = num_replicas, NONE
    each = np.arange(num_replicas)
    for i, plan in enumerate(plans):
        own = made.rows[:, i]
        own["kind"], own["size"], own["block_ps"] = BELOW.index(plan.name), plan.num_blocks, plan.link.block_ps
        own["latency_ps"] = plan.link.latency_ps
        own["latencies_at"] = made.latencies[i].ctypes.data if made.latencies[i].size else 0
        own["table_at"] = made.tables[i].ctypes.data + CELL.itemsize * each
        own["kept_at"] = made.kept[i].ctypes.data + made.kept[i].strides[0] * each
    at = made.rows.ctypes.data + made.rows.strides[0] * each
    for i in range(len(plans) - 1):
        made.rows["below_at"][:, i] = at + TIER.itemsize * (i + 1)
    tables.replicas["tiers_at"] = at
    return made


def used_of(plans: tuple[TierPlan, ...], tables: TierTables) -> tuple[TierUsed, ...]:
    """What tiers did."""
    counts = (tables.rows[name].sum(axis=0).tolist() for name in TierUsed._fields[1:])
    return tuple(TierUsed(*each) for each in zip(plans, *counts, strict=True))


def _latencies(link: Link) -> NDArray[np.int64]:
    if not link.spread:
        return np.zeros(0, np.int64)
    return np.array(latencies_ps(link.fixed_ps, link.varying_ps, link.spread), np.int64)
