"""What requests share, as the kernel has it: runs of whole blocks, and tables whose addresses replicas know."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.bounds import check_memory
from kvbench.fleet.prefix.known import KNOWN, KnownTables
from kvbench.fleet.prefix.segments import CELL, RUN, SEGMENT
from kvbench.fleet.state import NONE, Tables
from kvbench.workload.contents import Contents

MOST_NUMBERS = 2**31 - 1


class Runs(NamedTuple):
    """Stretches of contents in whole blocks: those with no block that ends in them are left out.

    Args:
        rows: RUN records.
        leaves: int64 [requests]; the run that a prompt and its answer end in; NONE where they fill no block.
        copies: int64 [requests]; which of the contents' copies that is of.
        prompts: int64 [requests]; the run that a prompt ends in; NONE where it fills no block.
    """

    rows: NDArray[np.void]
    leaves: NDArray[np.int64]
    copies: NDArray[np.int64]
    prompts: NDArray[np.int64]

    @property
    def num_copies(self) -> int:
        """How many copies of the contents the trace has in it."""
        return int(self.copies.max()) + 1


class NameTables(NamedTuple):
    """Tables of blocks with names; they are kept as long as their addresses are known.

    Args:
        runs: of the trace, once; the runs of a copy have the same numbers, behind those of the copies before.
        table: CELL records [runs of all copies, replicas].
        segments: SEGMENT records [replicas, more than there can be].
    """

    runs: Runs
    table: NDArray[np.void]
    segments: NDArray[np.void]


def runs_of(contents: Contents, block_tokens: int) -> Runs:
    """The runs of contents, in blocks of so many tokens."""
    firsts, pasts = contents.begins // block_tokens, contents.ends // block_tokens
    return runs_between(contents.parents, firsts, pasts, contents.answers, contents.prompts)


def runs_between(
    parents: NDArray[np.int64],
    firsts: NDArray[np.int64],
    pasts: NDArray[np.int64],
    answers: NDArray[np.int64],
    prompts: NDArray[np.int64],
) -> Runs:
    """The runs of stretches, of which each has the blocks from one number to another, if any.

    Args:
        parents: of each stretch, the one before it, or NONE.
        firsts: the first block of each.
        pasts: the one behind its last.
        answers: the stretches that requests end in, of any copy.
        prompts: those that their prompts end in.
    """
    has_blocks = pasts > firsts
    # The nearest stretch with blocks at or above each: -1 stands behind the last, for none.
    nearest = np.append(np.arange(has_blocks.size), NONE)
    above, is_found = np.append(parents, NONE), np.append(has_blocks, True)
    while not (done := is_found[nearest]).all():
        nearest = np.where(done, nearest, above[nearest])
    number = np.append(np.where(has_blocks, np.cumsum(has_blocks) - 1, NONE), NONE)[nearest]
    rows = np.zeros(int(has_blocks.sum()), RUN)
    rows["parent"] = number[parents[has_blocks]]
    rows["first"], rows["past"] = firsts[has_blocks], pasts[has_blocks]
    copies, answers = np.divmod(answers, parents.size)
    return Runs(rows, number[answers], copies, number[prompts % parents.size])


def names_of(tables: Tables, runs: Runs, repeats: int) -> NameTables:
    """Tables for a trace so many times; their addresses are written to those of the kernel.

    Raises:
        ValueError: there are too many runs, or no memory for them.
    """
    (own,) = tables.fixed
    num_replicas, num_runs = tables.replicas.size, runs.rows.size * runs.num_copies * repeats
    tables.fixed["num_runs"], block_bytes = num_runs, int(own["unit"] * own["slot_bytes"])
    if own["num_groups"]:
        num_runs *= int(own["num_groups"])
        block_bytes = int(own["holds"]["block_bytes"][: own["num_groups"]].min())
    num_segments = 2 * int(own["limit_bytes"] // block_bytes) + int(own["max_batch"]) + 2
    what = f"prefixes of {num_runs:,} stretches of text in blocks, repeats={repeats}, replicas={num_replicas},"
    check_memory(what, num_replicas * (num_runs * CELL.itemsize + num_segments * SEGMENT.itemsize))
    if max(num_runs, num_segments) > MOST_NUMBERS:
        raise ValueError(f"{what} are more than {MOST_NUMBERS:,}, which a fleet can number")
    table, segments = np.zeros((num_runs, num_replicas), CELL), np.zeros((num_replicas, num_segments), SEGMENT)
    tables.fixed["runs_at"], tables.fixed["table_at"] = runs.rows.ctypes.data, table.ctypes.data
    tables.replicas["segments_at"] = segments.ctypes.data + segments.strides[0] * np.arange(num_replicas)
    return NameTables(runs, table, segments)


def known_of(fixed: NDArray[np.void], names: NameTables, delay_ns: int) -> KnownTables:
    """Tables of what a router knows that looks every so often; their record's address is written to what is fixed.

    Raises:
        ValueError: there is no memory for them.
    """
    num_runs, num_replicas = names.table.shape
    check_memory(
        f"what a router knows of {num_runs:,} stretches of text, replicas={num_replicas}", 2 * names.table.nbytes
    )
    shapes = (num_runs, num_replicas), (num_replicas, num_runs + 1)
    made = KnownTables(np.zeros(1, KNOWN), *(np.zeros(shape, CELL) for shape in shapes))
    made.record["delay_ns"], made.record["num_runs"] = delay_ns, names.runs.rows.size
    made.record["cells_at"], made.record["lists_at"] = made.cells.ctypes.data, made.lists.ctypes.data
    fixed["known_at"] = made.record.ctypes.data
    return made
