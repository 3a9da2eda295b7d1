"""The kernel: replicas over a trace, each from iteration to iteration, jumping where nothing happens."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import kernel, part
from kvbench.fleet.iteration import iterate
from kvbench.fleet.jump import jump
from kvbench.fleet.queue import admit, is_waiting
from kvbench.fleet.space import lay_out
from kvbench.fleet.state import FOREVER, NONE, ROUND_ROBIN, Machine, Records, ReplicaRow, Rule, ServedRow, Tables
from kvbench.fleet.tally import widen

COMPILED = ("holds", "iteration", "jump", "kernel", "live", "memory", "queue", "space", "state", "tally")
"""Files of this package that are compiled into the kernel."""


@part
def _advance(m: Machine) -> None:
    """Run a replica until the first iteration that begins at a moment or later; who arrived before is routed."""
    now = m.now
    if not now.has_begun:
        lay_out(m)
        now.has_begun = 1
    while now.clock_ns < now.until_ns:
        if now.clock_ns >= now.bin_end_ns:
            widen(m, now.clock_ns)
        admit(m)
        if now.num_live == 0 and not is_waiting(m):
            if now.unseen_ns >= now.until_ns:
                return
            now.idle_ns += now.unseen_ns - now.clock_ns
            now.clock_ns = now.unseen_ns
        elif jump(m):
            iterate(m)


@part
def _route(requests: Records[ServedRow], now: ReplicaRow, replica: int, request: int) -> None:
    """Put a request behind those of a replica's queue."""
    requests[request].replica = replica
    if now.next == NONE:
        now.next = request
    else:
        requests[now.tail].follows = request
    if now.unseen == NONE:
        now.unseen, now.unseen_ns = request, requests[request].arrival_ns
    now.tail = request
    now.num_routed += 1


def _kernel(stamp: int) -> Callable[[Tables, NDArray[np.int64], int, int, Rule, Rule], int]:
    """The kernel, compiled. What was compiled from sources with another stamp is not used again."""

    def run(tables: Tables, arriving: NDArray[np.int64], last: int, until_ns: int, admitted: Rule, grown: Rule) -> int:
        if stamp == 0:
            return last
        fixed = tables.fixed[0]
        num_requests, num_replicas = arriving.size, tables.replicas.size
        num_routed = 0
        if fixed.routing == ROUND_ROBIN:
            num_routed = num_requests
            for i in range(num_requests):
                last = (last + 1) % num_replicas
                _route(tables.requests, tables.replicas[last], last, arriving[i])
        # Where requests are not routed before, each is when it arrives: to the replica with the least to do, of several
        # to the next in turn.
        for number in range(num_routed, num_requests + 1):
            is_over = number == num_requests
            moment_ns = until_ns if is_over else tables.requests[arriving[number]].arrival_ns
            best, least = last, FOREVER
            for j in range(num_replicas):
                i = (last + 1 + j) % num_replicas
                now = tables.replicas[i]
                now.until_ns = moment_ns
                live, sums, space = tables.live[i], tables.sums[i], tables.space[i]
                _advance(Machine(tables.requests, now, live, sums, space, fixed, tables.prices, admitted, grown))
                # An iteration may still be under way.
                num_finished = now.num_finished_before if now.clock_ns > moment_ns else now.num_finished
                load = now.num_routed - num_finished
                if load < least:
                    best, least = i, load
            if not is_over:
                last = best
                _route(tables.requests, tables.replicas[best], best, arriving[number])
        return last

    return kernel(run)


def _stamp() -> int:
    """Of all sources that are compiled into the kernel: Numba itself only looks at this file."""
    own = Path(__file__).parent
    sources = [*(own / f"{name}.py" for name in COMPILED), own.parent / "compiled.py", own.parent / "timing/prices.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()
    return int.from_bytes(digest[:6]) + 1


run = _kernel(_stamp())
"""Routes requests, the next ones of a trace, to replicas, and runs these until a moment; every table is written to.

Called with the tables, the places of those requests in their table, the replica that got the one before them, the
moment, and the strategy's rules; the replica that got the last one comes back.
"""
