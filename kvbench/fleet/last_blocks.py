"""Sequences of blocks whose last block comes next: from that step on, bytes that no token will fill are told apart.

Nothing else happens then, so steps are not taken one by one for it. Who is about to is kept by the step, the next one
last.
"""

from kvbench.compiled import part
from kvbench.fleet.memory import note_waste
from kvbench.fleet.state import NONE, Machine


@part
def await_last(m: Machine, place: int) -> None:
    """Keep that a request's last block comes at a step."""
    now, live = m.now, m.live
    i = now.num_coming
    while i > 0 and live[live[i - 1].coming].last < live[place].last:
        live[i].coming = live[i - 1].coming
        i -= 1
    live[i].coming = place
    now.num_coming += 1


@part
def is_last_due(m: Machine, step: int) -> bool:
    """Whether somebody's last block comes at a step, or has come before it."""
    return m.now.num_coming > 0 and m.live[m.live[m.now.num_coming - 1].coming].last <= step


@part
def take_last(m: Machine) -> None:
    """Let the next one have its last block."""
    now, unit = m.now, m.fixed.unit
    now.num_coming -= 1
    place = m.live[now.num_coming].coming
    own = m.live[place]
    own.capacity = own.taken = -(-own.final // unit) * unit
    own.last = NONE
    note_waste(m, place)


@part
def forget_last(m: Machine, place: int) -> None:
    """Keep no longer that a request's last block comes, if that was kept."""
    now, live = m.now, m.live
    i = 0
    while i < now.num_coming and live[i].coming != place:
        i += 1
    if i < now.num_coming:
        now.num_coming -= 1
        while i < now.num_coming:
            live[i].coming = live[i + 1].coming
            i += 1
