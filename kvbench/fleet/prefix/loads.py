"""What a request finds in the tiers below the device as it is admitted, and what it loads of that over their links."""

from typing import Protocol

import numpy as np

from kvbench.compiled import part, plain, records
from kvbench.engine.prefixes import most_hit_blocks
from kvbench.engine.tiers import busy_until_ps, drawn, is_worth, ready_ps
from kvbench.fleet.holds import held_bytes
from kvbench.fleet.prefix.cache import fill, free_blocks, num_idle
from kvbench.fleet.prefix.fetches import end_fetch, look, renew_link, take_come
from kvbench.fleet.prefix.tier import tier_at
from kvbench.fleet.room import make_room
from kvbench.fleet.state import FOUND_BELOW, LOADING, MOST_TIERS, Machine


class FigureRow(Protocol):
    """A record of a table of whole numbers."""

    value: int


FIGURE = np.dtype([("value", np.int64)])
figure_at = records(FIGURE)
_busy_until_ps, _drawn, _is_worth = plain(busy_until_ps), plain(drawn), plain(is_worth)
_most_hit_blocks, _ready_ps = plain(most_hit_blocks), plain(ready_ps)


@part
def _num_loads(m: Machine, request: int, num_found: int, num_tokens: int) -> int:
    """Blocks that a request is to load, which finds so many on the device, and is to compute so many tokens."""
    most = _most_hit_blocks(num_tokens, m.fixed.unit)
    if num_found >= most and m.fixed.fetches_at == 0:
        return 0
    look(m, request, num_found, most)
    if m.fixed.fetches_at > 0:
        take_come(m, request, num_found)
    return _weigh(m, num_found)


@part
def has_load_room(m: Machine, request: int, num_found: int, num_tokens: int) -> bool:
    """Whether there is room for what a request would load, beside the blocks that it finds, of which it would hold
    those that nobody does."""
    num_blocks = _num_loads(m, request, num_found, num_tokens)
    return num_blocks == 0 or num_blocks + num_idle(m, request, num_found) <= free_blocks(m)


@part
def load(m: Machine, place: int) -> None:
    """Load what a request that has become live finds below the device, behind the blocks that are there.

    Loaded blocks are new ones of the device: as blocks that it computes, but that the step has no work with them. Only
    who is alone may have no room for them, and loads none.
    """
    now, own, unit = m.now, m.live[place], m.fixed.unit
    num_blocks = _num_loads(m, own.request, own.hit_blocks, max(own.prompt, own.saved))
    if m.fixed.fetches_at > 0:
        end_fetch(m, own.request, own.hit_blocks)
    if num_blocks == 0 or num_blocks > free_blocks(m):
        return
    held, num_bytes = own.held, held_bytes(own, own.held, m.fixed)
    make_room(m, place, held, held + num_blocks * unit)
    own.held += num_blocks * unit
    fill(m, place, held // unit, own.held // unit)
    now.new_used += held_bytes(own, own.held, m.fixed) - num_bytes
    _pass_links(m, own.request, own.saved == 0)


@part
def _weigh(m: Machine, num_found: int) -> int:
    """Decide which stretches are loaded, each of one tier; how many blocks that are."""
    now, fixed, reach = m.now, m.fixed, num_found
    is_over = False
    for i in range(fixed.num_tiers):
        tier = tier_at(now.tiers_at, i)
        renew_link(m, tier)
        tier.load_blocks = 0
        num_blocks = tier.reach - reach
        if num_blocks <= 0 or is_over:
            continue
        if fixed.weighs_loads and not _is_worth(
            tier.busy_ps, tier.latency_ps, num_blocks, tier.block_ps, fixed.unit, fixed.token_ps
        ):
            is_over = True
            continue
        tier.load_blocks = num_blocks
        reach = tier.reach
    return reach - num_found


@part
def _pass_links(m: Machine, request: int, is_first: bool) -> None:
    """Give the links what is loaded; the iteration goes on until all is there."""
    now, fixed, last_ps = m.now, m.fixed, 0
    figures = request * (MOST_TIERS + 1)
    for i in range(fixed.num_tiers):
        tier = tier_at(now.tiers_at, i)
        if tier.load_blocks == 0:
            continue
        latency_ps = tier.latency_ps
        if tier.latencies_at != 0:
            number = _drawn(fixed.tier_seed, now.number, tier.num_transfers)
            latency_ps = figure_at(tier.latencies_at, number).value
        tier.busy_ps = _busy_until_ps(tier.busy_ps, 0, tier.load_blocks, tier.block_ps)
        done_ps = _ready_ps(tier.busy_ps, latency_ps)
        tier.num_transfers += 1
        tier.num_loaded_blocks += tier.load_blocks
        m.sums[now.bin, LOADING + tier.kind] += done_ps
        last_ps = max(last_ps, done_ps)
        if is_first:
            num_tokens = tier.load_blocks * fixed.unit
            tier.num_found_tokens += num_tokens
            m.sums[now.bin, FOUND_BELOW + tier.kind] += num_tokens
            figure_at(fixed.loads_at, figures + tier.kind).value = num_tokens
    figure_at(fixed.loads_at, figures + MOST_TIERS).value += last_ps
    now.ready_ps = max(now.ready_ps, last_ps)
