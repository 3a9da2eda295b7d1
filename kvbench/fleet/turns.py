"""What becomes of a sequence's slots when they are too many: some leave the area main, for the one before it, or for
good. What is booked, and what it takes, is what the ledger books of such plans, and a modelled backend prices.

A plan is made whole or not at all; one that follows attention, and finds no memory, is made after a later step.
"""

from kvbench.compiled import part, plain
from kvbench.fleet.aside import added_bytes, note_wait, passing_bytes, put_aside, waiting_steps
from kvbench.fleet.holds import bend, bytes_of, held_bytes, held_units, used_slots
from kvbench.fleet.memory import note_peak, note_waste
from kvbench.fleet.state import (
    AFTER,
    AT_ONCE,
    BEFORE,
    COPIES_EVICTED,
    COPIES_KEPT,
    FULL,
    OF_APPEND,
    REST,
    FixedRow,
    Machine,
)
from kvbench.timing.prices import UNBOUNDED, resize_ps

_resize_ps = plain(resize_ps)


@part
def make_way(m: Machine, place: int, held: int, num_tokens: int) -> int:
    """Before an append of so many tokens: nothing, more room, or fewer slots in use.

    Returns:
        Whether there is memory: 0 if not, 2 if there is.
    """
    own = m.live[place]
    used = used_slots(own, held)
    if used + num_tokens <= m.turned(FULL, own.capacity, 0, 0):
        return 2
    stay, capacity = m.turned(BEFORE, used, num_tokens, held), own.capacity
    if stay == used:
        capacity = m.grown(capacity, used + num_tokens)
    return 2 * _let_go(m, place, held, used, stay, capacity)


@part
def turn(m: Machine, place: int, required: int, num_bytes: int, num_units: int) -> None:
    """Note what a step of a request that decodes came to, and reduce what it holds where that is due.

    Args:
        m: the replica.
        place: the request's.
        required: tokens, the step's own included.
        num_bytes: what it was to use with them.
        num_units: and to see.
    """
    now, own = m.now, m.live[place]
    now.units_seen += held_units(own, required, m.fixed) - num_units
    if m.fixed.way_ps > 0:
        note_wait(m, place, required)
    reduce(m, place, required, 1)
    note_slide(m, place, required)
    now.units += held_units(own, required, m.fixed) - num_units
    now.used += held_bytes(own, required, m.fixed) - num_bytes
    bend(m, place, required)


@part
def scored_ps(num_units: int, fixed: FixedRow) -> int:
    """What scores of slots take in a decode step that sees so many units of them."""
    return num_units // fixed.slot_units * fixed.score_ps if fixed.score_ps > 0 else 0


@part
def reduce(m: Machine, place: int, held: int, num_new: int) -> None:
    """After attention of new tokens: let go of what is too much, and of room that only it needed."""
    own, fixed = m.live[place], m.fixed
    used = used_slots(own, held)
    left = m.turned(OF_APPEND, used, num_new, 0) if num_new > 1 else used
    kept = left
    if fixed.interval == 0 or own.is_pending or held >= own.pass_at:
        kept = m.turned(AFTER, left, held - own.several, held)
        own.pass_at = held + fixed.interval
    rest = m.turned(REST, own.capacity, kept, 0)
    own.is_pending = 0
    if kept < used or rest < own.capacity:
        own.is_pending = 1 - _let_go(m, place, held, left, kept, rest)
    _slide(m, place, held)


@part
def _slide(m: Machine, place: int, held: int) -> None:
    """Note where each further token takes the slot of another that is evicted, once so many are in use."""
    own = m.live[place]
    used, full = used_slots(own, held), m.turned(FULL, own.capacity, 0, 0)
    own.away, own.most = held - used, UNBOUNDED
    is_calm = own.is_pending == 0 and used <= full and m.fixed.aside_chunk == 0
    if is_calm and m.turned(BEFORE, full, 1, 0) + 1 == full:
        own.most = full


@part
def note_slide(m: Machine, place: int, held: int) -> None:
    """Note whether each step from the next one on copies a slot, of a request that decodes and holds so many tokens."""
    own = m.live[place]
    slides = int(m.fixed.copies == COPIES_EVICTED and own.most > 1 and held - own.away >= own.most)
    m.now.num_sliding += slides - own.slides
    own.slides = slides


@part
def slid(m: Machine, num_steps: int) -> None:
    """Note what so many steps copied of all who let go of a slot a step; there was memory for it."""
    m.now.copied_bytes += num_steps * m.now.num_sliding * m.fixed.slot_bytes
    note_peak(m, m.fixed.slide_bytes)


@part
def has_slide_room(m: Machine) -> bool:
    """Whether there is memory to copy a slot."""
    return m.now.allocated + m.fixed.slide_bytes <= m.fixed.limit_bytes


@part
def calm_steps(m: Machine, most: int) -> int:
    """How many of so many steps to come take what straight lines say, and note what they take beside."""
    now, fixed = m.now, m.fixed
    now.beside_ps = scored_ps(now.units, fixed) + now.num_sliding * fixed.slide_ps
    now.more_beside_ps = scored_ps(now.more_units, fixed)
    if fixed.way_ps > 0:
        most = waiting_steps(m, most)
    return most if now.num_sliding == 0 or has_slide_room(m) else 0


@part
def next_most(m: Machine, place: int, num_tokens: int) -> int:
    """How many of so many tokens of a prompt the next step takes."""
    own = m.live[place]
    return m.turned(AT_ONCE, num_tokens, used_slots(own, own.held), 0) if num_tokens > 1 else num_tokens


@part
def next_turn(m: Machine, place: int, held: int) -> int:
    """The fewest tokens, more than a sequence holds, at which something else happens than an append."""
    own = m.live[place]
    if own.is_pending:
        return held + 1
    if own.most == UNBOUNDED:
        event = max(own.away + m.turned(FULL, own.capacity, 0, 0), held) + 1
        return min(event, max(own.pass_at, held + 1)) if m.fixed.interval > 0 else event
    if held < own.away + own.most:
        return own.away + own.most
    return held + 1 if m.fixed.copies == COPIES_KEPT else UNBOUNDED


@part
def _let_go(m: Machine, place: int, held: int, left: int, stay: int, capacity: int) -> int:
    """Let slots of the area main leave, first all but those left, then all but those that stay, and make its capacity
    another; whether there was memory for it."""
    now, own, fixed = m.now, m.live[place], m.fixed
    used, old, unit = used_slots(own, held), own.capacity, fixed.holds[0].tensor_bytes
    leaving = used - stay
    added = added_bytes(own, leaving, fixed)
    is_resize = leaving == 0 or capacity != old
    passing = max(passing_bytes(own, used, used - left, fixed), passing_bytes(own, left, left - stay, fixed))
    grown, most = 0, added + passing
    if is_resize:
        grown = bytes_of(capacity, fixed) - bytes_of(old, fixed)
        most = max(most, added + max(grown, 0) + max(min(capacity, old) - fixed.num_pinned, 0) * unit)
    if capacity > fixed.limit_slots or now.allocated + most > fixed.limit_bytes:
        return 0
    note_peak(m, most)
    now.allocated += added + grown
    put_aside(m, place, used, used - left)
    put_aside(m, place, left, left - stay)
    if is_resize:
        copied_bytes = max(stay - fixed.num_pinned, 0) * fixed.slot_bytes
        now.num_resizes += old > 0
        now.copied_bytes += copied_bytes
        now.spent_ps += _resize_ps(copied_bytes, fixed)
    own.away, own.most = held - stay, UNBOUNDED
    own.capacity = own.taken = capacity
    note_waste(m, place)
    return 1
