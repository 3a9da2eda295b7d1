"""A trace through the kernel: whole, or block by block, so that none but those that have not ended have a row."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.bounds import check_memory
from kvbench.fleet.kernel import run
from kvbench.fleet.prefix.runs import Runs
from kvbench.fleet.prefix.segments import TURN
from kvbench.fleet.result import Served
from kvbench.fleet.rules import BoundRule
from kvbench.fleet.sessions import is_asked, turns_of, with_turns
from kvbench.fleet.state import FOREVER, NONE, REQUEST, Tables
from kvbench.fleet.tables import WHOLE, requests_of, served_of
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns

BLOCK = 1 << 13
"""Requests of a block."""
FILLED = 1 << 18
"""Requests whose rows are made at once where all get one."""


def run_whole(
    tables: Tables, rule: BoundRule, columns: TraceColumns, repeats: int, runs: Runs | None
) -> tuple[Served, int]:
    """Serve a trace so many times; what became of its requests, and when the last one ended.

    Args:
        tables: before the first request arrives.
        rule: the strategy's.
        columns: the trace, once.
        repeats: how often.
        runs: what requests share, if anything is.
    Raises:
        ValueError: it takes longer than the clock holds.
    """
    tables = filled(tables, columns, repeats, runs)
    return run_filled(tables, rule, np.arange(tables.requests.size), FOREVER)


def filled(tables: Tables, columns: TraceColumns, repeats: int, runs: Runs | None) -> Tables:
    """The kernel's tables with a row for each request of a trace so many times."""
    lengths, num_requests = _lengths(columns), columns.num_requests * repeats
    requests, turns = (
        np.zeros(num_requests * some, row) for row, some in ((REQUEST, 1), (TURN, is_asked(tables, columns)))
    )
    for first in range(0, num_requests, FILLED):  # what is made on the way is no more than of so many
        stop = min(first + FILLED, num_requests)
        requests.view(WHOLE)[first:stop] = requests_of(lengths.stretch(first, stop)).view(WHOLE)
        if turns.size:
            turns[first:stop] = turns_of(columns, np.arange(first, stop), runs)
    return (with_turns(tables, turns) if turns.size else tables)._replace(requests=requests)


def run_filled(tables: Tables, rule: BoundRule, arriving: NDArray[np.int64], until_ns: int) -> tuple[Served, int]:
    """Serve requests that have rows until a moment; FOREVER: until all have ended, as they then have to.

    Args:
        tables: from `filled`.
        rule: the strategy's.
        arriving: rows of those that were in no call before.
        until_ns: the moment.
    """
    requests = tables.requests
    run(tables, arriving, tables.replicas.size - 1, until_ns, *rule.compiled)
    finish_ns = requests["finish_ns"].copy()  # read several times: one after another, and not a row apart
    _check_ended(0 if until_ns < FOREVER else int((finish_ns == NONE).sum()))
    return served_of(requests, np.arange(requests.size), tables.turns, tables.loads), int(finish_ns.max())


def _lengths(columns: TraceColumns) -> TraceColumns:
    """A trace's arrivals and tokens: the rest has tables of its own."""
    prompts, outputs = columns.num_prompt_tokens, columns.num_output_tokens
    return TraceColumns(arrival_ns=columns.arrival_ns, num_prompt_tokens=prompts, num_output_tokens=outputs)


def run_blocks(
    tables: Tables,
    rule: BoundRule,
    columns: TraceColumns,
    repeats: int,
    runs: Runs | None,
    block: int,
    fold: Callable[[Served], object],
) -> tuple[Served, int]:
    """As `run_whole`, of no more requests at once than a block and those not ended.

    Each block runs until the next one's first arrival. Who has ended is handed over, and the row is another's.

    Args:
        tables: before the first request arrives.
        rule: the strategy's.
        columns: the trace, once.
        repeats: how often.
        runs: what requests share, if anything is.
        block: requests that get a row at once, > 0.
        fold: takes what became of requests, some at a time, as they end.
    """
    requests, (numbers, free, busy) = tables.requests, (np.zeros(0, np.int64) for _ in range(3))
    num_requests = columns.num_requests * repeats
    lengths = _lengths(columns)
    last, makespan_ns = tables.replicas.size - 1, 0
    for first in range(0, num_requests, block):
        stop = min(first + block, num_requests)
        rows = requests_of(lengths.stretch(first, stop))
        if rows.size > free.size:
            added = np.zeros(max(rows.size, requests.size), REQUEST)
            check_memory(f"{busy.size:,} requests that wait:", requests.nbytes + added.nbytes)
            free = np.append(free, np.arange(requests.size, requests.size + added.size))
            requests, numbers = np.append(requests, added), np.append(numbers, np.zeros(added.size, np.int64))
            if is_asked(tables, columns):
                tables = with_turns(tables, np.append(tables.turns, np.zeros(added.size, TURN)))
        arriving, free = free[: rows.size], free[rows.size :]
        requests.view(WHOLE)[arriving], numbers[arriving] = rows.view(WHOLE), np.arange(first, stop)
        if is_asked(tables, columns):
            tables.turns[arriving] = turns_of(columns, np.arange(first, stop), runs)
            if tables.loads.size:
                tables.loads[arriving] = 0
        until_ns = FOREVER if stop == num_requests else int(lengths.stretch(stop, stop + 1).arrivals_ns[0])
        last = run(tables._replace(requests=requests), arriving, last, until_ns, *rule.compiled)
        places = np.append(busy, arriving)
        has_ended = requests["finish_ns"][places] != NONE
        over, busy = places[has_ended], places[~has_ended]
        ended, free = requests.view(WHOLE)[over].view(REQUEST), np.append(free, over)
        if ended.size:
            makespan_ns = max(makespan_ns, int(ended["finish_ns"].max()))
            fold(served_of(ended, numbers[over], _of(tables.turns, over), _of(tables.loads, over)))
    _check_ended(busy.size)
    return served_of(requests[:0], numbers[:0], tables.turns[:0], tables.loads[:0]), makespan_ns


def _of(table: np.ndarray, places: NDArray[np.int64]) -> np.ndarray:
    """Rows of a table that may be empty."""
    return table[places] if table.size else table


def _check_ended(num_left: int) -> None:
    if num_left:
        raise ValueError(
            f"a fleet's clock holds {FOREVER / NS_PER_S:,.4g} s (36 years), and {num_left:,} of these requests have "
            "not ended by then: serve fewer, or shorter ones"
        )
