"""One iteration in which something happens: growth, the end of a request, a prompt. In order of admission."""

from kvbench.compiled import part, plain
from kvbench.engine.scheduling import prompts_tokens, taken_tokens
from kvbench.fleet.holds import bend, held_bytes, held_units, passing_bytes
from kvbench.fleet.live import (
    begin_decoding,
    end,
    enter,
    is_decoding,
    next_key,
    note_end,
    preempt,
    push,
    set_key,
    take_out,
)
from kvbench.fleet.memory import growth_ps, note_peak, note_waste, resized
from kvbench.fleet.paying import pay
from kvbench.fleet.queue import is_promised, is_waiting, note_left, take_first
from kvbench.fleet.state import BLOCKS, COMPLETED, NONE, OUT_OF_MEMORY, SWAP, TOO_LONG, Machine
from kvbench.fleet.tally import Level, add_one, add_wait, pass_time
from kvbench.fleet.turns import has_slide_room, make_way, reduce, scored_ps, slid, turn
from kvbench.timing.prices import LINEAR, SEQUENCES, decode_ps, mixed_ps, of_batch, sized_ps

FEW = 8
_decode_ps, _mixed_ps = plain(decode_ps), plain(mixed_ps)
_sized_ps, _of_batch = plain(sized_ps), plain(of_batch)
_prompts_tokens, _taken_tokens = plain(prompts_tokens), plain(taken_tokens)


@part
def iterate(m: Machine) -> None:
    """One step of every live request."""
    now, fixed = m.now, m.fixed
    now.num_finished_before = now.num_finished
    now.spent_ps = now.tokens = now.num_computed = now.num_ended = now.num_begun = now.has_given_way = 0
    now.most_tokens = now.prompts_ps = now.longest_ps = 0
    now.used_by_ended = now.allocated_by_ended = now.wasted_by_ended = now.rounded_by_ended = 0
    now.stepped = now.num_begun_with = now.units_seen = 0
    num_new, is_open = 0, now.quota > 0
    has_prompts = now.first_new != NONE or now.quota > 0
    decodes = fixed.mixes > 0 or not has_prompts
    if decodes:
        _decode_all(m)
    if has_prompts:
        now.budget_tokens = _prompts_tokens(fixed.tokens, now.stepped, fixed.counts_decode)
        now.first_tokens = now.budget_tokens
        num_new = _compute_prompts(m)
        if not decodes and num_new == 0:
            decodes = True
            _decode_all(m)
    if decodes:
        now.used_at_end = now.used + now.new_used
        now.counter += 1
        now.units += now.more_units
        now.used += now.more_bytes
    else:
        now.used_at_end = _waiting_bytes(m) + now.new_used
    for i in range(now.num_begun):
        begin_decoding(m, m.live[i].begun)
    note_left(m, is_open)
    _finish(m, num_new)


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
    if now.stepped + num_new > 0:
        spent_ps += m.fixed.step_ps
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
    while place != NONE and is_decoding(m, place):
        used += held_bytes(m.live[place], m.live[place].origin + m.now.counter, m.fixed)
        place = m.live[place].younger
    return used


@part
def _decode_all(m: Machine) -> None:
    """A step of all who decode."""
    m.now.stepped = m.now.num_begun_with = m.now.num_decoding
    m.now.units_seen = m.now.units
    if m.now.num_decoding > 0:
        _decode(m)


@part
def _decode(m: Machine) -> None:
    """A token more for every request that decodes."""
    now, fixed = m.now, m.fixed
    step = now.counter + 1
    if fixed.layout == BLOCKS:
        added = m.live[now.counter % fixed.unit].growing * fixed.unit * fixed.slot_bytes
        grown_bytes = now.allocated + added
        is_calm = next_key(m) > step or fixed.fixed_bytes + grown_bytes <= now.peak_bytes
        if grown_bytes > fixed.limit_bytes or not is_calm:
            _decode_in_order(m, step)
            return
        now.allocated += added
        note_peak(m, 0)
    if now.num_sliding > 0:
        if next_key(m) == step or not has_slide_room(m):
            _turn_in_order(m, step)
            return
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
        while place != now.first_new:
            if live[place].key == step:
                live[num_due].due = place
                num_due += 1
            place = live[place].younger
    return num_due


@part
def _decode_in_order(m: Machine, step: int) -> None:
    """As `_decode`, where the order decides who gets a block, or how much is held at most."""
    now, unit = m.now, m.fixed.unit
    place = now.oldest
    while place != NONE and is_decoding(m, place):
        own = m.live[place]
        held = own.origin + now.counter
        has_room = True
        if held % unit == 0 and held < m.fixed.max_tokens:
            own.capacity = own.taken = held
            has_room = _make_room(m, place, held, held + 1)
        if has_room and own.key == step:
            take_out(m, place)
            _happen(m, place, step)
        place = own.younger


@part
def _turn_in_order(m: Machine, step: int) -> None:
    """As `_decode`, where some let go of a slot a step: order decides what is held at most, and who has room to."""
    now, fixed = m.now, m.fixed
    place = now.oldest
    while place != NONE and is_decoding(m, place):
        own = m.live[place]
        if own.key == step or (own.slides and not has_slide_room(m)):
            take_out(m, place)
            _happen(m, place, step)
        elif own.slides:
            now.copied_bytes += fixed.slot_bytes
            now.spent_ps += fixed.slide_ps
            note_peak(m, fixed.slide_bytes)
        place = own.younger


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
    if fixed.layout == BLOCKS:
        own.capacity = own.taken = -(-required // fixed.unit) * fixed.unit
        note_waste(m, place)
    elif (fixed.is_turning or required > own.capacity) and not _make_room(m, place, required - 1, required):
        return
    if fixed.is_turning:
        turn(m, place, required, num_bytes, num_units)
    if required == own.final:
        m.requests[own.request].outcome = COMPLETED
        end(m, place, required)
        return
    if fixed.is_bounded:
        bend(m, place, required)
    set_key(m, place, required)
    push(m, place)


@part
def _make_room(m: Machine, place: int, held: int, required: int) -> bool:
    """Grow, by the strategy's rule, for so many tokens; where memory does not last, the youngest gives way.

    Returns:
        Whether there is room; without, the request is no longer live.
    """
    now, own = m.now, m.live[place]
    beside_bytes = passing_bytes(held, required - held, m.fixed)
    while True:
        capacity = own.capacity
        is_growth = required > capacity
        if m.fixed.is_turning:
            done = make_way(m, place, held, required - held)
        else:
            done = resized(m, place, m.grown(capacity, required) if is_growth else capacity, beside_bytes)
        if done > 0:
            if done == 1 and is_growth:
                now.spent_ps += growth_ps(m, place, capacity, held)
            return True
        youngest = now.youngest
        if youngest != place:
            victim = m.live[youngest]
            preempt(m, youngest, victim.origin + now.counter if is_decoding(m, youngest) else victim.held)
        elif now.num_live > 1:
            preempt(m, place, held)
            return False
        else:
            if is_decoding(m, place):
                now.stepped -= 1
                now.units_seen -= held_units(own, held + 1, m.fixed)
            now.has_given_way = 1
            asked = m.requests[own.request]
            asked.outcome = OUT_OF_MEMORY
            end(m, place, held)
            asked.held = max(held, own.saved)  # what it was to compute again counts as held
            return False


@part
def _compute_prompts(m: Machine) -> int:
    """A step of everyone whose prompt is not computed, while the iteration's budget lasts; how many took one."""
    now = m.now
    num_new, place = 0, now.first_new
    while place != NONE:
        own = m.live[place]
        took, is_done = _compute(m, place)
        num_new += took
        if not is_done:
            return num_new
        place = own.younger
    while now.quota > 0 and not now.has_given_way and now.budget_tokens > 0 and is_waiting(m) and is_promised(m):
        now.quota -= 1
        request, saved, since_ns = take_first(m)
        place = enter(m, request, saved)
        num_waiting = now.num_stacked
        took, is_done = _compute(m, place)
        num_new += took
        if now.num_stacked > num_waiting and not took:
            m.live[num_waiting].stacked_since_ns = since_ns  # it has waited all the time
        else:
            add_wait(m, since_ns, now.head_ns)
        if not is_done:
            break
    return num_new


@part
def _compute(m: Machine, place: int) -> tuple[bool, bool]:
    """Fetch what was swapped, and compute tokens of a prompt, or of what was lost.

    Returns:
        Whether anything was done, and whether the next request has its turn.
    """
    now, own, fixed = m.now, m.live[place], m.fixed
    goal = max(own.saved, own.prompt)
    took = False
    while own.held < goal:
        held = own.held
        is_fetch = fixed.preemption == SWAP and held < own.saved
        num_tokens = (own.saved if held < own.saved else goal) - held
        if not is_fetch:
            is_first = now.budget_tokens == now.first_tokens
            num_tokens = _taken_tokens(num_tokens, now.budget_tokens, is_first, fixed.tokens, fixed.chunks)
        if num_tokens == 0:
            now.budget_tokens = 0
            return took, False
        if held + num_tokens > fixed.max_tokens:
            m.requests[own.request].outcome = TOO_LONG
            end(m, place, held)
            return took, True
        is_tight = held + num_tokens > own.capacity or passing_bytes(held, num_tokens, fixed) > 0
        num_bytes = held_bytes(own, held, fixed)
        if (is_tight or fixed.is_turning) and not _make_room(m, place, held, held + num_tokens):
            return took, True
        took = True
        own.held += num_tokens
        pay(m, place, held, num_tokens, is_fetch)
        if fixed.is_turning:
            if num_tokens > 1:
                own.several = own.held
            reduce(m, place, own.held)
        now.new_used += held_bytes(own, own.held, fixed) - num_bytes
    if own.held == own.final:
        m.requests[own.request].outcome = COMPLETED
        end(m, place, own.held)
    else:
        m.live[now.num_begun].begun = place
        now.num_begun += 1
    return took, True
