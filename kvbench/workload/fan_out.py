"""Where turns of agents and of their children stand, and what each follows: row numbers, without a loop over them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE

Rows = NDArray[np.int64]


class Tree(NamedTuple):
    """Rows of agents' sessions: a parent's turn, its children's turns, child after child, the parent's next turn.

    Args:
        counts: int64 [sessions]; rows of each.
        firsts: int64 [sessions]; the row that each begins with.
        after: int64 [rows]; the row whose prompt and answer each goes on from; NONE: a session's first.
        parents: int64; the rows that each follows, one row's after another's.
        parent_offsets: int64 [rows + 1]; row i follows `parents[offsets[i]:offsets[i + 1]]`.
        begun: int64 [children]; the row that each begins with.
        ended: int64 [children]; the row that each ends with.
        fans: int64 [children]; by number, the fan-out that each is of.
        joins: int64 [fan-outs]; the row with which the parent goes on.
    """

    counts: Rows
    firsts: Rows
    after: Rows
    parents: Rows
    parent_offsets: Rows
    begun: Rows
    ended: Rows
    fans: Rows
    joins: Rows


def tree_of(num_turns: Rows, forks: Rows, num_children: Rows, num_child_turns: Rows) -> Tree:
    """Give each turn its row.

    Args:
        num_turns: [sessions] turns of each agent, its children's left out, >= 1.
        forks: [fan-outs] agents' turns, counted over all sessions, after which children work; increasing, and none a
            session's last.
        num_children: [fan-outs] how many, >= 1.
        num_child_turns: [children] turns of each, >= 1.
    """
    fans = np.repeat(np.arange(forks.size), num_children)
    work = np.append(0, np.cumsum(num_child_turns))
    until = np.append(0, np.cumsum(num_children))
    num_own = int(num_turns.sum())
    moved = np.zeros(num_own + 1, np.int64)
    moved[forks + 1] = np.diff(work[until])
    own = np.arange(num_own) + np.cumsum(moved[:-1])
    num_rows = num_own + int(work[-1])
    begun = forks[fans] + 1 + work[:-1]
    ended = begun + num_child_turns - 1
    firsts, joins = own[np.cumsum(num_turns) - num_turns], own[forks + 1]
    after = np.arange(-1, num_rows - 1)
    after[firsts], after[joins], after[begun] = NONE, own[forks], own[forks][fans]
    num_parents = np.ones(num_rows, np.int64)
    num_parents[firsts], num_parents[joins] = 0, num_children
    offsets = np.append(0, np.cumsum(num_parents))
    is_one = num_parents == 1
    parents = np.empty(int(offsets[-1]), np.int64)
    parents[offsets[:-1][is_one]] = after[is_one]
    parents[offsets[joins][fans] + np.arange(fans.size) - until[fans]] = ended
    counts = np.diff(np.append(firsts, num_rows))
    return Tree(counts, firsts, after, parents, offsets, begun, ended, fans, joins)
