"""Who follows whom in a trace, and what else is asked of a request as a turn: tables that the kernel has of it."""

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.prefix.runs import Runs
from kvbench.fleet.prefix.segments import TURN
from kvbench.fleet.sends import Following
from kvbench.fleet.state import NONE, POWER_OF_TWO, SESSION, Tables
from kvbench.workload.trace_columns import TraceColumns

NOBODY = Following(*(np.zeros(0, np.int64) for _ in Following._fields))


def following_of(columns: TraceColumns, repeats: int) -> Following:
    """Who follows whom in a trace that comes so many times.

    Raises:
        ValueError: a request stands before one that it follows, or a client's session has no one turn that is first.
    """
    if columns.parents is None or columns.parent_offsets is None or not columns.parents.size:
        return NOBODY
    size, num_parents = columns.num_requests, np.diff(columns.parent_offsets)
    children = np.repeat(np.arange(size), num_parents)
    if (late := columns.parents >= children).any():
        child, parent = children[late][0], columns.parents[late][0]
        raise ValueError(f"request {child} follows request {parent}; whom it follows stands before it")
    counts = np.bincount(columns.parents, minlength=size)
    num_unended = np.zeros(0, np.int64)
    if columns.num_clients is not None:
        sessions = sessions_of(columns)
        num_unended = np.tile(np.bincount(sessions), repeats)
        several = np.flatnonzero(np.bincount(sessions[num_parents == 0]) > 1)
        if several.size:
            raise ValueError(
                f"a client sends a session's first turn, and session {several[0]} has several that follow nobody"
            )
    return Following(
        offsets=np.concatenate(([0], np.cumsum(counts))),
        children=children[np.argsort(columns.parents, kind="stable")],
        num_parents=num_parents.astype(np.int64),
        think_ns=np.zeros(size, np.int64) if columns.think_ns is None else columns.think_ns,
        num_left=np.tile(num_parents, repeats),
        ready_ns=np.zeros(size * repeats, np.int64),
        is_lost=np.zeros(size * repeats, np.int64),
        places=np.full(size * repeats, NONE),
        num_unended=num_unended,
    )


def sessions_of(columns: TraceColumns) -> NDArray[np.int64]:
    """The session of each request."""
    return np.arange(columns.num_requests) if columns.sessions is None else columns.sessions


def num_sessions(columns: TraceColumns) -> int:
    """How many sessions a trace has."""
    return int(sessions_of(columns).max()) + 1


def sends_of(num_following: int, num_clients: int = 0) -> NDArray[np.int64]:
    """What is to be sent, as `sends` keeps it: room for so many, and clients that are free at the beginning."""
    sends = np.zeros((num_following + num_clients + 2, 2), np.int64)
    sends[0, 0] = num_clients
    return sends


def turns_of(columns: TraceColumns, numbers: NDArray[np.int64], runs: Runs | None) -> np.ndarray:
    """TURN records of requests.

    Args:
        columns: the trace, once.
        numbers: of the requests in it, and in its copies.
        runs: what they share, if anything is.
    """
    copies, own = np.divmod(numbers, columns.num_requests)
    turns = np.zeros(numbers.size, TURN)
    turns["number"], turns["leaf"] = numbers, NONE
    turns["session"] = sessions_of(columns)[own] + copies * num_sessions(columns)
    if columns.turns is not None:
        turns["turn"] = columns.turns[own]
    if runs is not None:
        turns["leaf"] = runs.leaves[own]
        turns["base"] = (copies * runs.num_copies + runs.copies[own]) * runs.rows.size
    return turns


def is_asked(tables: Tables, columns: TraceColumns) -> bool:
    """Whether anything is asked of a trace's requests as turns."""
    (own,) = tables.fixed
    numbered = own["routing"] in (POWER_OF_TWO, SESSION)
    return bool(own["shares"] or numbered or columns.sessions is not None or tables.following.num_parents.size)


def with_turns(tables: Tables, turns: np.ndarray) -> Tables:
    """The kernel's tables with others of requests as turns, the first of which may be those before."""
    made = {"turns": turns}
    for name, is_there in (("loads", tables.fixed["num_tiers"][0]), ("fetches", tables.fixed["fetches"][0])):
        before = getattr(tables, name)
        made[name] = np.zeros((turns.size * int(is_there > 0), *before.shape[1:]), before.dtype)
        made[name][: len(before)] = before
    for name, table in made.items():
        tables.fixed[f"{name}_at"] = table.ctypes.data if table.size else 0
    return tables._replace(**made)
