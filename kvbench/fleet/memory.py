"""Slots that live requests hold: set aside at admission, grown by the strategy's rule, and freed."""

from kvbench.compiled import part, plain
from kvbench.fleet.holds import bytes_of, replaced_bytes, twice_bytes
from kvbench.fleet.prefix.cache import let_go
from kvbench.fleet.prefix.groups import let_go_groups
from kvbench.fleet.space import give_back, rounded, take
from kvbench.fleet.state import BLOCKS, BUDDY, CHUNKS, COUNTING, NONE, FixedRow, Machine
from kvbench.timing.prices import resize_ps

_resize_ps = plain(resize_ps)


@part
def note_peak(m: Machine, extra_bytes: int) -> None:
    """Keep the most bytes that were held: now, and something in passing."""
    m.now.peak_bytes = max(m.now.peak_bytes, m.fixed.fixed_bytes + m.now.allocated + extra_bytes)


@part
def resized(m: Machine, place: int, capacity: int, beside_bytes: int) -> int:
    """Give a request more slots, or as many, and for a moment some bytes beside them.

    Returns:
        Whether there is memory: 0 if not, 1 if its slots moved or were added to, 2 if there was room where they are.
    """
    own, fixed = m.live[place], m.fixed
    if capacity > fixed.limit_slots:
        return 0
    if fixed.space != COUNTING:
        return _moved(m, place, capacity)
    added_bytes = bytes_of(capacity, fixed) - bytes_of(own.capacity, fixed)
    if capacity > own.capacity:
        added_bytes += fixed.kept_bytes
    # Tensor by tensor: while the last one is copied, the old one is held as well.
    extra_bytes = max(twice_bytes(own.capacity, fixed) if capacity > own.capacity else 0, beside_bytes)
    if m.now.allocated + added_bytes + extra_bytes > fixed.limit_bytes:
        return 0
    m.now.allocated += added_bytes
    own.capacity = own.taken = capacity
    note_peak(m, extra_bytes)
    note_waste(m, place)
    return 1


@part
def _moved(m: Machine, place: int, capacity: int) -> int:
    """As `resized`, in an address space: the new range is taken before the old one is freed."""
    own = m.live[place]
    size = rounded(m, capacity)
    found = 2
    if m.fixed.space != BUDDY or size != own.taken:
        start = take(m, size)
        if start == NONE:
            return 0
        found = 1
        m.now.allocated += bytes_of(size, m.fixed)
        note_peak(m, 0)
        m.now.allocated -= bytes_of(own.taken, m.fixed)
        if own.taken > 0:
            give_back(m, own.place, own.taken)
        m.now.rounded += bytes_of(size, m.fixed) - bytes_of(own.taken, m.fixed)
        own.place, own.taken = start, size
    m.now.rounded -= bytes_of(capacity, m.fixed) - bytes_of(own.capacity, m.fixed)
    own.capacity = capacity
    note_waste(m, place)
    return found


@part
def note_waste(m: Machine, place: int) -> None:
    """Bytes of a request that no token will fill: of sequences in blocks, once they are in their last one."""
    own, waste = m.live[place], 0
    if m.fixed.is_turning:
        waste = _turning_waste(m, place)
    elif m.fixed.layout != BLOCKS or (m.fixed.is_split and own.capacity >= own.final):
        waste = bytes_of(own.taken, m.fixed) - bytes_of(min(own.capacity, own.final), m.fixed)
    m.now.wasted += waste - own.waste
    own.waste = waste


@part
def _turning_waste(m: Machine, place: int) -> int:
    """The same where slots are reduced: of areas whose slots differ, as if all were alike."""
    own, fixed = m.live[place], m.fixed
    num_slots, num_aside = own.taken, own.gone + own.aside
    if fixed.way_ps == 0:
        num_slots += -(-num_aside // max(fixed.aside_chunk, 1)) * fixed.aside_chunk
    num_bytes = bytes_of(own.taken, fixed) + aside_bytes(num_aside, fixed)
    return num_bytes - min(num_slots, own.final) * num_bytes // max(num_slots, 1)


@part
def aside_bytes(num_slots: int, fixed: FixedRow) -> int:
    """Bytes of the chunks that hold so many slots of the area before main."""
    if fixed.aside_chunk == 0:
        return 0
    return -(-num_slots // fixed.aside_chunk) * fixed.aside_chunk * fixed.aside_bytes // fixed.aside_group


@part
def freed(m: Machine, place: int, held: int) -> None:
    """Free what a request holds; the capacity of a sequence in blocks follows from its tokens."""
    own = m.live[place]
    size = own.taken
    if m.fixed.num_groups > 0:
        size = 0
        let_go_groups(m, place, held)
    elif m.fixed.layout == BLOCKS:
        size = -(-held // m.fixed.unit) * m.fixed.unit
        if m.fixed.shares:
            size -= let_go(m, place, held)
    elif m.fixed.space != COUNTING and size > 0:
        m.now.rounded -= bytes_of(size, m.fixed) - bytes_of(own.capacity, m.fixed)
        give_back(m, own.place, size)
    m.now.allocated -= bytes_of(size, m.fixed)
    if m.fixed.is_turning:
        m.now.allocated -= aside_bytes(own.gone + own.aside, m.fixed)
    m.now.wasted -= own.waste
    own.taken = own.capacity = own.waste = 0


@part
def growth_ps(m: Machine, place: int, capacity: int, held: int) -> int:
    """What it has cost to give a request more than a capacity: a new storage and a copy, or some chunks."""
    if m.fixed.layout == BLOCKS:
        return 0
    if m.fixed.layout == CHUNKS:
        return (m.live[place].capacity - capacity) // m.fixed.unit * _resize_ps(0, m.fixed)
    copied_bytes = replaced_bytes(held, capacity, m.fixed)
    m.now.num_resizes += capacity > 0
    m.now.copied_bytes += copied_bytes
    if not m.fixed.is_bounded:
        return m.fixed.storage_ps + held * m.fixed.copy_ps
    return _resize_ps(copied_bytes, m.fixed) if replaced_bytes(1, capacity, m.fixed) > 0 else 0
