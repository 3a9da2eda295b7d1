"""An address space of slots for contiguous capacities: a buddy allocator, and best fit.

Both take whole ranges; what is free but in no range that is long enough is external waste.

Buddy: a range is a power of two blocks long and begins at a multiple of its length; a freed one merges with its other
half while that is free as well. A space whose size is no power of two begins as the fewest such ranges.
Best fit: of the free ranges, kept in order of address, the shortest that is long enough; its rest stays free.
"""

from kvbench.compiled import part
from kvbench.fleet.state import BEST_FIT, BUDDY, NONE, Machine

HEAD, NEXT, PREVIOUS, ORDER = range(4)
"""Rows of a buddy's table: each order's list of free ranges begins at HEAD; by block, the lists, and the order of the
range that begins there."""
COUNT, START, LENGTH = range(3)
"""Rows of best fit's table: how many free ranges there are, first; and the ranges, by address."""
NUM_ORDERS = 48


@part
def order_of(num_blocks: int) -> int:
    """The least power of two that is no less."""
    order = 0
    while (1 << order) < num_blocks:
        order += 1
    return order


@part
def _link(m: Machine, block: int, order: int) -> None:
    first = m.space[HEAD, order]
    m.space[NEXT, block], m.space[PREVIOUS, block], m.space[ORDER, block] = first, NONE, order
    if first != NONE:
        m.space[PREVIOUS, first] = block
    m.space[HEAD, order] = block


@part
def _unlink(m: Machine, block: int) -> None:
    before, behind = m.space[PREVIOUS, block], m.space[NEXT, block]
    if before == NONE:
        m.space[HEAD, m.space[ORDER, block]] = behind
    else:
        m.space[NEXT, before] = behind
    if behind != NONE:
        m.space[PREVIOUS, behind] = before
    m.space[ORDER, block] = NONE


@part
def lay_out(m: Machine) -> None:
    """Make everything free."""
    if m.fixed.space == BUDDY:
        m.space[:] = NONE
        start, left = 0, m.fixed.space_slots // m.fixed.min_block
        for order in range(NUM_ORDERS - 1, -1, -1):
            if left >> order & 1:
                _link(m, start, order)
                start += 1 << order
    elif m.fixed.space == BEST_FIT:
        m.space[COUNT, 0] = 1
        m.space[START, 0], m.space[LENGTH, 0] = 0, m.fixed.space_slots


@part
def rounded(m: Machine, capacity: int) -> int:
    """Slots that a capacity takes."""
    if m.fixed.space == BUDDY:
        return m.fixed.min_block << order_of(-(-capacity // m.fixed.min_block))
    return capacity


@part
def take(m: Machine, size: int) -> int:
    """Take a range of as many slots, rounded before; its address, or NONE where there is none."""
    if m.fixed.space == BUDDY:
        return _split(m, order_of(size // m.fixed.min_block))
    best = NONE
    for i in range(m.space[COUNT, 0]):
        if m.space[LENGTH, i] >= size and (best == NONE or m.space[LENGTH, i] < m.space[LENGTH, best]):
            best = i
    if best == NONE:
        return NONE
    place: int = m.space[START, best]
    m.space[START, best] += size
    m.space[LENGTH, best] -= size
    if m.space[LENGTH, best] == 0:
        m.space[COUNT, 0] -= 1
        for i in range(best, m.space[COUNT, 0]):
            m.space[START, i], m.space[LENGTH, i] = m.space[START, i + 1], m.space[LENGTH, i + 1]
    return place


@part
def _split(m: Machine, order: int) -> int:
    found = order
    while found < NUM_ORDERS and m.space[HEAD, found] == NONE:
        found += 1
    if found >= NUM_ORDERS:
        return NONE
    block: int = m.space[HEAD, found]
    _unlink(m, block)
    while found > order:
        found -= 1
        _link(m, block + (1 << found), found)
    return block * m.fixed.min_block


@part
def give_back(m: Machine, place: int, size: int) -> None:
    """Free a range."""
    if m.fixed.space == BUDDY:
        _merge(m, place // m.fixed.min_block, order_of(size // m.fixed.min_block))
        return
    behind, num_ranges = 0, m.space[COUNT, 0]
    while behind < num_ranges and m.space[START, behind] < place:
        behind += 1
    joins_behind = behind < num_ranges and m.space[START, behind] == place + size
    joins_before = behind > 0 and m.space[START, behind - 1] + m.space[LENGTH, behind - 1] == place
    if joins_before:
        m.space[LENGTH, behind - 1] += size
        if joins_behind:
            m.space[LENGTH, behind - 1] += m.space[LENGTH, behind]
            m.space[COUNT, 0] -= 1
            for i in range(behind, m.space[COUNT, 0]):
                m.space[START, i], m.space[LENGTH, i] = m.space[START, i + 1], m.space[LENGTH, i + 1]
    elif joins_behind:
        m.space[START, behind], m.space[LENGTH, behind] = place, m.space[LENGTH, behind] + size
    else:
        m.space[COUNT, 0] += 1
        for i in range(num_ranges, behind, -1):
            m.space[START, i], m.space[LENGTH, i] = m.space[START, i - 1], m.space[LENGTH, i - 1]
        m.space[START, behind], m.space[LENGTH, behind] = place, size


@part
def _merge(m: Machine, block: int, order: int) -> None:
    num_blocks = m.fixed.space_slots // m.fixed.min_block
    while True:
        other = block ^ (1 << order)
        if other >= num_blocks or m.space[ORDER, other] != order:
            break
        _unlink(m, other)
        block, order = min(block, other), order + 1
    _link(m, block, order)
