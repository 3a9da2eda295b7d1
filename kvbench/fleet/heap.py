"""A heap of live requests by the step at which something next happens to each; any of them can be taken out."""

from kvbench.compiled import part
from kvbench.fleet.state import NONE, Machine


@part
def _put(m: Machine, position: int, place: int) -> None:
    m.live[position].heap = place
    m.live[place].position = position


@part
def _rise(m: Machine, position: int, place: int) -> None:
    """Put a request where it belongs, at a position or nearer to the top."""
    key = m.live[place].key
    while position > 0:
        above = (position - 1) >> 1
        other = m.live[above].heap
        if m.live[other].key <= key:
            break
        _put(m, position, other)
        position = above
    _put(m, position, place)


@part
def _sink(m: Machine, position: int, place: int, size: int) -> None:
    """Put a request where it belongs, at a position or further from the top."""
    key = m.live[place].key
    while True:
        below = 2 * position + 1
        if below >= size:
            break
        other = m.live[below].heap
        if below + 1 < size:
            beside = m.live[below + 1].heap
            if m.live[beside].key < m.live[other].key:
                below, other = below + 1, beside
        if m.live[other].key >= key:
            break
        _put(m, position, other)
        position = below
    _put(m, position, place)


@part
def push(m: Machine, place: int) -> None:
    """Add a request, whose key is set."""
    m.now.num_due += 1
    _rise(m, m.now.num_due - 1, place)


@part
def take_out(m: Machine, place: int) -> None:
    """Take a request out, if it is in."""
    position = m.live[place].position
    if position == NONE:
        return
    m.live[place].position = NONE
    m.now.num_due -= 1
    size = m.now.num_due
    if position == size:
        return
    other = m.live[size].heap
    if position > 0 and m.live[m.live[(position - 1) >> 1].heap].key > m.live[other].key:
        _rise(m, position, other)
    else:
        _sink(m, position, other, size)


@part
def next_key(m: Machine) -> int:
    """The step at which something happens next; there is at least one request."""
    return m.live[m.live[0].heap].key
