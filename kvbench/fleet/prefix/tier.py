"""A tier below a replica's device: copies of blocks with names, the least recently stored first, see `engine.tiers`.

As on the device, blocks are kept as stretches of runs, but nobody holds them and nobody fills them: they are in a list
by run, in any order, and in a ring by age. Of a stretch the deepest block is the oldest.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from kvbench.compiled import part, records
from kvbench.fleet.prefix.segments import cell_at, run_at, turn_at
from kvbench.fleet.state import NONE, Machine


class TierRow(Protocol):
    """A record of a tier of a replica, and of its link.

    Nothing is behind the address of the tier below where there is none, which is 0 then.
    """

    below_at: int
    table_at: int  # the address of a replica's first cell, and how many cells on the next run's is
    stride: int
    kept_at: int
    num_kept: int  # of KEPT records, how many were ever used, and the first of those given up
    vacant_kept: int
    kind: int  # its place in `engine.tiers.BELOW`
    size: int  # blocks that it holds at most, and those that it does
    num_blocks: int
    num_written_blocks: int  # of those stored, those that were not there
    num_loaded_blocks: int
    num_found_tokens: int  # that requests load as they are first admitted
    block_ps: int
    latency_ps: int  # of a transfer, as it is in the middle, and the address of those that one is drawn from
    latencies_at: int
    num_transfers: int
    iteration: int  # in which loads were given to the link last, and how long after its begin it is busy with them
    busy_ps: int
    reach: int  # of the request that is looked for: where the deepest block ends that is here or further up
    load_blocks: int  # and how many of it are to be loaded
    # Of what is fetched ahead, see `prefix.fetches`.
    loading_ns: int  # for how long the link had loads in iterations before
    free_ns: int  # when it has fetched what it was given, of `engine.tiers.spare_ns`
    come_blocks: int  # of the request that is looked for, those that came from here to the first tier
    num_prefetched_blocks: int


class KeptRow(Protocol):
    """A record of some of a run's blocks in a tier, counted from the beginning of the run. Number 0 is none."""

    run: int
    first: int
    count: int
    next: int  # of the run
    older: int  # a ring through number 0
    newer: int


TIER = np.dtype([(name, np.int64) for name in TierRow.__annotations__])
KEPT = np.dtype([(name, np.int32) for name in KeptRow.__annotations__])
tier_at, kept_at = records(TIER), records(KEPT)
Store = Callable[[TierRow, int, int, int], None]


@part
def _put_first(tier: TierRow, run: int, number: int) -> None:
    cell_at(tier.table_at, run * tier.stride).value = number


@part
def _first_of(tier: TierRow, run: int) -> int:
    return int(cell_at(tier.table_at, run * tier.stride).value)


@part
def deepest(tier: TierRow, run: int) -> int:
    """Where the deepest block of a run that is there ends; 0: there is none."""
    number, end = _first_of(tier, run), 0
    while number > 0:
        own = kept_at(tier.kept_at, number)
        end = max(end, own.first + own.count)
        number = own.next
    return end


@part
def _fresh(tier: TierRow, run: int, first: int, count: int) -> int:
    """A new stretch, in the list of its run."""
    number = tier.vacant_kept
    if number > 0:
        tier.vacant_kept = kept_at(tier.kept_at, number).next
    else:
        tier.num_kept += 1
        number = tier.num_kept
    own = kept_at(tier.kept_at, number)
    own.run, own.first, own.count, own.next = run, first, count, _first_of(tier, run)
    _put_first(tier, run, number)
    return number


@part
def _drop(tier: TierRow, number: int) -> None:
    """Give up a stretch that is in no order of age."""
    own = kept_at(tier.kept_at, number)
    before = _first_of(tier, own.run)
    if before == number:
        _put_first(tier, own.run, own.next)
    else:
        while kept_at(tier.kept_at, before).next != number:
            before = kept_at(tier.kept_at, before).next
        kept_at(tier.kept_at, before).next = own.next
    own.next = tier.vacant_kept
    tier.vacant_kept = number


@part
def _link_before(tier: TierRow, number: int, newer: int) -> None:
    """Make a stretch the next older one; of number 0: the newest."""
    own, after = kept_at(tier.kept_at, number), kept_at(tier.kept_at, newer)
    own.older, own.newer = after.older, newer
    kept_at(tier.kept_at, own.older).newer = number
    after.older = number


@part
def _unlink(tier: TierRow, number: int) -> None:
    own = kept_at(tier.kept_at, number)
    kept_at(tier.kept_at, own.older).newer = own.newer
    kept_at(tier.kept_at, own.newer).older = own.older


@part
def _cut(tier: TierRow, number: int, at: int) -> int:
    """Cut a stretch in two at a block of its run; the deeper one."""
    own = kept_at(tier.kept_at, number)
    deeper = _fresh(tier, own.run, at, own.first + own.count - at)
    own.count = at - own.first
    _link_before(tier, deeper, number)
    return deeper


@part
def _make_newest(tier: TierRow, number: int) -> None:
    """Make a stretch that is in no order the newest; one with the newest so far, where it ends as that begins."""
    own, newest = kept_at(tier.kept_at, number), kept_at(tier.kept_at, 0).older
    behind = kept_at(tier.kept_at, newest)
    if newest > 0 and behind.run == own.run and behind.first == own.first + own.count:
        behind.first = own.first
        behind.count += own.count
        _drop(tier, number)
    else:
        _link_before(tier, number, 0)


@part
def _place(tier: TierRow, run: int, first: int, end: int) -> tuple[int, int]:
    """The stretch with the last of a run's blocks before an end, or 0 and from where on, down to a first one, there is
    none."""
    number, begin = _first_of(tier, run), first
    while number > 0:
        own = kept_at(tier.kept_at, number)
        own_end = own.first + own.count
        if own.first < end <= own_end:
            return number, begin
        if own_end < end:
            begin = max(begin, own_end)
        number = own.next
    return 0, begin


@part
def _renew(tier: TierRow, number: int, first: int, end: int) -> int:
    """Make blocks of a stretch before an end the newest, down to a first one; where they begin."""
    own = kept_at(tier.kept_at, number)
    if own.first + own.count > end:
        _cut(tier, number, end)
    if own.first < first:
        number = _cut(tier, number, first)
        own = kept_at(tier.kept_at, number)
    begin = own.first
    if own.newer > 0:
        _unlink(tier, number)
        _make_newest(tier, number)
    return int(begin)


@part
def _lose(tier: TierRow, run: int, first: int, past: int) -> None:
    """Blocks leave the last tier."""


def _storing(below: Store) -> Store:
    """What stores blocks in a tier, and what leaves that for them in the one below: a function a depth, as compiled
    code that calls itself cannot be kept."""

    @part
    def store(tier: TierRow, run: int, first: int, past: int) -> None:
        end = past
        while end > first:
            found, begin = _place(tier, run, first, end)
            if found > 0:
                end = _renew(tier, found, first, end)
                continue
            _make_newest(tier, _fresh(tier, run, begin, end - begin))
            tier.num_blocks += end - begin
            tier.num_written_blocks += end - begin
            end = begin
            while tier.num_blocks > tier.size:
                number = kept_at(tier.kept_at, 0).newer
                own = kept_at(tier.kept_at, number)
                num_gone = min(own.count, tier.num_blocks - tier.size)
                gone, left = own.run, own.first + own.count - num_gone
                own.count -= num_gone
                tier.num_blocks -= num_gone
                if own.count == 0:
                    _unlink(tier, number)
                    _drop(tier, number)
                if tier.below_at != 0:
                    below(tier_at(tier.below_at, 0), gone, left, left + num_gone)

    made: Store = store
    return made


store = _storing(_storing(_storing(_lose)))
"""Stores blocks of a run in a tier, from one to before another, the deepest first."""


@part
def store_all(m: Machine, request: int, first: int, past: int) -> None:
    """Store blocks of a request in the first tier, from one to before another, the deepest first."""
    turn, tier = turn_at(m.fixed.turns_at, request), tier_at(m.now.tiers_at, 0)
    place = turn.leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        if run.past <= first:
            return
        if run.first < past:
            store(tier, turn.base + place, max(run.first, first) - run.first, min(run.past, past) - run.first)
        place = run.parent
