"""What a simulation found: a column a request, totals, and memory over time."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.by_replica import ByReplica
from kvbench.fleet.state import ALLOCATED, BATCH, DURATION, FULL_BATCH, NO_MEMORY, ROUNDED, USED, WASTED, Counters
from kvbench.timing.links import Link
from kvbench.timing.prices import PS_PER_S


@dataclass(kw_only=True)
class Totals(Counters):
    """Sums over all replicas of what each counts, and their times.

    Args:
        makespan_ns: when the last request ended.
        busy_ns: time in which a replica had something to do.
    """

    makespan_ns: int
    busy_ns: int


class TierPlan(NamedTuple):
    """A tier of each replica.

    Args:
        name: host, disk or remote.
        num_blocks: that it holds.
        block_bytes: of each.
        link: to the device.
        computing_ps: what computing a block's tokens takes.
    """

    name: str
    num_blocks: int
    block_bytes: int
    link: Link
    computing_ps: int


class TierUsed(NamedTuple):
    """What a tier did, of all replicas together.

    Args:
        plan: the tier.
        num_loaded_blocks: that its links loaded.
        num_written_blocks: that were stored in it and were not there.
        num_found_tokens: that requests loaded as they were first admitted.
        num_prefetched_blocks: that were fetched from it to the first tier while requests waited, and used.
    """

    plan: TierPlan
    num_loaded_blocks: int
    num_written_blocks: int
    num_found_tokens: int
    num_prefetched_blocks: int


class Shares(NamedTuple):
    """Where the memory of all replicas was, averaged over the time of some iterations; the five parts add up to 1.

    Args:
        used: of all that caches may take, what held tokens.
        reserved: those that tokens to come would fill.
        internal_waste: those that the strategy reserved and no token would fill.
        rounded: those that an allocator set aside beyond what the strategy reserved.
        free: those not set aside. While a request waits for memory they are external waste: free but not usable.
        mean_batch: requests that took a step in an iteration.
        time_s: how long those iterations took, summed over replicas.
    """

    used: float
    reserved: float
    internal_waste: float
    rounded: float
    free: float
    mean_batch: float
    time_s: float


def wasted_bytes(
    used: NDArray[np.float64], allocated: NDArray[np.float64], counted: NDArray[np.float64], is_split: bool
) -> NDArray[np.float64]:
    """Of memory that was allocated what no token fills: at most what was not used, as where slots are reduced it is
    counted as if those of all areas were alike; NaN without the split."""
    return np.minimum(counted, np.maximum(allocated - used, 0.0)) if is_split else np.full_like(counted, np.nan)


class Binding(NamedTuple):
    """What bound the service, as shares of the time from the first arrival to the end, averaged over replicas.

    In each iteration it is the first test that the head of the queue fails. Who is admitted and has had no step waits
    for computing. The shares add up to 1; empty (NaN) where no time passed.

    Args:
        arrivals_share: nobody waits, or nothing is live.
        batch_share: the batch is full.
        memory_share: memory does not last.
        pool_share: the blocks of a pool that is smaller than the budget do not.
        computing_share: the iteration's chunk of prompts is spent.
    """

    arrivals_share: float
    batch_share: float
    memory_share: float
    pool_share: float
    computing_share: float


class Timeline(NamedTuple):
    """Memory, batch and queue over time: means over bins of equal length, float64, summed over replicas.

    What those held that ended in an iteration counts to its end. The most of several replicas is the sum of each one's
    own, which need not have been at one time.

    Args:
        bin_ns: a bin's length; the first begins at 0.
        used: bytes that hold tokens; 0 while nothing is live, as the others.
        allocated: bytes set aside.
        reserved: bytes that tokens to come will fill.
        internal_waste: bytes set aside that no token will fill, an allocator's rounding included; as those reserved
            empty (NaN) where they were not told apart.
        blocked_free: bytes not set aside while a request waited for memory: external waste.
        batch: requests that took a step.
        busy: replicas that had something to do.
        queue: requests that had arrived, or were preempted, and waited to be admitted.
        most_used: the most at any time in the bin of what has its mean above, as those that follow.
        most_allocated: bytes set aside.
        most_batch: requests that took a step.
        most_queue: requests that waited.
        looked: tokens of prompts that were looked for among blocks with names, in iterations that begin in the bin, as
            those that follow.
        found: of these, tokens found on the device.
        found_below: [host, disk, remote]; tokens loaded from tiers below.
        loads: [host, disk, remote]; loads that wait for the link, or are under way: the mean over the bin.
    """

    bin_ns: int
    used: NDArray[np.float64]
    allocated: NDArray[np.float64]
    reserved: NDArray[np.float64]
    internal_waste: NDArray[np.float64]
    blocked_free: NDArray[np.float64]
    batch: NDArray[np.float64]
    busy: NDArray[np.float64]
    queue: NDArray[np.float64]
    most_used: NDArray[np.float64]
    most_allocated: NDArray[np.float64]
    most_batch: NDArray[np.float64]
    most_queue: NDArray[np.float64]
    looked: NDArray[np.float64]
    found: NDArray[np.float64]
    found_below: NDArray[np.float64]
    loads: NDArray[np.float64]


LOADED = ("host_tokens", "disk_tokens", "remote_tokens", "load_ps")
"""Columns of what requests have loaded of tiers below the device."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What became of requests: int64, an entry a request; -1: it never was.

    Args:
        arrival_ns: when it arrived.
        prompt_tokens: tokens of its prompt.
        output_tokens: tokens that it asked for.
        admitted_ns: when its first step began.
        first_token_ns: when its first output token was out: at the end of the iteration that completed its prompt.
        finish_ns: when its last iteration ended, and with it its last output token was out.
        num_preemptions: how often it gave its memory back after it had begun.
        outcome: index into `OUTCOMES`.
        finish_order: its place among those that ended on its replica, from 0.
        held_tokens: tokens that its cache had been given at the end.
        replica: the replica that it was routed to.
        session: whose turn it is.
        turn: its number in that, from 0.
        hit_tokens: tokens of its prompt that were there already when it was admitted first.
        host_tokens: those behind them that were loaded from the host then.
        disk_tokens: and from the disk.
        remote_tokens: and from a remote store.
        load_ps: how long its loads took, in picoseconds, each time from the begin of the iteration.
    """

    arrival_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    admitted_ns: NDArray[np.int64]
    first_token_ns: NDArray[np.int64]
    finish_ns: NDArray[np.int64]
    num_preemptions: NDArray[np.int64]
    outcome: NDArray[np.int64]
    finish_order: NDArray[np.int64]
    held_tokens: NDArray[np.int64]
    replica: NDArray[np.int64]
    session: NDArray[np.int64]
    turn: NDArray[np.int64]
    hit_tokens: NDArray[np.int64]
    host_tokens: NDArray[np.int64]
    disk_tokens: NDArray[np.int64]
    remote_tokens: NDArray[np.int64]
    load_ps: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FleetResult(Served):
    """What became of every request, in columns that are empty where none were kept, and of the replicas.

    Args:
        totals: sums over all.
        limits: what bound the service.
        timeline: memory, batch and queue over time.
        by_replica: the same of each.
        limit_bytes: what caches may take, of all replicas.
        num_replicas: how many there are.
        is_split: whether reserved slots and internal waste were told apart.
        sums: float64 [why waiting, what]: see `fleet.state`.
        tiers: below the device.
    """

    totals: Totals
    limits: Binding
    timeline: Timeline
    by_replica: ByReplica
    limit_bytes: int
    num_replicas: int
    is_split: bool
    sums: NDArray[np.float64]
    tiers: tuple[TierUsed, ...] = ()

    def shares(self, *, waiting: bool = False, for_memory: bool = False) -> Shares:
        """Where the memory was, over the time in which something was live.

        Args:
            waiting: only iterations while a request waited, for whatever reason.
            for_memory: only iterations while a request waited for memory.
        Returns:
            Shares; empty (NaN) where there was no such iteration. Without the split, reserved bytes and internal waste
            are empty.
        """
        classes = [NO_MEMORY] if for_memory else slice(FULL_BATCH, None) if waiting else slice(None)
        sums = self.sums[classes].sum(axis=0)
        with np.errstate(invalid="ignore"):
            means = sums / np.float64(sums[DURATION])
        limit_bytes = self.limit_bytes / self.num_replicas
        used, allocated, counted, rounded = means[[USED, ALLOCATED, WASTED, ROUNDED]] / limit_bytes
        wasted = wasted_bytes(used, allocated, counted, self.is_split)
        return Shares(
            used=float(used),
            reserved=float(allocated - used - wasted),
            internal_waste=float(wasted - rounded),
            rounded=float(rounded),
            free=float(1 - allocated),
            mean_batch=float(means[BATCH]),
            time_s=float(sums[DURATION]) / PS_PER_S,
        )
