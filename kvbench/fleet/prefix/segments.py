"""Blocks of a replica that have a name: segments of runs, in lists by run, and by when nobody held them any more.

A run is a stretch of contents in whole blocks, see `runs`. A segment is some of a run's blocks that are held by the
same requests and were let go of together; usually a run has one, from its beginning on. Where two requests compute the
same blocks each has its own, as an engine does that never moves a block: what is found is the block that got its name
first. So a run's segments are listed in an order that is right for each of their blocks.

The segment that a request fills is open: while it decodes, how many blocks are in it follows from its tokens.
"""

from typing import Protocol

import numpy as np

from kvbench.compiled import part, records
from kvbench.fleet.state import NONE, Machine


class RunRow(Protocol):
    """A record of a run; blocks are counted from the beginning of a text."""

    parent: int
    first: int
    past: int


class SegmentRow(Protocol):
    """A record of a segment; its blocks are counted from the beginning of the run. Number 0 is none."""

    run: int
    first: int
    count: int
    references: int
    maker: int  # the live request that computed it
    next: int  # of the run
    older: int  # of those that nobody holds: a ring through number 0
    newer: int


class TurnRow(Protocol):
    """A record of a request as a turn, and as a text."""

    number: int  # in the trace
    session: int
    turn: int
    leaf: int  # the run that its answer ends in
    base: int  # the number of its copy's first run
    hit_tokens: int


class CellRow(Protocol):
    """A record of a run on a replica: the first of its segments."""

    value: int


def _small(row: type) -> np.dtype[np.void]:
    return np.dtype([(name, np.int32) for name in row.__annotations__])


RUN, SEGMENT, CELL = _small(RunRow), _small(SegmentRow), _small(CellRow)
TURN = np.dtype([(name, np.int64) for name in TurnRow.__annotations__])
run_at, segment_at, cell_at, turn_at = records(RUN), records(SEGMENT), records(CELL), records(TURN)


@part
def head_of(m: Machine, run: int) -> int:
    """The first segment of a run."""
    return int(cell_at(m.fixed.table_at, run * m.fixed.num_replicas + m.now.number).value)


@part
def first_run(m: Machine, request: int, group: int) -> int:
    """The number of the first run of a request's copy, as a group's of layers with tables of their own."""
    return int(turn_at(m.fixed.turns_at, request).base) + group * m.fixed.num_runs


@part
def _put_first(m: Machine, run: int, number: int) -> None:
    cell_at(m.fixed.table_at, run * m.fixed.num_replicas + m.now.number).value = number


@part
def held_now(m: Machine, place: int) -> int:
    """Tokens that a live request has computed, or is about to in this iteration."""
    own = m.live[place]
    return own.held if own.key == NONE else own.origin + m.now.counter + m.now.ahead


@part
def is_open(m: Machine, number: int) -> bool:
    """Whether a request fills a segment."""
    maker = segment_at(m.now.segments_at, number).maker
    return maker != NONE and m.live[maker].open == number


@part
def is_growing(m: Machine, run: int) -> bool:
    """Whether a request fills a segment of a run."""
    number = head_of(m, run)
    while number > 0:
        if is_open(m, number):
            return True
        number = segment_at(m.now.segments_at, number).next
    return False


@part
def catch_up(m: Machine, number: int, run: RunRow) -> None:
    """Count the blocks that have been filled by now."""
    if is_open(m, number):
        own = segment_at(m.now.segments_at, number)
        filled = min(run.past, held_now(m, own.maker) // m.fixed.unit) - run.first - own.first
        own.count = max(own.count, filled)


@part
def _vacant(m: Machine) -> int:
    now = m.now
    number = now.vacant_segment
    if number > 0:
        now.vacant_segment = segment_at(now.segments_at, number).next
        return number
    now.num_segments += 1
    return now.num_segments


@part
def append(m: Machine, number: int) -> None:
    """Put a segment behind the others of its run."""
    own = segment_at(m.now.segments_at, number)
    own.next = 0
    head = head_of(m, own.run)
    if head == 0:
        _put_first(m, own.run, number)
        return
    last = segment_at(m.now.segments_at, head)
    while last.next > 0:
        last = segment_at(m.now.segments_at, last.next)
    last.next = number


@part
def fresh(m: Machine, run: int, first: int, count: int, maker: int) -> int:
    """A new segment of a run, that its maker holds; its number."""
    number = _vacant(m)
    own = segment_at(m.now.segments_at, number)
    own.run, own.first, own.count, own.references, own.maker = run, first, count, 1, maker
    append(m, number)
    return number


@part
def take_out_of_run(m: Machine, number: int) -> None:
    """Take a segment out of the list of its run."""
    own = segment_at(m.now.segments_at, number)
    head = head_of(m, own.run)
    if head == number:
        _put_first(m, own.run, own.next)
        return
    before = segment_at(m.now.segments_at, head)
    while before.next != number:
        before = segment_at(m.now.segments_at, before.next)
    before.next = own.next


@part
def drop(m: Machine, number: int) -> None:
    """Give up a segment that is in no order of age."""
    take_out_of_run(m, number)
    segment_at(m.now.segments_at, number).next = m.now.vacant_segment
    m.now.vacant_segment = number


@part
def link_before(m: Machine, number: int, newer: int) -> None:
    """Put a segment that nobody holds just before one that was let go of later; before number 0: as the newest."""
    own, after = segment_at(m.now.segments_at, number), segment_at(m.now.segments_at, newer)
    own.older, own.newer = after.older, newer
    segment_at(m.now.segments_at, own.older).newer = number
    after.older = number


@part
def unlink(m: Machine, number: int) -> None:
    """Take a segment out of the order of age."""
    own = segment_at(m.now.segments_at, number)
    segment_at(m.now.segments_at, own.older).newer = own.newer
    segment_at(m.now.segments_at, own.newer).older = own.older


@part
def cut(m: Machine, number: int, at: int) -> int:
    """Cut a segment in two at a block of its run, or behind its last where it is open; the deeper one.

    Whoever fills it goes on with that, in its place among the others: those behind it there have fewer tokens, too.
    """
    own, other = segment_at(m.now.segments_at, number), _vacant(m)
    deeper = segment_at(m.now.segments_at, other)
    deeper.run, deeper.first, deeper.count = own.run, at, own.first + own.count - at
    deeper.references, deeper.maker = own.references, own.maker
    if is_open(m, number):
        m.live[own.maker].open = other
    own.count = at - own.first
    deeper.next, own.next = own.next, other
    if own.references == 0:
        link_before(m, other, number)
    return other


@part
def covering(m: Machine, run: int, row: RunRow, block: int) -> int:
    """The segment of a run with a block that got its name first; 0: there is none."""
    number = head_of(m, run)
    while number > 0:
        catch_up(m, number, row)
        own = segment_at(m.now.segments_at, number)
        if own.first <= block < own.first + own.count:
            return number
        number = own.next
    return 0
