"""One iteration in which something happens: growth, the end of a request, a prompt. In order of admission."""

from kvbench.compiled import part, plain
from kvbench.engine.scheduling import prompts_tokens
from kvbench.fleet.aside import note_wait
from kvbench.fleet.holds import bend, held_bytes, held_units
from kvbench.fleet.last_blocks import is_last_due, take_last
from kvbench.fleet.live import (
    begin_decoding,
    complete,
    end,
    is_decoding,
    next_key,
    note_end,
    push,
    set_key,
    take_out,
)
from kvbench.fleet.memory import note_peak, note_waste
from kvbench.fleet.prefix.cache import cross
from kvbench.fleet.prefix.groups import leave_windows, name_in_groups
from kvbench.fleet.prompts import compute, compute_admitted, compute_prompts
from kvbench.fleet.queue import note_left
from kvbench.fleet.room import make_room
from kvbench.fleet.state import BLOCKS, COMPLETED, NONE, OVER, TAKEN, TO_COME, TOO_LONG, FixedRow, Machine
from kvbench.fleet.tally import Level, add_one, pass_time
from kvbench.fleet.turns import has_slide_room, scored_ps, slid, turn
from kvbench.timing.prices import LINEAR, SEQUENCES, UNBOUNDED, decode_ps, mixed_ps, of_batch, sized_ps

FEW = 8
_decode_ps, _mixed_ps, _sized_ps = plain(decode_ps), plain(mixed_ps), plain(sized_ps)
_of_batch, _prompts_tokens = plain(of_batch), plain(prompts_tokens)


@part
def iterate(m: Machine) -> None:
    """One step of every live request."""
    now, fixed = m.now, m.fixed
    now.num_finished_before = now.num_finished
    now.spent_ps = now.tokens = now.num_computed = now.num_ended = now.num_begun = now.has_given_way = 0
    now.most_tokens = now.prompts_ps = now.longest_ps = 0
    now.used_by_ended = now.allocated_by_ended = now.wasted_by_ended = now.rounded_by_ended = 0
    now.stepped = now.num_begun_with = now.units_seen = now.num_ending = now.num_named = 0
    now.wait_ps = now.mixed_wait_ps = now.has_read = 0
    now.decode = TO_COME
    num_new, is_open = 0, now.quota > 0
    has_prompts = now.first_new != NONE or now.quota > 0
    decodes = fixed.mixes > 0 or not has_prompts
    if decodes and _is_mixed(m):
        num_new = _all_in_order(m)
        has_prompts = False
    elif decodes:
        _decode_all(m)
    if has_prompts:
        now.budget_tokens = _prompts_tokens(fixed.tokens, now.stepped, fixed.counts_decode)
        now.first_tokens = fixed.tokens if decodes and _takes_turns(fixed) else now.budget_tokens
        num_new = compute_prompts(m)
        if not decodes and num_new == 0:
            decodes = True
            _decode_all(m)
    for i in range(now.num_ending):
        end(m, m.live[i].ending, m.live[m.live[i].ending].held)
    if decodes:
        now.used_at_end = now.used + now.new_used - now.shared_bytes
        now.counter += 1
        now.ahead = 0
        now.units += now.more_units
        now.used += now.more_bytes
    else:
        now.used_at_end = _waiting_bytes(m) + now.new_used - now.shared_bytes
    for i in range(now.num_begun):
        begin_decoding(m, m.live[i].begun)
    note_left(m, is_open)
    _finish(m, num_new)


@part
def _is_mixed(m: Machine) -> bool:
    """Whether those who decode have their turns among prompts: some prompts are cut by what a strategy holds, or one
    that came back takes two steps, where they have no bound, and who was admitted after it decodes before; or prompts
    wait for steps that reach a state's place, and those after them decode.
    """
    now, fixed = m.now, m.fixed
    if now.first_new == NONE or (fixed.counts_decode > 0 and fixed.kept_bytes == 0):
        return False
    if fixed.kept_bytes > 0:
        return True
    if fixed.cuts > 0 or fixed.tokens < UNBOUNDED:
        return fixed.cuts > 0
    place = m.live[now.first_new].younger
    while place != NONE and not is_decoding(m, place):
        place = m.live[place].younger
    return place != NONE


@part
def _takes_turns(fixed: FixedRow) -> bool:
    """Whether an iteration's tokens go to who is live in order, who decodes among them."""
    return fixed.kept_bytes > 0 and fixed.counts_decode > 0


@part
def _finish(m: Machine, num_new: int) -> None:
    """Let the iteration's time pass, and note whose tokens are out, and who has ended."""
    now, num_stages = m.now, m.fixed.num_stages
    spent_ps = now.spent_ps + _of_batch(now.prompts_ps, now.longest_ps, num_stages)
    spent_ps += _sized_ps(LINEAR, _of_batch(now.stepped + now.tokens, now.most_tokens, num_stages), m.tables)
    spent_ps += _sized_ps(SEQUENCES, now.stepped + now.num_computed, m.tables)
    if now.stepped > 0:
        if now.num_computed > 0:
            spent_ps += _mixed_ps(now.num_begun_with, now.units_seen, m.tables, m.fixed.unit_parts)
        else:
            spent_ps += _decode_ps(now.num_begun_with, now.units_seen, m.tables, m.fixed.unit_parts)
        spent_ps += now.stepped * (m.fixed.write_ps + m.fixed.state_ps)
        spent_ps += scored_ps(now.units_seen, m.fixed)
        spent_ps += now.mixed_wait_ps if now.num_computed > 0 else now.wait_ps
    if now.stepped + num_new > 0:
        spent_ps += m.fixed.step_ps
    spent_ps = max(spent_ps, now.ready_ps)
    now.ready_ps = 0
    pass_time(m, spent_ps)
    now.num_iterations += 1
    now.num_decoded_tokens += now.stepped
    _tally(m, spent_ps + now.admission_ps, now.stepped + num_new)
    now.admission_ps = 0
    for i in range(now.num_begun):
        own = m.requests[m.live[m.live[i].begun].request]
        if own.first_token_ns == NONE:
            own.first_token_ns = now.clock_ns
    for i in range(now.num_ended):
        own = m.requests[m.live[i].ended]
        note_end(m, m.live[i].ended)
        if own.outcome == COMPLETED and own.output > 0 and own.first_token_ns == NONE:
            own.first_token_ns = now.clock_ns


@part
def _tally(m: Machine, lasted_ps: int, batch: int) -> None:
    """Add what was held through the iteration, also by those that ended in it.

    Where others have taken their slots within it, it is no more than was ever held at once.
    """
    now, fixed = m.now, m.fixed
    used, allocated, wasted, rounded = now.used_at_end, now.allocated, now.wasted, now.rounded
    if now.num_ended > 0:
        most = min(fixed.limit_bytes, now.peak_bytes - fixed.fixed_bytes)
        allocated = min(allocated + now.allocated_by_ended, most)
        used = min(used + now.used_by_ended, allocated)
        wasted = min(wasted + now.wasted_by_ended, allocated - used)
        rounded = min(rounded + now.rounded_by_ended, wasted)
    add_one(m, lasted_ps, Level(used, allocated, wasted, rounded, batch))


@part
def _waiting_bytes(m: Machine) -> int:
    """Bytes that those use who decode, and take no step in the iteration."""
    used, place = 0, m.now.oldest
    while place != NONE:
        if is_decoding(m, place):
            used += held_bytes(m.live[place], m.live[place].origin + m.now.counter, m.fixed)
        place = m.live[place].younger
    return used


@part
def _decode_all(m: Machine) -> None:
    """A step of all who decode."""
    _begin_decode(m)
    if m.now.num_decoding > 0:
        _decode(m)
    _end_decode(m)


@part
def _begin_decode(m: Machine) -> None:
    now = m.now
    now.stepped = now.num_begun_with = now.num_decoding
    now.units_seen = now.units
    now.decode = TAKEN


@part
def _end_decode(m: Machine) -> None:
    while is_last_due(m, m.now.counter + 1):
        take_last(m)
    m.now.decode = OVER
    m.now.ahead = 1


@part
def _all_in_order(m: Machine) -> int:
    """A step of everyone who is live, in order of admission; how many took one of a prompt."""
    now, takes_turns = m.now, _takes_turns(m.fixed)
    _begin_decode(m)
    now.budget_tokens = now.first_tokens = m.fixed.tokens
    num_new, is_open, place = 0, True, now.oldest
    while place != NONE:
        own = m.live[place]
        if not is_decoding(m, place):
            if is_open and now.budget_tokens > 0:
                took, is_open = compute(m, place)
                num_new += took
        elif takes_turns and now.budget_tokens == 0:
            _pass_over(m, place, now.counter + 1)
        elif m.fixed.layout == BLOCKS and m.fixed.num_groups == 0:
            _block_one(m, place, now.counter + 1)
        else:
            _turn_one(m, place, now.counter + 1)
            now.budget_tokens -= takes_turns
        place = own.younger
    _end_decode(m)
    return num_new + compute_admitted(m) if is_open else num_new


@part
def _decode(m: Machine) -> None:
    """A token more for every request that decodes."""
    now, fixed = m.now, m.fixed
    step = now.counter + 1
    if fixed.layout == BLOCKS and fixed.num_groups == 0:
        added = m.live[now.counter % fixed.unit].growing * fixed.unit * fixed.slot_bytes
        grown_bytes = now.allocated + added
        num_free = (fixed.limit_bytes - grown_bytes) // max(fixed.unit * fixed.slot_bytes, 1)
        is_roomy = fixed.fixed_bytes + grown_bytes <= now.peak_bytes and now.num_unused <= num_free
        is_calm = next_key(m) > step or is_roomy
        if grown_bytes > fixed.limit_bytes or not is_calm:
            _decode_in_order(m, step)
            return
        now.allocated += added
        note_peak(m, 0)
    if fixed.way_ps > 0 or (now.num_sliding > 0 and (next_key(m) == step or not has_slide_room(m))):
        _turn_in_order(m, step)
        return
    if now.num_sliding > 0:
        slid(m, 1)
        now.spent_ps += now.num_sliding * fixed.slide_ps
    num_due = _collect(m, step)
    for i in range(num_due):
        place = m.live[i].due
        if m.live[place].request != NONE:
            _happen(m, place, step)


@part
def _collect(m: Machine, step: int) -> int:
    """Take those to whom something happens at a step out of the heap, in order of admission; how many."""
    now, live = m.now, m.live
    num_due = 0
    while now.num_due > 0 and next_key(m) == step:
        place = live[0].heap
        take_out(m, place)
        i = num_due
        if num_due < FEW:
            while i > 0 and live[live[i - 1].due].arrived > live[place].arrived:
                live[i].due = live[i - 1].due
                i -= 1
        live[i].due = place
        num_due += 1
    if num_due > FEW:
        num_due, place = 0, now.oldest
        while place != NONE:
            if live[place].key == step:
                live[num_due].due = place
                num_due += 1
            place = live[place].younger
    return num_due


@part
def _decode_in_order(m: Machine, step: int) -> None:
    """As `_decode`, where the order decides who gets a block, or how much is held at most."""
    place = m.now.oldest
    while place != NONE:
        own = m.live[place]
        if is_decoding(m, place):
            _block_one(m, place, step)
        place = own.younger


@part
def _block_one(m: Machine, place: int, step: int) -> None:
    """A decode step of one request, with a block where it needs one."""
    own = m.live[place]
    held = own.origin + m.now.counter
    has_room = True
    if held % m.fixed.unit == 0 and held < m.fixed.max_tokens:
        own.capacity = own.taken = held
        has_room = make_room(m, place, held, held + 1)
    if has_room and own.key == step:
        take_out(m, place)
        _happen(m, place, step)


@part
def _turn_in_order(m: Machine, step: int) -> None:
    """As `_decode`, where some let go of a slot a step: order decides what is held at most, and who has room to; and
    where some wait for links, who is the first to read."""
    place = m.now.oldest
    while place != NONE:
        own = m.live[place]
        if is_decoding(m, place):
            _turn_one(m, place, step)
        place = own.younger


@part
def _turn_one(m: Machine, place: int, step: int) -> None:
    """A decode step of one request."""
    now, own, fixed = m.now, m.live[place], m.fixed
    if own.key == step or (own.slides and not has_slide_room(m)):
        take_out(m, place)
        _happen(m, place, step)
    elif fixed.way_ps > 0:
        note_wait(m, place, own.origin + step)
    elif own.slides:
        now.copied_bytes += fixed.slot_bytes
        now.spent_ps += fixed.slide_ps
        note_peak(m, fixed.slide_bytes)


@part
def _pass_over(m: Machine, place: int, step: int) -> None:
    """No decode step of one request, for which the iteration has no token left."""
    now, own, live = m.now, m.live[place], m.live
    held = own.origin + now.counter
    take_out(m, place)
    now.stepped -= 1
    now.units_seen -= held_units(own, held + 1, m.fixed)
    bend(m, place, held)
    now.units -= own.more_units
    now.used -= own.more_bytes
    live[-own.origin % m.fixed.unit].growing -= 1
    own.origin -= 1
    live[-own.origin % m.fixed.unit].growing += 1
    own.key = step + 1
    push(m, place)


@part
def _has_blocks(m: Machine, place: int, required: int) -> bool:
    """Whether there is room for a decode step where groups have tables: blocks given back, taken and named for it."""
    own, unit = m.live[place], m.fixed.unit
    leave_windows(m, place, required - 1)
    if (required - 1) % unit == 0:
        own.capacity = own.taken = required - 1
        if not make_room(m, place, required - 1, required):
            return False
    if m.fixed.shares and required % unit == 0:
        name_in_groups(m, place, required - 1, required)
    return True


@part
def _happen(m: Machine, place: int, step: int) -> None:
    """Let happen what a request's key stood for, and find the next."""
    now, own, fixed = m.now, m.live[place], m.fixed
    required = own.origin + step
    num_bytes = num_units = 0
    if fixed.is_turning:
        num_bytes, num_units = held_bytes(own, required, fixed), held_units(own, required, fixed)
    if required > fixed.max_tokens:
        now.stepped -= 1
        now.units_seen -= held_units(own, required, fixed)
        m.requests[own.request].outcome = TOO_LONG
        end(m, place, required - 1)
        return
    if fixed.num_groups > 0 and not _has_blocks(m, place, required):
        return
    if fixed.layout == BLOCKS:
        own.capacity = own.taken = -(-required // fixed.unit) * fixed.unit
        note_waste(m, place)
    elif (fixed.is_turning or required > own.capacity) and not make_room(m, place, required - 1, required):
        return
    if fixed.is_turning:
        turn(m, place, required, num_bytes, num_units)
    if required == own.final:
        complete(m, place, required)
        return
    if fixed.shares:
        cross(m, place, required)
    if fixed.is_bounded:
        bend(m, place, required)
    set_key(m, place, required)
    push(m, place)
