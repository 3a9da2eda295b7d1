"""Sessions as columns, for simulations of very many, and columns as sessions, for runs request by request."""

from collections.abc import Sequence

import numpy as np

from kvbench.workload.contents import NONE, Keys
from kvbench.workload.histories import Beginnings, Counts, TurnColumns, numbers_within
from kvbench.workload.request import Request, Session
from kvbench.workload.trace_columns import TraceColumns


def columns_of(sessions: Sequence[Session], num_clients: int | None = None) -> TraceColumns:
    """Sessions as columns: a row a turn, its prompt whole; samples of one prompt share it.

    Args:
        sessions: in order of arrival.
        num_clients: as in `TraceColumns`.
    """
    counts = [len(session.turns) for session in sessions]
    turns = [turn for session in sessions for turn in session.turns]
    own = np.repeat(np.arange(len(counts)), counts)
    new, output, think = (
        np.array([getattr(turn, name) for turn in turns], dtype=np.int64)
        for name in ("num_append_tokens", "num_decode_tokens", "think_ns")
    )
    is_first = numbers_within(own) == 0
    groups = np.repeat(np.array([NONE if each.group is None else each.group for each in sessions], np.int64), counts)
    beginnings = None
    if (is_sample := is_first & (groups != NONE)).any():
        _, firsts, chosen = np.unique(groups[is_sample], return_index=True, return_inverse=True)
        beginnings = Beginnings(
            parents=np.full(firsts.size, NONE),
            ends=new[is_sample][firsts],
            chosen=np.full(own.size, NONE),
        )
        beginnings.chosen[is_sample] = chosen
        new[is_sample] = 0
    return TurnColumns(
        arrival_ns=np.repeat(np.array([session.arrival_ns for session in sessions], dtype=np.int64), counts),
        sessions=own,
        after=np.where(is_first, NONE, np.arange(own.size) - 1),
        num_new_tokens=new,
        num_output_tokens=output,
        think_ns=think,
        beginnings=beginnings,
        num_clients=num_clients,
    ).columns


def requests_by_turn(columns: TraceColumns) -> tuple[Session, ...]:
    """Columns as requests that hold nothing between turns, each with its whole prompt and the names of its blocks.

    Args:
        columns: with arrivals.
    """
    num, offsets, parents = columns.num_requests, columns.parent_offsets, columns.parents
    first, nobody = np.zeros(num, np.int64), np.zeros(0, np.int64)
    followed = [nobody] * num if offsets is None or parents is None else np.split(parents, offsets[1:-1])
    rows = zip(
        columns.arrivals_ns.tolist(),
        map(Request, *(each.tolist() for each in _lengths(columns, first))),
        followed,
        (np.arange(num) if columns.sessions is None else columns.sessions).tolist(),
        (first if columns.turns is None else columns.turns).tolist(),
        (first if columns.tenants is None else columns.tenants).tolist(),
        columns.goes_on.tolist(),
        strict=True,
    )
    return tuple(
        Session(
            arrival,
            (request,),
            keys=None if columns.contents is None else Keys(columns.contents, row),
            parents=tuple(map(int, those)),
            place=(session, turn),
            tenant=tenant,
            goes_on=goes_on,
        )
        for row, (arrival, request, those, session, turn, tenant, goes_on) in enumerate(rows)
    )


def _lengths(columns: TraceColumns, none: Counts) -> tuple[Counts, Counts, Counts]:
    """Tokens of prompts and answers, and think times."""
    think = none if columns.think_ns is None else columns.think_ns
    return columns.num_prompt_tokens, columns.num_output_tokens, think


def sessions_of(columns: TraceColumns) -> tuple[Session, ...]:
    """Columns as sessions: turns that follow one another, each prompt with the one before and its answer in it.

    Args:
        columns: with arrivals.
    Raises:
        ValueError: a session's turns do not follow one another so.
    """
    num = columns.num_requests
    numbers = columns.session_numbers
    rows = np.argsort(numbers, kind="stable")
    turns = numbers_within(numbers[rows])
    before = np.where(turns == 0, NONE, np.roll(rows, 1))
    _check_chains(columns, rows, before)
    prompts, outputs = columns.num_prompt_tokens[rows], columns.num_output_tokens[rows]
    new = prompts - np.where(turns == 0, 0, (columns.num_prompt_tokens + columns.num_output_tokens)[before])
    think = np.zeros(num, np.int64) if columns.think_ns is None else columns.think_ns[rows]
    made = list(map(Request, new.tolist(), outputs.tolist(), think.tolist()))
    starts = np.flatnonzero(turns == 0)
    arrivals = columns.arrivals_ns[rows[starts]].tolist()
    stops = [*starts[1:].tolist(), num]
    return tuple(
        Session(arrival, tuple(made[start:stop]))
        for arrival, start, stop in zip(arrivals, starts.tolist(), stops, strict=True)
    )


def history_of(columns: TraceColumns) -> Counts:
    """Of each request, the only one that it follows, if its prompt begins with all that one says; or NONE."""
    found = np.full(columns.num_requests, NONE)
    if columns.parents is None or columns.parent_offsets is None:
        return found
    rows = np.flatnonzero(np.diff(columns.parent_offsets) == 1)
    before = columns.parents[columns.parent_offsets[rows]]
    has_it = (columns.num_prompt_tokens + columns.num_output_tokens)[before] < columns.num_prompt_tokens[rows]
    if columns.contents is not None:
        has_it &= columns.contents.passes(columns.contents.prompts[rows], columns.contents.answers[before])
    found[rows[has_it]] = before[has_it]
    return found


def _check_chains(columns: TraceColumns, rows: Counts, before: Counts) -> None:
    """Refuse sessions that are more than turns after turns; `before` is the row before each of `rows` in its own."""
    wanted = (before != NONE).astype(np.int64)
    offsets = np.zeros(rows.size + 1, np.int64) if columns.parent_offsets is None else columns.parent_offsets
    counts = np.diff(offsets)[rows]
    _refuse(rows[counts != wanted], "follows {} others", counts[counts != wanted])
    later, earlier = rows[before != NONE], before[before != NONE]
    if columns.parents is not None:
        _refuse(later[columns.parents[offsets[later]] != earlier], "does not follow the one before it")
    _refuse(later[columns.arrivals_ns[later] > columns.arrivals_ns[earlier]], "has a time of its own to come at")
    _refuse(later[history_of(columns)[later] == NONE], "does not begin with the prompt and the answer before it")


def _refuse(rows: Counts, what: str, counts: Counts | None = None) -> None:
    if rows.size:
        what = what if counts is None else what.format(counts[0])
        raise ValueError(
            f"one cache a session takes turns that follow one another, each with its history, and request {rows[0]} "
            f"{what}: strategy=paged strategy.paged.prefix_caching=true takes each turn as a request of its own"
        )
