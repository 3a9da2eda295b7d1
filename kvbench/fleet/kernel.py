"""The kernel: replicas over a trace, each from iteration to iteration, jumping where nothing happens."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import kernel, part
from kvbench.fleet.replica import advance, route
from kvbench.fleet.routing import chosen, look, looks_ns, machine_of
from kvbench.fleet.sends import serve_answers
from kvbench.fleet.state import NONE, ROUND_ROBIN, Rule, Tables, TurnRule

COMPILED = (
    *("aside", "holds", "iteration", "jump", "kernel", "last_blocks", "live", "memory", "paying", "prefix/cache"),
    *(
        "prefix/fetches",
        "prefix/groups",
        "prefix/known",
        "prefix/loads",
        "prefix/order",
        "prefix/segments",
        "prefix/states",
        "prefix/tier",
        "prompts",
        "queue",
        "replica",
        "room",
        "routing",
        "rows",
        "sends",
        "space",
    ),
    *("state", "tally", "turns", "windows"),
)
"""Files of this package that are compiled into the kernel."""
AHEAD = 1 << 11
"""Requests of each replica that are routed at once, where that is before they arrive: their rows stay in the cache."""


@part
def _advance_all(tables: Tables, moment_ns: int, admitted: Rule, grown: Rule, turned: TurnRule) -> None:
    """Run all replicas until a moment; where the router looks at them before, they stop there."""
    stop_ns = NONE
    while stop_ns < moment_ns:
        stop_ns = looks_ns(tables, moment_ns)
        for i in range(tables.replicas.size):
            tables.replicas[i].until_ns = stop_ns
            advance(machine_of(tables, i, admitted, grown, turned))
        look(tables, stop_ns, admitted, grown, turned)


def _kernel(stamp: int) -> Callable[[Tables, NDArray[np.int64], int, int, Rule, Rule, TurnRule], int]:
    """The kernel, compiled. What was compiled from sources with another stamp is not used again."""

    def run(
        tables: Tables,
        arriving: NDArray[np.int64],
        last: int,
        until_ns: int,
        admitted: Rule,
        grown: Rule,
        turned: TurnRule,
    ) -> int:
        if stamp == 0:
            return last
        fixed = tables.fixed[0]
        if fixed.is_awaited:
            return serve_answers(tables, arriving, last, until_ns, admitted, grown, turned)
        num_requests, num_replicas = arriving.size, tables.replicas.size
        if fixed.routing == ROUND_ROBIN:
            for first in range(0, max(num_requests, 1), AHEAD * num_replicas):
                stop = min(first + AHEAD * num_replicas, num_requests)
                for number in range(first, stop):
                    last = (last + 1) % num_replicas
                    route(tables.requests, tables.replicas[last], last, arriving[number])
                moment_ns = until_ns if stop == num_requests else tables.requests[arriving[stop]].arrival_ns
                _advance_all(tables, moment_ns, admitted, grown, turned)
            return last
        # Where requests are not routed before, each is when it arrives.
        for number in range(num_requests + 1):
            is_over = number == num_requests
            moment_ns = until_ns if is_over else tables.requests[arriving[number]].arrival_ns
            _advance_all(tables, moment_ns, admitted, grown, turned)
            if not is_over:
                last = chosen(tables, arriving[number], last, moment_ns, admitted, grown, turned)
                route(tables.requests, tables.replicas[last], last, arriving[number])
        return last

    return kernel(run)


def stamp() -> int:
    """Of all sources that are compiled into the kernel: Numba itself only looks at this file."""
    own = Path(__file__).parent
    engines = ("engine/eviction.py", "engine/prefixes.py", "engine/scheduling.py", "engine/tiers.py")
    others = ("compiled.py", "timing/prices.py", *engines, "strategy/base.py")
    sources = [own / f"{name}.py" for name in COMPILED] + [own.parent / name for name in others]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()
    return int.from_bytes(digest[:6]) + 1


run = _kernel(stamp())
"""Routes requests, the next ones of a trace, to replicas, and runs these until a moment; every table is written to.

Called with the tables, the places of those requests in their table, the replica that got the one before them, the
moment, and the strategy's rules; the replica that got the last one comes back. Where clients wait for answers, the
moment is FOREVER for the last requests, and any other one for those that others follow.
"""
