"""Clients that wait for their answers: a request is sent when another has ended, and is routed then.

What is to be sent is kept by its moment: in `sends` their number, and the moments behind it, the first one last.
"""

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import part, referred
from kvbench.fleet.jump import calm_ns
from kvbench.fleet.replica import advance, load_of, route, starts_ns
from kvbench.fleet.state import FOREVER, NONE, ROUND_ROBIN, Machine, Rule, Tables, TurnRule


@part
def _note(sends: NDArray[np.int64], moment_ns: int) -> None:
    """Keep that a client is free to send from a moment on, behind those that are free as early."""
    sends[0] += 1
    place = sends[0]
    while place > 1 and sends[place - 1] <= moment_ns:
        sends[place] = sends[place - 1]
        place -= 1
    sends[place] = moment_ns


@part
def _collect(m: Machine, sends: NDArray[np.int64]) -> None:
    """Free the clients of those who have ended."""
    while m.now.first_ended != NONE:
        own = m.requests[m.now.first_ended]
        _note(sends, own.finish_ns)
        m.now.first_ended = own.follows


@part
def _send(tables: Tables, request: int, last: int, moment_ns: int) -> int:
    """Send a request to the next replica, or to that with the least to do; which."""
    num_replicas = tables.replicas.size
    best = (last + 1) % num_replicas
    if tables.fixed[0].routing != ROUND_ROBIN:
        least = FOREVER
        for j in range(num_replicas):
            i = (last + 1 + j) % num_replicas
            load = load_of(tables.replicas[i], moment_ns)
            if load < least:
                best, least = i, load
    tables.requests[request].arrival_ns = moment_ns
    route(tables.requests, tables.replicas[best], best, request)
    return best


@part
def serve_clients(
    tables: Tables,
    arriving: NDArray[np.int64],
    last: int,
    is_last: bool,
    admitted: Rule,
    grown: Rule,
    turned: TurnRule,
) -> int:
    """Serve requests, each sent when a client is free, until all are sent; the last ones of a trace, until all ended.

    Of several replicas the one that is furthest behind goes on, until another might end a request: nobody can be sent
    anything before.

    Args:
        tables: as in `kernel.run`, like all that follow.
        arriving: places of requests.
        last: the replica that got the one before them.
        is_last: whether no others follow.
        admitted: the strategy's rule.
        grown: and that of growth.
        turned: and that of slots that are too many.
    """
    sends, fixed = tables.sends, tables.fixed[0]
    number = 0
    while True:
        moment_ns = FOREVER
        if sends[0] > 0 and not (is_last and number == arriving.size):
            moment_ns = sends[sends[0]]
        own, own_ns, until_ns = NONE, moment_ns, moment_ns
        for i in range(tables.replicas.size):
            begins_ns = starts_ns(tables.replicas[i])
            if begins_ns < own_ns:
                own, own_ns = i, begins_ns
        if own == NONE:
            if moment_ns == FOREVER or number == arriving.size:
                return last
            sends[0] -= 1
            last = _send(tables, arriving[number], last, moment_ns)
            number += 1
            continue
        for i in range(tables.replicas.size):
            if i != own and starts_ns(tables.replicas[i]) < until_ns:
                now, live, sums, space = tables.replicas[i], tables.live[i], tables.sums[i], tables.space[i]
                other = Machine(tables.requests, now, live, sums, space, fixed, tables.prices, admitted, grown, turned)
                until_ns = min(until_ns, calm_ns(referred(other)) + 1)
        now, live, sums, space = tables.replicas[own], tables.live[own], tables.sums[own], tables.space[own]
        now.until_ns = until_ns
        m = referred(Machine(tables.requests, now, live, sums, space, fixed, tables.prices, admitted, grown, turned))
        advance(m)
        _collect(m, sends)
