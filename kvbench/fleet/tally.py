"""The clock, and sums over time, kept for bins of time: memory and batch can be drawn; the bins' sums are the run's.

An iteration counts in each bin for the part of its time that lies in it. When time outgrows the bins, each two become
one, twice as long.

How many wait is kept by its changes: WAITED, by how much the bin's own sum changes where one begins or ceases to wait
within it, in nanoseconds; WAITING, how many more wait from the bin's beginning on, through all bins to come.
"""

from typing import NamedTuple

from kvbench.compiled import part
from kvbench.fleet.prefix.fetches import begin_fetch
from kvbench.fleet.state import (
    ALLOCATED,
    BATCH,
    DURATION,
    FOREVER,
    LOOKED,
    MOST,
    MOST_ALLOCATED,
    MOST_BATCH,
    MOST_USED,
    MOST_WAITING,
    NONE,
    NUM_COLUMNS,
    NUM_SUMS,
    ROUNDED,
    USED,
    WAITED,
    WAITING,
    WASTED,
    Machine,
)
from kvbench.timing.prices import PS_PER_NS


@part
def pass_time(m: Machine, spent_ps: int) -> None:
    """Let picoseconds pass."""
    total_ps = m.now.rest_ps + spent_ps
    m.now.clock_ns += total_ps // PS_PER_NS
    m.now.rest_ps = total_ps % PS_PER_NS


@part
def widen(m: Machine, until_ns: int) -> None:
    """Make the bins long enough that they cover a moment."""
    sums = m.sums
    num_bins = sums.shape[0] - 1
    while until_ns >= m.now.bin_ns * num_bins:
        for i in range(num_bins // 2):
            # Who waits from a pair's second bin on waits through half of the pair, and through all from the next one.
            waiting = sums[2 * i, WAITING] + (sums[2 * i - 1, WAITING] if i > 0 else 0.0)
            late = sums[2 * i + 1, WAITING] * m.now.bin_ns
            for j in range(WAITING):
                sums[i, j] = sums[2 * i, j] + sums[2 * i + 1, j]
            for j in range(MOST, LOOKED):
                sums[i, j] = max(sums[2 * i, j], sums[2 * i + 1, j])
            for j in range(LOOKED, NUM_COLUMNS):
                sums[i, j] = sums[2 * i, j] + sums[2 * i + 1, j]
            sums[i, WAITED] += late
            sums[i, WAITING] = waiting
        sums[num_bins // 2, WAITING] = sums[num_bins, WAITING] + sums[num_bins - 1, WAITING]
        sums[num_bins // 2, :WAITING] = 0.0
        sums[num_bins // 2, MOST:] = 0.0
        sums[num_bins // 2 + 1 :] = 0.0
        m.now.bin_ns *= 2
        _place(m)


class Level(NamedTuple):
    """What was the case in an iteration: bytes, and requests that took a step."""

    used: int
    allocated: int
    wasted: int
    rounded: int
    batch: int


@part
def add(
    m: Machine, own: int, lasted_ps: float, used_ps: float, allocated_ps: float, wasted_ps: float, level: Level
) -> None:
    """Add to a bin what was the case in iterations.

    Args:
        m: the replica.
        own: the bin.
        lasted_ps: how long they took.
        used_ps: bytes used, times that time.
        allocated_ps: bytes allocated, times that time.
        wasted_ps: bytes that no token will fill, times that time.
        level: what was the case in the last of them, with the most used and allocated; the rest was so in all.
    """
    first, sums = m.now.why_waiting * NUM_SUMS, m.sums
    sums[own, first + DURATION] += lasted_ps
    sums[own, first + USED] += used_ps
    sums[own, first + ALLOCATED] += allocated_ps
    sums[own, first + WASTED] += wasted_ps
    sums[own, first + ROUNDED] += lasted_ps * level.rounded
    sums[own, first + BATCH] += lasted_ps * level.batch
    if level.used > sums[own, MOST_USED]:
        sums[own, MOST_USED] = level.used
    if level.allocated > sums[own, MOST_ALLOCATED]:
        sums[own, MOST_ALLOCATED] = level.allocated
    if level.batch > sums[own, MOST_BATCH]:
        sums[own, MOST_BATCH] = level.batch


@part
def add_one(m: Machine, lasted_ps: int, level: Level) -> None:
    """Add what was the case in an iteration that has just passed, to each bin that it touched."""
    now, left_ps = m.now, lasted_ps
    own = now.bin
    if now.clock_ns >= now.bin_end_ns:
        widen(m, now.clock_ns)
        own = now.bin
        here_ps = (now.bin_end_ns - now.head_ns) * PS_PER_NS - now.head_rest_ps
        while left_ps > here_ps:
            part_ps = float(here_ps)
            add(m, own, part_ps, part_ps * level.used, part_ps * level.allocated, part_ps * level.wasted, level)
            left_ps -= here_ps
            here_ps = now.bin_ns * PS_PER_NS
            own += 1
    part_ps = float(left_ps)
    add(m, own, part_ps, part_ps * level.used, part_ps * level.allocated, part_ps * level.wasted, level)


@part
def _mark(m: Machine, moment_ns: int, num_more: int) -> None:
    """From a moment on, so many more wait."""
    own = moment_ns // m.now.bin_ns
    m.sums[own, WAITED] += num_more * ((own + 1) * m.now.bin_ns - moment_ns)
    m.sums[own + 1, WAITING] += num_more


@part
def add_wait(m: Machine, since_ns: int, until_ns: int) -> None:
    """Add that a request waited, at most until the head."""
    _mark(m, since_ns, 1)
    _mark(m, until_ns, -1)


@part
def note_queue(m: Machine) -> None:
    """Keep the most that waited in each bin since the head; in between, the queue has only grown."""
    now, own = m.now, m.now.bin
    if now.clock_ns > now.head_ns:
        until_ns = now.bin_end_ns
        while until_ns < now.clock_ns:
            _queue_up(m, until_ns)
            _note_waiting(m, own)
            own += 1
            until_ns += now.bin_ns
        _queue_up(m, now.clock_ns)
        _note_waiting(m, own)
    _queue_up(m, now.clock_ns + 1)


@part
def _queue_up(m: Machine, until_ns: int) -> None:
    """Let those into the queue who have arrived before a moment."""
    now = m.now
    while now.unseen_ns < until_ns:
        now.num_queued += 1
        if m.fixed.fetches_at > 0:
            begin_fetch(m, now.unseen)
        now.unseen = m.requests[now.unseen].follows
        now.unseen_ns = FOREVER if now.unseen == NONE else m.requests[now.unseen].arrival_ns


@part
def _note_waiting(m: Machine, own: int) -> None:
    """Keep the most that waited in a bin."""
    num_waiting = m.now.num_stacked + m.now.num_queued
    if num_waiting > m.sums[own, MOST_WAITING]:
        m.sums[own, MOST_WAITING] = num_waiting


@part
def begin(m: Machine) -> None:
    """Let an iteration begin now."""
    now = m.now
    now.head_ns, now.head_rest_ps = now.clock_ns, now.rest_ps
    if now.clock_ns >= now.bin_end_ns:
        _place(m)


@part
def _place(m: Machine) -> None:
    """Find the head's bin."""
    m.now.bin = m.now.head_ns // m.now.bin_ns
    m.now.bin_end_ns = (m.now.bin + 1) * m.now.bin_ns
