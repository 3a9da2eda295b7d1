"""The area before main, where slots go that leave it: chunks on the device, or over a link, with files behind.

The oldest leave it in turn where it holds too many: for good, or for the files. Attention reads what lies over a link
while it reads what is on the device, and a step of a sequence takes as long as the slower of both.
"""

from kvbench.compiled import part, plain
from kvbench.fleet.holds import held_units
from kvbench.fleet.memory import aside_bytes
from kvbench.fleet.rows import LiveRow
from kvbench.fleet.state import COPIES_EVICTED, COPIES_NOTHING, NONE, FixedRow, Machine
from kvbench.strategy.base import moved_at_once, passed_on
from kvbench.timing.prices import (
    DECODE_FIXED,
    DECODE_UNIT,
    MIXED_FIXED,
    MIXED_UNIT,
    moved_ps,
    read_ps,
    resize_ps,
    sized_ps,
    unit_ps,
    way_ps,
)

_moved_ps, _read_ps, _resize_ps, _way_ps = plain(moved_ps), plain(read_ps), plain(resize_ps), plain(way_ps)
_sized_ps, _unit_ps = plain(sized_ps), plain(unit_ps)
_moved_at_once, _passed_on = plain(moved_at_once), plain(passed_on)


@part
def copied_slots(num_leaving: int, stay: int, fixed: FixedRow) -> int:
    """Slots of the area main that are copied within it as some leave and others stay."""
    if num_leaving == 0 or fixed.copies == COPIES_NOTHING:
        return 0
    return min(num_leaving, stay) if fixed.copies == COPIES_EVICTED else stay


@part
def _coming(num_leaving: int, fixed: FixedRow) -> int:
    """Of slots that leave main, those that come to the area before it: where none is behind, no more than it holds."""
    return num_leaving if fixed.far_ps > 0 else min(num_leaving, fixed.most_aside)


@part
def _moved(num_left: int, num_aside: int, fixed: FixedRow) -> tuple[int, int]:
    """Of slots that come, those that come at once; and those that leave for them."""
    num_moved = _moved_at_once(num_left, num_aside, fixed.most_aside, fixed.aside_unit)
    return num_moved, _passed_on(num_aside, num_moved, fixed.most_aside, fixed.aside_unit)


@part
def added_bytes(own: LiveRow, num_leaving: int, fixed: FixedRow) -> int:
    """Bytes on the device that the area before main grows by when so many slots leave main."""
    if fixed.aside_bytes == 0 or num_leaving == 0:
        return 0
    num_moved, num_passed = _moved(_coming(num_leaving, fixed), own.aside, fixed)
    gone = (own.gone + num_passed) % fixed.aside_chunk if num_passed < own.aside else 0
    return aside_bytes(gone + own.aside + num_moved - num_passed, fixed) - aside_bytes(own.gone + own.aside, fixed)


@part
def passing_bytes(own: LiveRow, used: int, num_leaving: int, fixed: FixedRow) -> int:
    """Bytes held beside while so many of the slots in use leave: those that are gathered, and one tensor's copied."""
    tensor_bytes = fixed.holds[0].tensor_bytes
    if fixed.aside_chunk == 0 or fixed.copies == COPIES_NOTHING:
        return copied_slots(num_leaving, used - num_leaving, fixed) * tensor_bytes
    most, left, num_aside = 0, _coming(num_leaving, fixed), own.aside
    while left > 0:
        num_moved, num_passed = _moved(left, num_aside, fixed)
        left, used = left - num_moved, used - num_moved
        num_aside += num_moved - num_passed
        most = max(most, copied_slots(num_moved, used, fixed) * tensor_bytes)
        if fixed.copies == COPIES_EVICTED:
            most = max(most, num_moved * fixed.slot_bytes)
    return most


@part
def put_aside(m: Machine, place: int, used: int, num_leaving: int) -> None:
    """Let so many of the slots in use leave, with what it takes."""
    now, own, fixed = m.now, m.live[place], m.fixed
    if fixed.aside_chunk == 0:
        if fixed.by_norm and num_leaving > 0:
            now.spent_ps += _read_ps(used * fixed.slot_bytes, fixed)
        _copy(m, copied_slots(num_leaving, used - num_leaving, fixed), fixed.launch_ps)
        return
    chunk, left = fixed.aside_chunk, _coming(num_leaving, fixed)
    used -= num_leaving - left
    while left > 0:
        num_moved, num_passed = _moved(left, own.aside, fixed)
        num_chunks = -(-(own.gone + own.aside) // chunk) - (own.gone + num_passed) // chunk
        own.gone = (own.gone + num_passed) % chunk if num_passed < own.aside else 0
        own.aside += num_moved - num_passed
        num_chunks = max(-(-(own.gone + own.aside) // chunk) - num_chunks, 0)
        device_bytes = num_moved * fixed.slot_bytes
        if fixed.far_ps > 0 and num_passed > 0:
            own.far += num_passed
            num_chunks += num_passed // chunk
            now.spent_ps += fixed.launch_ps + _over(num_passed, fixed.way_ps, fixed)
            now.spent_ps += _over(num_passed, fixed.far_ps, fixed)
        if fixed.way_ps > 0:
            now.spent_ps += _over(num_moved, fixed.way_ps, fixed)
        else:
            device_bytes += num_moved * fixed.moved_bytes // fixed.aside_group
        now.spent_ps += num_chunks * _resize_ps(0, fixed) + fixed.launch_ps + _read_ps(device_bytes, fixed)
        left, used = left - num_moved, used - num_moved
        _copy(m, copied_slots(num_moved, used, fixed), 0)


@part
def _copy(m: Machine, num_slots: int, once_ps: int) -> None:
    """Copy slots of the area main, if any."""
    if num_slots > 0:
        num_bytes = num_slots * m.fixed.slot_bytes
        m.now.copied_bytes += num_bytes
        m.now.spent_ps += once_ps + _moved_ps(num_bytes, m.fixed.copy_ps, m.fixed)


@part
def _over(num_slots: int, each_ps: int, fixed: FixedRow) -> int:
    """What slots take over a link."""
    return _way_ps(num_slots * fixed.moved_bytes // fixed.aside_group, each_ps, fixed)


@part
def link_ps(own: LiveRow, fixed: FixedRow) -> int:
    """What a step of a sequence takes to read what it has over links."""
    spent_ps = 0
    if fixed.way_ps > 0:
        if own.aside > 0:
            spent_ps += _over(own.aside, fixed.way_ps, fixed)
        if own.far > 0:
            spent_ps += _over(own.far, fixed.far_ps, fixed)
    return spent_ps


@part
def read_alone_ps(own: LiveRow, num_units: int, fixed: FixedRow) -> int:
    """What a decode step of a sequence takes on the device by itself, but for the units that it sees."""
    return fixed.state_ps + (num_units // fixed.slot_units * fixed.score_ps if fixed.score_ps > 0 else 0)


@part
def note_wait(m: Machine, place: int, held: int) -> None:
    """Note for how long a decode step waits for a link, if its iteration computes prompts, too, and if not."""
    now, own, fixed = m.now, m.live[place], m.fixed
    is_first = now.has_read == 0
    now.has_read = 1
    over_ps = link_ps(own, fixed)
    if over_ps > 0:
        num_units, num = held_units(own, held, fixed), now.num_begun_with
        over_ps -= read_alone_ps(own, num_units, fixed)
        for_ps = num_units * _unit_ps(DECODE_UNIT, num, m.tables, fixed.unit_parts)
        mixed_ps = num_units * _unit_ps(MIXED_UNIT, num, m.tables, fixed.unit_parts)
        if is_first:
            for_ps += _sized_ps(DECODE_FIXED, num, m.tables)
            mixed_ps += _sized_ps(MIXED_FIXED, num, m.tables)
        now.wait_ps += max(over_ps - for_ps, 0)
        now.mixed_wait_ps += max(over_ps - mixed_ps, 0)


@part
def waiting_steps(m: Machine, most: int) -> int:
    """Of so many steps to come of all who decode, those in which the same ones wait for a link, each by as much less
    than in the step before; what they wait is noted."""
    now, fixed = m.now, m.fixed
    num = now.num_decoding
    unit_ps = _unit_ps(DECODE_UNIT, num, m.tables, fixed.unit_parts)
    shared_ps = _sized_ps(DECODE_FIXED, num, m.tables)
    place = now.oldest
    while place != NONE:
        own = m.live[place]
        over_ps = link_ps(own, fixed)
        if over_ps > 0:
            num_units = held_units(own, own.origin + now.counter + 1, fixed)
            lack_ps = over_ps - shared_ps - num_units * unit_ps - read_alone_ps(own, num_units, fixed)
            if lack_ps > 0:
                more_ps = own.more_units * unit_ps + read_alone_ps(own, own.more_units, fixed) - fixed.state_ps
                now.beside_ps += lack_ps
                now.more_beside_ps -= more_ps
                if more_ps > 0:
                    most = min(most, lack_ps // more_ps + 1)
        shared_ps = 0
        place = own.younger
    return most
