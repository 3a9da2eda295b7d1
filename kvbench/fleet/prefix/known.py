"""What a router knows of replicas' caches, if it does not see them: of each run, how many of its first blocks were
there when it last looked.

It looks at all replicas at multiples of a delay. What changed on a replica between two looks is in a list: runs of
which something was made or evicted; one that somebody fills stays in it, as it grows without being touched. A look
counts the runs of the list, and no others.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kvbench.compiled import part, records
from kvbench.fleet.prefix.segments import cell_at, run_at, turn_at
from kvbench.fleet.state import NONE, Machine


class KnownRow(Protocol):
    """The record of what a router knows, addresses of tables among it."""

    delay_ns: int
    looked_ns: int  # a multiple of the delay
    num_runs: int  # of a copy of the trace's contents
    cells_at: (
        int  # [runs of all copies, replicas]; twice the blocks known to be there, and 1 where a run is in the list
    )
    lists_at: int  # [replicas, runs of all copies + 1]; how many have changed, and which


class KnownTables(NamedTuple):
    """Tables of what a router knows; they are kept as long as their addresses are known.

    Args:
        record: a KNOWN record.
        cells: CELL records [runs of all copies, replicas].
        lists: CELL records [replicas, runs of all copies + 1].
    """

    record: NDArray[np.void]
    cells: NDArray[np.void]
    lists: NDArray[np.void]


KNOWN = np.dtype([(name, np.int64) for name in KnownRow.__annotations__])
known_at = records(KNOWN)


@part
def note_changed(m: Machine, run: int) -> None:
    """Other blocks of a run are there than before."""
    known = known_at(m.fixed.known_at, 0)
    cell = cell_at(known.cells_at, run * m.fixed.num_replicas + m.now.number)
    if cell.value & 1 == 0:
        cell.value += 1
        first = m.now.number * (m.fixed.num_runs + 1)
        size = cell_at(known.lists_at, first)
        size.value += 1
        cell_at(known.lists_at, first + size.value).value = run


@part
def find_known(m: Machine, request: int, num_blocks: int) -> int:
    """How many of the first so many blocks of a request were there when the router looked: see `cache.find`."""
    known, turn = known_at(m.fixed.known_at, 0), turn_at(m.fixed.turns_at, request)
    place = turn.leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        if run.first < num_blocks:
            reach = cell_at(known.cells_at, (turn.base + place) * m.fixed.num_replicas + m.now.number).value >> 1
            if reach > 0:
                return int(min(run.first + reach, num_blocks))
        place = run.parent
    return 0
