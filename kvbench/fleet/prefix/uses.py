"""What an order of eviction goes by, as the kernel has it: who is to come, and a record a segment."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.engine.eviction import EVICTIONS, OPTIMAL, SESSION
from kvbench.fleet.bounds import check_memory
from kvbench.fleet.prefix.order import COUNT, ORDER, RANKED
from kvbench.fleet.prefix.runs import NameTables, Runs
from kvbench.fleet.prefix.segments import CELL
from kvbench.fleet.state import NONE

Users = tuple[NDArray[np.int64], NDArray[np.int64]]
"""See `users_of`."""


class OrderTables(NamedTuple):
    """Tables of an order; they are kept as long as their addresses are known.

    Args:
        order: an ORDER record.
        ranked: RANKED records [replicas, segments].
        counts: COUNT records [replicas].
        behind: CELL records [runs of all copies, replicas].
        firsts, users: see `users_of`; empty where they are not asked.
        goes_on: int64 [requests]; so too.
    """

    order: NDArray[np.void]
    ranked: NDArray[np.void]
    counts: NDArray[np.void]
    behind: NDArray[np.void]
    firsts: NDArray[np.int64]
    users: NDArray[np.int64]
    goes_on: NDArray[np.int64]


def users_of(runs: Runs) -> Users:
    """Where each run's users begin, of all copies of the contents, and who they are: requests whose prompts have it."""
    num_runs = runs.rows.size
    place, requests = runs.prompts, np.arange(runs.prompts.size)
    found, users = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while place.size:
        has_run = place != NONE
        place, requests = place[has_run], requests[has_run]
        found.append(place + runs.copies[requests] * num_runs)
        users.append(requests)
        place = runs.rows["parent"][place].astype(np.int64)
    own, who = np.concatenate(found), np.concatenate(users)
    order = np.lexsort((who, own))
    return np.append(0, np.cumsum(np.bincount(own, minlength=num_runs * runs.num_copies))), who[order]


def order_of(
    fixed: NDArray[np.void], names: NameTables, eviction: str, goes_on: NDArray[np.bool_], users: Users | None = None
) -> OrderTables:
    """Tables of another order than lru; its record's address is written to what is fixed.

    Args:
        fixed: of the kernel's tables.
        names: of its blocks.
        eviction: one of EVICTIONS.
        goes_on: of each request of the trace, once, whether another one of its session is to come.
        users: of its runs, if they are known.
    Raises:
        ValueError: there is no memory for them.
    """
    chosen, none = EVICTIONS.index(eviction), np.zeros(0, np.int64)
    shape = names.segments.shape
    num_bytes = shape[0] * shape[1] * RANKED.itemsize + names.table.nbytes
    check_memory(f"eviction={eviction}: the tables of {shape[1]:,} stretches a replica", num_bytes)
    made = OrderTables(
        np.zeros(1, ORDER),
        np.zeros(shape, RANKED),
        np.zeros(shape[0], COUNT),
        np.zeros(names.table.shape, CELL),
        *((users or users_of(names.runs)) if chosen == OPTIMAL else (none, none)),
        goes_on=goes_on.astype(np.int64) if chosen == SESSION else none,
    )
    (own,) = made.order
    own["eviction"], own["num_segments"], own["num_requests"] = chosen, shape[1], goes_on.size
    own["num_runs"], own["num_users"] = names.runs.rows.size, names.runs.rows.size * names.runs.num_copies
    for name in ("ranked", "counts", "behind", "firsts", "users", "goes_on"):
        own[f"{name}_at"] = getattr(made, name).ctypes.data
    fixed["order_at"] = made.order.ctypes.data
    return made
