"""What a request finds in the tiers below the device, and what of it is fetched ahead while it waits.

As a request joins the queue it is noted how deep the blocks reach that are there, by tier; what has come of them by its
admission follows from that, and from when each link was free of those before it.
"""

from typing import Protocol

import numpy as np

from kvbench.compiled import part, plain, records
from kvbench.engine.prefixes import most_hit_blocks
from kvbench.engine.tiers import free_again_ns, num_come, spare_ns
from kvbench.fleet.prefix.cache import find
from kvbench.fleet.prefix.segments import run_at, turn_at
from kvbench.fleet.prefix.tier import TierRow, deepest, store_all, tier_at
from kvbench.fleet.state import MOST_TIERS, NONE, Machine
from kvbench.timing.prices import PS_PER_NS


class FetchRow(Protocol):
    """A record of a request that waits, and a tier; of the first tier the blocks before those that are fetched."""

    reach: int  # where its deepest block ends that was there, or further up
    issue_ns: int  # since when it is fetched, of `engine.tiers.spare_ns`


FETCH = np.dtype([(name, np.int64) for name in FetchRow.__annotations__])
fetch_at = records(FETCH)
_free_again_ns, _num_come, _spare_ns = plain(free_again_ns), plain(num_come), plain(spare_ns)
_most_hit_blocks = plain(most_hit_blocks)


@part
def look(m: Machine, request: int, num_found: int, most: int) -> None:
    """Find how deep a request's blocks reach, in each tier with those above it.

    No block is there without those before it on the device, in its tier, or in one above: the search begins at the deep
    end, and ends where the first tier has something.
    """
    for i in range(m.fixed.num_tiers):
        tier_at(m.now.tiers_at, i).reach = num_found
    turn, first = turn_at(m.fixed.turns_at, request), tier_at(m.now.tiers_at, 0)
    place = turn.leaf
    while place != NONE and first.reach == num_found:
        run = run_at(m.fixed.runs_at, place)
        if run.past <= num_found:
            return
        if run.first < most:
            for i in range(m.fixed.num_tiers):
                tier = tier_at(m.now.tiers_at, i)
                end = deepest(tier, turn.base + place)
                if end > 0:
                    tier.reach = max(tier.reach, min(run.first + end, most))
        place = run.parent


@part
def renew_link(m: Machine, tier: TierRow) -> None:
    """Let a link begin the iteration with nothing to load."""
    if tier.iteration != m.now.num_iterations:
        tier.loading_ns += -(-tier.busy_ps // PS_PER_NS)
        tier.iteration, tier.busy_ps = m.now.num_iterations, 0


@part
def begin_fetch(m: Machine, request: int) -> None:
    """Fetch blocks for a request that joins the queue, from where they are now."""
    most = _most_hit_blocks(m.requests[request].prompt, m.fixed.unit)
    look(m, request, find(m, request, most), most)
    reach = 0
    for i in range(m.fixed.num_tiers):
        tier, own = tier_at(m.now.tiers_at, i), fetch_at(m.fixed.fetches_at, request * MOST_TIERS + i)
        renew_link(m, tier)
        reach = max(reach, tier.reach)
        own.reach, own.issue_ns = reach, _spare_ns(m.now.clock_ns, tier.loading_ns)


@part
def take_come(m: Machine, request: int, num_found: int) -> None:
    """Count what has come for a request that finds so many blocks on the device among those of the first tier."""
    num_tiers, own = m.fixed.num_tiers, fetch_at(m.fixed.fetches_at, request * MOST_TIERS)
    first, begin, end, before, is_over = tier_at(m.now.tiers_at, 0), own.reach, own.reach, own.reach, False
    last = first.reach
    for i in range(1, num_tiers):
        tier, own = tier_at(m.now.tiers_at, i), fetch_at(m.fixed.fetches_at, request * MOST_TIERS + i)
        renew_link(m, tier)
        start_ns, now_ns = max(own.issue_ns, tier.free_ns), _spare_ns(m.now.clock_ns, tier.loading_ns)
        if not is_over:
            count = _num_come(start_ns, now_ns, tier.latency_ps, tier.block_ps, own.reach - before)
            end += count
            is_over = count < own.reach - before
        before, tier.come_blocks, last = own.reach, 0, max(last, tier.reach)
    end = min(end, last, num_found + first.size)
    if begin > first.reach:
        return
    before = first.reach
    for i in range(1, num_tiers):
        tier = tier_at(m.now.tiers_at, i)
        tier.come_blocks = max(min(tier.reach, end) - before, 0)
        before += tier.come_blocks
    first.reach = before


@part
def end_fetch(m: Machine, request: int, num_found: int) -> None:
    """Fetch no more for a request that is admitted, and store what has come, with what is before it, in the first tier.

    Those before it were looked for, as `take_come` does.
    """
    num_come, reach = 0, 0
    for i in range(m.fixed.num_tiers):
        tier, own = tier_at(m.now.tiers_at, i), fetch_at(m.fixed.fetches_at, request * MOST_TIERS + i)
        if i > 0:
            now_ns = _spare_ns(m.now.clock_ns, tier.loading_ns)
            start_ns = max(own.issue_ns, tier.free_ns)
            tier.free_ns = _free_again_ns(start_ns, now_ns, tier.block_ps, own.reach - reach)
            tier.num_prefetched_blocks += tier.come_blocks
            num_come += tier.come_blocks
        reach = own.reach
        own.reach = 0
    if num_come > 0:
        store_all(m, request, num_found, tier_at(m.now.tiers_at, 0).reach)
