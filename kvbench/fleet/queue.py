"""Admission, first come, first served; whoever was preempted stands before those who never were in."""

from kvbench.compiled import part, plain
from kvbench.engine.prefixes import most_hit_blocks
from kvbench.engine.scheduling import promised_slots
from kvbench.fleet.holds import held_bytes
from kvbench.fleet.live import enter, is_decoding, leave, note_end, stack
from kvbench.fleet.memory import note_peak, resized
from kvbench.fleet.prefix.cache import find, free_blocks, may_grow, num_idle, take_over
from kvbench.fleet.prefix.groups import find_in_groups, have_room, take_over_groups
from kvbench.fleet.prefix.loads import has_load_room, load
from kvbench.fleet.prefix.segments import turn_at
from kvbench.fleet.prefix.states import may_begin
from kvbench.fleet.state import (
    COMPUTING,
    FOUND,
    FULL_BATCH,
    IDLE_QUEUE,
    LOOKED,
    NO_MEMORY,
    NONE,
    OUT_OF_MEMORY,
    Machine,
)
from kvbench.fleet.tally import add_wait, begin, note_queue, pass_time
from kvbench.timing.prices import resize_ps

_most_hit_blocks, _promised_slots, _resize_ps = plain(most_hit_blocks), plain(promised_slots), plain(resize_ps)


@part
def is_waiting(m: Machine) -> bool:
    """Whether somebody has arrived and is not live."""
    return m.now.num_stacked + m.now.num_queued > 0


@part
def is_promised(m: Machine) -> bool:
    """Whether the pool has room for the head of the queue and all who are live, to their ends, where that is asked."""
    now, fixed = m.now, m.fixed
    if fixed.evicts or now.promised == 0:
        return True
    asked = m.requests[m.live[now.num_stacked - 1].stacked if now.num_stacked > 0 else now.next]
    num_tokens = asked.prompt + max(asked.output - 1, 0)
    return now.promised + _promised_slots(num_tokens, fixed.unit) <= fixed.limit_slots


@part
def is_admitted(m: Machine) -> bool:
    """Look for blocks of the head of the queue that are there, and whether the pool has room for its whole prompt.

    Where that is not asked, whether it has room for what is loaded from tiers below. If it is, and the pool has not,
    the next try is when somebody has let go of blocks or begins to fill others, or where that may be before the next
    iteration ends, in it.
    """
    now, fixed, lost = m.now, m.fixed, 0
    now.num_found = 0
    request = now.next
    if now.num_stacked > 0:
        request, lost = m.live[now.num_stacked - 1].stacked, m.live[now.num_stacked - 1].stacked_held
    num_tokens = max(m.requests[request].prompt, lost)
    if fixed.num_groups > 0:
        return _is_admitted_in_groups(m, request, num_tokens)
    if fixed.shares:
        now.num_found = find(m, request, _most_hit_blocks(num_tokens, fixed.unit))
    if now.num_live == 0:
        return True
    if not fixed.fits_prompts:
        if fixed.num_tiers > 0 and not has_load_room(m, request, now.num_found, num_tokens):
            now.has_given_way = 1
            return False
        return True
    num_blocks, free = -(-num_tokens // fixed.unit) - now.num_found, free_blocks(m)
    if num_blocks + now.num_found <= free:
        return True
    if fixed.shares and num_blocks + num_idle(m, request, now.num_found) <= free:
        return True
    now.has_given_way = 1
    if fixed.plans_steps and not fixed.waits_for_end:
        now.must_wait = int(not fixed.shares or not may_grow(m, request, now.num_found))
    return False


@part
def _is_admitted_in_groups(m: Machine, request: int, num_tokens: int) -> bool:
    """The same where groups have tables of their own: blocks come free with each step, as windows leave them."""
    now, fixed = m.now, m.fixed
    if fixed.shares:
        now.num_found = find_in_groups(m, request, _most_hit_blocks(num_tokens, fixed.unit))
    if now.num_live == 0:
        return True
    has_room = not fixed.fits_prompts or have_room(m, request, now.num_found, num_tokens)
    if has_room and (fixed.kept_bytes == 0 or may_begin(m, request, num_tokens)):
        return True
    now.has_given_way = 1
    return False


@part
def take_found(m: Machine, place: int) -> None:
    """Let who has become live hold the blocks that were found of it, and load what lies below; it computes neither."""
    now, own = m.now, m.live[place]
    if m.fixed.num_groups > 0:
        take_over_groups(m, place, now.num_found)
    else:
        take_over(m, place, now.num_found)
    own.held = own.capacity = own.taken = now.num_found * m.fixed.unit
    now.new_used += held_bytes(own, own.held, m.fixed)
    note_peak(m, 0)
    if own.saved == 0:
        turn_at(m.fixed.turns_at, own.request).hit_tokens = own.held
        now.num_hit_tokens += own.held
        now.num_queried_tokens += own.prompt
        m.sums[now.bin, LOOKED] += own.prompt
        m.sums[now.bin, FOUND] += own.held
    if m.fixed.num_tiers > 0:
        load(m, place)


@part
def admit(m: Machine) -> None:
    """Admit who has arrived, while the batch and the memory last, and note why the next one waits.

    Where nothing is reserved at admission, all who may be admitted would be, and who does not fit would be preempted
    before its first step. It comes to the same, and to less work, if they are admitted one by one when each has its
    turn in the iteration, until the first that does not fit.
    """
    now, fixed = m.now, m.fixed
    note_queue(m)
    begin(m)
    now.admission_ps = now.quota = 0
    now.promised -= now.taken_back
    now.taken_back = 0
    if fixed.is_lazy:
        if is_waiting(m) and not (now.must_wait and now.num_live > 0) and is_promised(m):
            now.quota = fixed.max_batch - now.num_live
        note_waiting(m)
        return
    while is_waiting(m) and now.num_live < fixed.max_batch and not (now.must_wait and now.num_live > 0):
        _admit_one(m)
    note_waiting(m)


@part
def note_waiting(m: Machine) -> None:
    """Note the first test that the head of the queue fails before the iteration, if somebody waits."""
    now = m.now
    now.why_waiting = IDLE_QUEUE
    if is_waiting(m):
        now.why_waiting = FULL_BATCH if now.num_live == m.fixed.max_batch else NO_MEMORY


@part
def note_left(m: Machine, was_open: bool) -> None:
    """Note why who was not admitted in the iteration, or had no step in it, waits.

    Args:
        m: the replica.
        was_open: whether the iteration began with room in the batch for who waited.
    """
    now = m.now
    if is_waiting(m):
        if now.has_given_way or not is_promised(m):
            now.why_waiting = NO_MEMORY
        elif was_open:
            now.why_waiting = FULL_BATCH if now.quota == 0 else COMPUTING
    elif now.youngest != NONE and not is_decoding(m, now.youngest) and not m.live[now.youngest].has_stepped:
        now.why_waiting = COMPUTING
    else:
        now.why_waiting = IDLE_QUEUE


@part
def take_first(m: Machine) -> tuple[int, int, int]:
    """Take the head of the queue out: the request, the tokens that it lost, and since when it waits."""
    now = m.now
    if now.num_stacked > 0:
        now.num_stacked -= 1
        top = m.live[now.num_stacked]
        return top.stacked, top.stacked_held, top.stacked_since_ns
    request = now.next
    now.num_queued -= 1
    own = m.requests[request]
    now.next = own.follows
    return request, 0, own.arrival_ns


@part
def _admit_one(m: Machine) -> None:
    now = m.now
    request, saved, since_ns = take_first(m)
    place = enter(m, request, saved)
    own = m.requests[request]
    capacity = m.admitted(own.prompt, m.live[place].final - own.prompt)
    if capacity == 0 or resized(m, place, capacity, 0) > 0:
        if capacity > 0:
            spent_ps = (1 + (m.fixed.num_pinned > 0)) * _resize_ps(0, m.fixed)
            now.admission_ps += spent_ps
            pass_time(m, spent_ps)
        add_wait(m, since_ns, now.head_ns)
        return
    leave(m, place, m.live[place].held)
    if now.num_live > 0:
        stack(m, request, saved, since_ns)
        return
    add_wait(m, since_ns, now.head_ns)
    own.outcome, own.held, own.finish_order = OUT_OF_MEMORY, saved, now.num_finished
    note_end(m, request)
    now.num_finished += 1
    now.must_wait = 0
