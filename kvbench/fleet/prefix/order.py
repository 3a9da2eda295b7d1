"""Which blocks that nobody holds go first, where that is not those that were let go of first: a heap of segments.

Only a block goes that has none behind it that nobody holds. One that is held keeps a block of each name before it, so
that none is there without those before it. All blocks of a segment have one rank while nobody holds it, and the deepest
goes first. The heap has all segments whose deepest block may go, and some others, which are passed over at its top.
"""

from typing import Protocol

import numpy as np

from kvbench.compiled import inlined, part, plain, records
from kvbench.engine.eviction import NEVER, OPTIMAL, SESSION, eviction_rank
from kvbench.fleet.prefix.segments import cell_at, head_of, run_at, segment_at, turn_at
from kvbench.fleet.state import NONE, Machine

_eviction_rank = plain(eviction_rank)


class OrderRow(Protocol):
    """The record of a fleet's order, addresses of tables among it."""

    eviction: int
    ranked_at: int  # [replicas, segments]
    num_segments: int  # of a replica
    counts_at: int  # [replicas]
    behind_at: int  # as the table of cells: how many segments nobody holds of those that begin the runs behind one
    num_runs: int  # of a copy of the trace's contents
    num_requests: int  # of the trace, once
    num_users: int  # runs that users are known of: of the trace, once
    firsts_at: int  # [num_users + 1]; where each one's users begin
    users_at: int  # requests whose prompts have the run, in order
    goes_on_at: int  # [num_requests]; whether another request of the session is to come


class CountRow(Protocol):
    """A record of a replica."""

    num_let_go: int  # segments, ever
    in_heap: int


class RankedRow(Protocol):
    """A record of a segment, beside its own."""

    rank: int
    let_go: int  # when, among all that were let go of
    maker: int  # when the request was admitted that computed it
    num_found: int
    latest: int  # the last request that has held it
    position: int  # in the heap, from 1; 0: it is not in
    heap: int  # the segment at this position


class ValueRow(Protocol):
    """A record of one whole number."""

    value: int


def _record(row: type) -> np.dtype[np.void]:
    return np.dtype([(name, np.int64) for name in row.__annotations__])


ORDER, COUNT, RANKED, VALUE = _record(OrderRow), _record(CountRow), _record(RankedRow), _record(ValueRow)
RANKED_BYTES = RANKED.itemsize
order_at, count_at, ranked_at, value_at = records(ORDER), records(COUNT), records(RANKED), records(VALUE)


@inlined
def _order(m: Machine) -> OrderRow:
    own: OrderRow = order_at(m.fixed.order_at, 0)
    return own


@inlined
def _counts(m: Machine) -> CountRow:
    own: CountRow = count_at(_order(m).counts_at, m.now.number)
    return own


@part
def _ranks_at(m: Machine) -> int:
    """The address of a replica's RANKED records, which whoever takes many of them asks for once."""
    return int(_order(m).ranked_at + m.now.number * _order(m).num_segments * RANKED_BYTES)


@inlined
def _ranked(m: Machine, number: int) -> RankedRow:
    own: RankedRow = ranked_at(_ranks_at(m), number)
    return own


@part
def _put(ranks_at: int, position: int, number: int) -> None:
    ranked_at(ranks_at, position).heap = number
    ranked_at(ranks_at, number).position = position


@part
def _is_before(ranks_at: int, one: int, other: int) -> bool:
    """Whether a segment goes before another."""
    mine, theirs = ranked_at(ranks_at, one), ranked_at(ranks_at, other)
    return bool(mine.rank < theirs.rank or (mine.rank == theirs.rank and mine.let_go < theirs.let_go))


@part
def _rise(ranks_at: int, position: int, number: int) -> None:
    while position > 1:
        above = ranked_at(ranks_at, position >> 1).heap
        if not _is_before(ranks_at, number, above):
            break
        _put(ranks_at, position, above)
        position >>= 1
    _put(ranks_at, position, number)


@part
def _sink(ranks_at: int, size: int, position: int, number: int) -> None:
    while 2 * position <= size:
        below = 2 * position
        one = ranked_at(ranks_at, below).heap
        if below < size:
            other = ranked_at(ranks_at, below + 1).heap
            if _is_before(ranks_at, other, one):
                below, one = below + 1, other
        if not _is_before(ranks_at, one, number):
            break
        _put(ranks_at, position, one)
        position = below
    _put(ranks_at, position, number)


@part
def _offer(m: Machine, number: int) -> None:
    """Put a segment in, if nobody holds it and it is not in."""
    if segment_at(m.now.segments_at, number).references == 0 and _ranked(m, number).position == 0:
        counts = _counts(m)
        counts.in_heap += 1
        _rise(_ranks_at(m), counts.in_heap, number)


@part
def _offer_run(m: Machine, run: int, but: int) -> None:
    """Put all of a run's segments in that nobody holds, but one."""
    number = head_of(m, run)
    while number > 0:
        if number != but:
            _offer(m, number)
        number = segment_at(m.now.segments_at, number).next


@part
def leave_order(m: Machine, number: int) -> None:
    """Take a segment out, if it is in."""
    ranks_at, counts = _ranks_at(m), _counts(m)
    own = ranked_at(ranks_at, number)
    position = own.position
    if position == 0:
        return
    own.position = 0
    last = ranked_at(ranks_at, counts.in_heap).heap
    counts.in_heap -= 1
    if last == number:
        return
    _rise(ranks_at, position, last)
    _sink(ranks_at, counts.in_heap, ranked_at(ranks_at, last).position, last)


@part
def _above(m: Machine, run: int) -> int:
    """The run before one; NONE where there is none."""
    place = run % _order(m).num_runs
    parent = run_at(m.fixed.runs_at, place).parent
    return NONE if parent == NONE else run - place + parent


@part
def _add_behind(m: Machine, run: int, more: int) -> int:
    """Count one more or less that nobody holds, of segments that begin a run; how many there are behind the one before
    it, 1 where there is none."""
    above = _above(m, run)
    if above == NONE:
        return 1
    cell = cell_at(_order(m).behind_at, above * m.fixed.num_replicas + m.now.number)
    cell.value += more
    return int(cell.value)


@part
def note_made(m: Machine, number: int, place: int) -> None:
    """A request has begun to compute a segment."""
    own, live = _ranked(m, number), m.live[place]
    own.maker, own.num_found, own.latest = live.arrived, 0, turn_at(m.fixed.turns_at, live.request).number


@part
def _note_held(m: Machine, number: int) -> None:
    """Nobody held a segment, and now a request does; it holds all that is before it, one segment of each block."""
    own = segment_at(m.now.segments_at, number)
    leave_order(m, number)
    if own.first == 0 and _add_behind(m, own.run, -1) == 0:
        above = _above(m, own.run)
        if segment_at(m.now.segments_at, head_of(m, above)).next > 0:
            _offer_run(m, above, 0)
    if segment_at(m.now.segments_at, head_of(m, own.run)).next > 0:
        _offer_run(m, own.run, 0)


@part
def note_found(m: Machine, number: int, place: int, was_idle: bool) -> None:
    """A request has taken a segment over, which nobody else held if it was idle."""
    if was_idle:
        _note_held(m, number)
    own, live = _ranked(m, number), m.live[place]
    own.num_found += 1
    own.latest = max(own.latest, turn_at(m.fixed.turns_at, live.request).number)


@part
def note_cut(m: Machine, number: int, deeper: int) -> None:
    """A segment has been cut in two."""
    own, other = _ranked(m, number), _ranked(m, deeper)
    other.rank, other.let_go, other.latest = own.rank, own.let_go, own.latest
    other.maker, other.num_found = own.maker, own.num_found
    _offer(m, deeper)


@part
def note_let_go(m: Machine, number: int) -> None:
    """Nobody holds a segment any more."""
    own, ranked, counts, order = segment_at(m.now.segments_at, number), _ranked(m, number), _counts(m), _order(m)
    counts.num_let_go += 1
    ranked.let_go = counts.num_let_go
    request = ranked.latest % order.num_requests
    goes_on, next_use = 0, NEVER
    if order.eviction == SESSION:
        goes_on = value_at(order.goes_on_at, request).value
    elif order.eviction == OPTIMAL:
        next_use = _next_use(m, own.run % order.num_users, request)
        if next_use < NEVER:
            next_use += ranked.latest - request
    ranked.rank = _eviction_rank(order.eviction, ranked.maker, ranked.num_found, goes_on, next_use)
    if own.first == 0:
        _add_behind(m, own.run, 1)
    if _is_leaf(m, number):  # most are not, and are offered when what is behind them has gone
        _offer(m, number)


@part
def _next_use(m: Machine, run: int, request: int) -> int:
    """The first request behind one whose prompt has a run; NEVER: there is none."""
    order = _order(m)
    first, past = value_at(order.firsts_at, run).value, value_at(order.firsts_at, run + 1).value
    stop = past
    while first < past:
        middle = (first + past) // 2
        if value_at(order.users_at, middle).value > request:
            past = middle
        else:
            first = middle + 1
    return int(value_at(order.users_at, first).value) if first < stop else NEVER


@part
def is_alike(m: Machine, number: int, other: int) -> bool:
    """Whether two segments stand alike in the order, and do from now on while the same requests hold them."""
    one, two = _ranked(m, number), _ranked(m, other)
    return (one.maker, one.num_found, one.latest) == (two.maker, two.num_found, two.latest)


@part
def note_merged(m: Machine, number: int, deeper: int) -> None:
    """A segment that nobody holds is one with the deeper one behind it, which is like it, from now on."""
    position = _ranked(m, deeper).position
    if position > 0:
        _ranked(m, deeper).position = 0
        _sink(_ranks_at(m), _counts(m).in_heap, position, number)


@part
def _is_leaf(m: Machine, number: int) -> bool:
    """Whether a segment that nobody holds has no block behind it that nobody holds."""
    own = segment_at(m.now.segments_at, number)
    end, other = own.first + own.count, head_of(m, own.run)
    while other > 0:
        beside = segment_at(m.now.segments_at, other)
        if beside.references == 0 and beside.first <= end < beside.first + beside.count:
            return False
        other = beside.next
    run = run_at(m.fixed.runs_at, own.run % _order(m).num_runs)
    if end < run.past - run.first:
        return True
    return bool(cell_at(_order(m).behind_at, own.run * m.fixed.num_replicas + m.now.number).value == 0)


@part
def _first_of_run(m: Machine, number: int) -> int:
    """Of a run's segments that nobody holds and that end where one does, the first that was let go of."""
    own = segment_at(m.now.segments_at, number)
    end, found, other = own.first + own.count, number, head_of(m, own.run)
    while other > 0:
        beside = segment_at(m.now.segments_at, other)
        ends_there = beside.references == 0 and beside.first + beside.count == end
        if ends_there and _ranked(m, other).let_go < _ranked(m, found).let_go:
            found = other
        other = beside.next
    return found


@part
def first_ranked(m: Machine) -> int:
    """The segment whose deepest block goes first."""
    number = _ranked(m, 1).heap
    while not _is_leaf(m, number):
        leave_order(m, number)
        number = _ranked(m, 1).heap
    return _first_of_run(m, number)


@part
def note_gone(m: Machine, number: int, most: int) -> int:
    """A segment that is the first is to lose its deepest blocks, at most so many; how many, before others are asked."""
    own = segment_at(m.now.segments_at, number)
    is_alone = segment_at(m.now.segments_at, head_of(m, own.run)).next == 0
    num_gone = most if is_alone else 1
    if own.count == num_gone:
        leave_order(m, number)
        if own.first == 0 and _add_behind(m, own.run, -1) == 0:
            _offer_run(m, _above(m, own.run), 0)
    if not is_alone:
        _offer_run(m, own.run, number)
    return num_gone
