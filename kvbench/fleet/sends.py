"""Requests that are sent when others have ended: by clients that wait for their answers, or as turns that follow.

What is to be sent is kept by its moment, in a heap from row 1 of `sends` on, whose row 0 says how many there are; each
is a moment and a number in the trace. Clients that are free are in another, `frees`, by when they are: each sends
whichever is next in order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import part
from kvbench.fleet.jump import calm_ns
from kvbench.fleet.replica import advance, route, starts_ns
from kvbench.fleet.routing import chosen, look, machine_of
from kvbench.fleet.state import COMPLETED, FOREVER, NONE, UNREACHED, Rule, Tables, TurnRule


class Following(NamedTuple):
    """Who follows whom in a trace, once, and how far its copies are; empty where nobody follows.

    Args:
        offsets: int64 [requests + 1]; request i is followed by `children[offsets[i]:offsets[i + 1]]`.
        children: int64, by number.
        num_parents: int64 [requests]; how many each follows.
        think_ns: int64 [requests]; between the last one's end and its own beginning.
        num_left: int64 [requests of all copies]; of those that each follows, who have not ended.
        ready_ns: int64 [requests of all copies]; when the last of those ended that have.
        is_lost: int64 [requests of all copies]; 1 where one that each follows did not complete.
        places: int64 [requests of all copies]; their rows in the table of requests, NONE before they have one.
        num_unended: int64 [sessions of all copies]; turns of each that have not ended, where clients wait for its end.
    """

    offsets: NDArray[np.int64]
    children: NDArray[np.int64]
    num_parents: NDArray[np.int64]
    think_ns: NDArray[np.int64]
    num_left: NDArray[np.int64]
    ready_ns: NDArray[np.int64]
    is_lost: NDArray[np.int64]
    places: NDArray[np.int64]
    num_unended: NDArray[np.int64]


@part
def _is_before(sends: NDArray[np.int64], one: int, other: int) -> bool:
    if sends[one, 0] != sends[other, 0]:
        return bool(sends[one, 0] < sends[other, 0])
    return bool(sends[one, 1] < sends[other, 1])


@part
def _swap(sends: NDArray[np.int64], one: int, other: int) -> None:
    for i in range(2):
        sends[one, i], sends[other, i] = sends[other, i], sends[one, i]


@part
def _push(sends: NDArray[np.int64], moment_ns: int, number: int) -> None:
    sends[0, 0] += 1
    place = sends[0, 0]
    sends[place, 0], sends[place, 1] = moment_ns, number
    while place > 1 and _is_before(sends, place, place >> 1):
        _swap(sends, place, place >> 1)
        place >>= 1


@part
def _pop(sends: NDArray[np.int64]) -> None:
    size, place = sends[0, 0] - 1, 1
    _swap(sends, 1, size + 1)
    sends[0, 0] = size
    while 2 * place <= size:
        below = 2 * place
        if below < size and _is_before(sends, below + 1, below):
            below += 1
        if not _is_before(sends, below, place):
            return
        _swap(sends, place, below)
        place = below


@part
def _release(tables: Tables, replica: int, number: int) -> None:
    """All that a request follows have ended, and it has a row: it is sent when its think time is over.

    One that follows what did not complete is never sent, and ends with the replica's others.
    """
    following, now = tables.following, tables.replicas[replica]
    place = following.places[number]
    own, ready_ns = tables.requests[place], following.ready_ns[number]
    if not following.is_lost[number]:
        think_ns = following.think_ns[number % following.num_parents.size]
        _push(tables.sends, max(own.arrival_ns, ready_ns + think_ns), number)
        return
    own.outcome, own.finish_ns, own.follows = UNREACHED, max(own.arrival_ns, ready_ns), NONE
    if now.first_ended == NONE:
        now.first_ended = place
    else:
        tables.requests[now.last_ended].follows = place
    now.last_ended = place


@part
def _collect(tables: Tables, replica: int) -> None:
    """Free the clients whose requests, or sessions, have ended on a replica, and let turns follow."""
    now = tables.replicas[replica]
    while now.first_ended != NONE:
        place = now.first_ended
        own = tables.requests[place]
        if tables.following.num_parents.size > 0:
            _follow(tables, replica, place)
        now.first_ended = own.follows
        if tables.fixed[0].num_clients > 0 and _is_over(tables, place):
            _push(tables.frees, own.finish_ns, 0)


@part
def _follow(tables: Tables, replica: int, place: int) -> None:
    """Tell those who follow a request that it has ended."""
    following, own, number = tables.following, tables.requests[place], tables.turns[place].number
    first = number // following.num_parents.size * following.num_parents.size
    for i in range(following.offsets[number - first], following.offsets[number - first + 1]):
        child = following.children[i] + first
        following.num_left[child] -= 1
        following.ready_ns[child] = max(following.ready_ns[child], own.finish_ns)
        following.is_lost[child] |= own.outcome != COMPLETED
        if following.num_left[child] == 0 and following.places[child] != NONE:
            _release(tables, replica, child)


@part
def _is_over(tables: Tables, place: int) -> bool:
    """Whether all of a session have ended, now that one of them has."""
    num_unended = tables.following.num_unended
    if num_unended.size == 0:
        return True
    session = tables.turns[place].session
    num_unended[session] -= 1
    return bool(num_unended[session] == 0)


@part
def _next_first(tables: Tables, arriving: NDArray[np.int64], after: int) -> int:
    """The place in a list of rows, from one on, of a request that follows nobody."""
    num_parents = tables.following.num_parents
    if num_parents.size > 0:
        while after < arriving.size and num_parents[tables.turns[arriving[after]].number % num_parents.size] > 0:
            after += 1
    return after


@part
def _enlist(tables: Tables, arriving: NDArray[np.int64]) -> None:
    """Note rows of requests, and send those whose turn has come already."""
    following = tables.following
    size = following.num_parents.size
    if size > 0:
        for i in range(arriving.size):
            number = tables.turns[arriving[i]].number
            following.places[number] = arriving[i]
            if following.num_parents[number % size] > 0 and following.num_left[number] == 0:
                _release(tables, 0, number)
        _collect(tables, 0)


@part
def _furthest_behind(tables: Tables, until_ns: int) -> int:
    """The replica whose next iteration begins first, before a moment; NONE if none does."""
    own = NONE
    for i in range(tables.replicas.size):
        begins_ns = starts_ns(tables.replicas[i])
        if begins_ns < until_ns:
            own, until_ns = i, begins_ns
    return own


@part
def serve_answers(
    tables: Tables,
    arriving: NDArray[np.int64],
    last: int,
    until_ns: int,
    admitted: Rule,
    grown: Rule,
    turned: TurnRule,
) -> int:
    """Serve requests, each sent when its time has come, until a moment; the last ones of a trace, until all ended.

    Of several replicas the one that is furthest behind goes on, until another might end a request: nobody can be sent
    anything before. Of those sent at one moment the first in the trace is first.

    Args:
        tables: as in `kernel.run`, like all that follow.
        arriving: rows of requests.
        last: the replica that got the one before them.
        until_ns: the moment, FOREVER for the last requests; with clients, any other for those that others follow.
        admitted: the strategy's rule.
        grown: and that of growth.
        turned: and that of slots that are too many.
    """
    sends, frees = tables.sends, tables.frees
    has_clients, is_last = tables.fixed[0].num_clients > 0, until_ns == FOREVER
    if has_clients:
        until_ns = FOREVER
    _enlist(tables, arriving)
    first = _next_first(tables, arriving, 0)
    while True:
        is_over = first == arriving.size
        first_ns = FOREVER
        if has_clients and frees[0, 0] > 0 and not (is_over and is_last):
            first_ns = frees[1, 0]
        elif not has_clients and not is_over:
            first_ns = tables.requests[arriving[first]].arrival_ns
        due_ns = sends[1, 0] if sends[0, 0] > 0 else FOREVER
        moment_ns = min(due_ns, first_ns, until_ns)
        own = _furthest_behind(tables, moment_ns)
        begins_ns = moment_ns if own == NONE else starts_ns(tables.replicas[own])
        looks_ns = look(tables, begins_ns, admitted, grown, turned)
        if own != NONE:
            _go_on(tables, own, min(moment_ns, looks_ns), admitted, grown, turned)
            continue
        # Of those sent at one moment the first in the trace is the first; it may be one that comes with the next call.
        is_due = due_ns < first_ns
        if due_ns == first_ns < FOREVER:
            is_due = is_over or sends[1, 1] < tables.turns[arriving[first]].number
        if moment_ns == FOREVER or (moment_ns == until_ns and first_ns > until_ns):
            return last
        if is_due:
            place = tables.following.places[sends[1, 1]]
            _pop(sends)
        elif is_over:
            return last
        else:
            place = arriving[first]
            first = _next_first(tables, arriving, first + 1)
            if has_clients:
                _pop(frees)
        tables.requests[place].arrival_ns = moment_ns
        last = chosen(tables, place, last, moment_ns, admitted, grown, turned)
        route(tables.requests, tables.replicas[last], last, place)


@part
def _go_on(tables: Tables, own: int, until_ns: int, admitted: Rule, grown: Rule, turned: TurnRule) -> None:
    """Let a replica go on until a moment, or until another might end a request, and tell who waits for its ends."""
    for i in range(tables.replicas.size):
        if i != own and starts_ns(tables.replicas[i]) < until_ns:
            until_ns = min(until_ns, calm_ns(machine_of(tables, i, admitted, grown, turned)) + 1)
    tables.replicas[own].until_ns = until_ns
    advance(machine_of(tables, own, admitted, grown, turned))
    _collect(tables, own)
