"""Who is live, in order of admission: entering, beginning to decode, leaving, and the queue before that.

Those who decode are in a heap by the step at which something next happens to each; any of them can be taken out.
"""

from kvbench.compiled import part, plain
from kvbench.engine.scheduling import lost_tokens, promised_slots
from kvbench.fleet.holds import bend, held_bytes, held_units, next_bend
from kvbench.fleet.last_blocks import await_last, forget_last
from kvbench.fleet.memory import freed
from kvbench.fleet.prefix.cache import go_on, next_run
from kvbench.fleet.state import BLOCKS, COMPLETED, NONE, SWAP, TAKEN, Machine
from kvbench.fleet.turns import next_turn, note_slide
from kvbench.fleet.windows import next_block
from kvbench.timing.prices import UNBOUNDED, moved_ps

_lost_tokens, _moved_ps, _promised_slots = plain(lost_tokens), plain(moved_ps), plain(promised_slots)


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


@part
def enter(m: Machine, request: int, saved: int) -> int:
    """Make a request live, as the youngest, with nothing held; its place in the table."""
    now, asked = m.now, m.requests[request]
    now.num_live += 1
    place = m.live[m.fixed.max_batch - now.num_live].vacant
    own = m.live[place]
    own.request, own.prompt = request, asked.prompt
    own.final = asked.prompt + max(asked.output - 1, 0)  # the prompt's step gives the first output token
    own.held = own.capacity = own.taken = own.waste = own.has_stepped = own.more_units = own.more_bytes = 0
    own.away = own.aside = own.far = own.gone = own.several = own.is_pending = own.slides = 0
    own.before = own.junction = 0
    own.most, own.pass_at = UNBOUNDED, m.fixed.interval
    own.saved = saved
    own.key = own.last = own.position = own.origin = NONE
    own.arrived = now.num_admitted
    now.num_admitted += 1
    now.promised += _promised_slots(own.final, m.fixed.unit)
    own.older, own.younger = now.youngest, NONE
    if now.youngest == NONE:
        now.oldest = place
    else:
        m.live[now.youngest].younger = place
    now.youngest = place
    if now.first_new == NONE:
        now.first_new = place
    return place


@part
def is_decoding(m: Machine, place: int) -> bool:
    """Whether a live request adds a token a step."""
    return m.live[place].key != NONE


@part
def next_new(m: Machine, place: int) -> int:
    """The first request, from a place on, that does not decode."""
    while place != NONE and is_decoding(m, place):
        place = m.live[place].younger
    return place


@part
def set_key(m: Machine, place: int, held: int) -> None:
    """Find the step at which something happens next to a request that decodes, and holds so many tokens."""
    own, fixed = m.live[place], m.fixed
    event = min(own.final, fixed.max_tokens + 1)
    own.last = NONE
    if fixed.is_turning:
        event = min(event, next_turn(m, place, held))
    elif fixed.layout != BLOCKS:
        event = min(event, own.capacity + 1)
    elif fixed.is_split:
        last = (own.final - 1) // fixed.unit * fixed.unit + 1
        if held < last < event:
            event = last
            own.last = NONE if fixed.is_bounded else last - own.origin
    if fixed.is_bounded:
        event = min(event, next_bend(held, fixed))
    if fixed.num_groups > 0:
        event = min(event, next_block(own, held, fixed))
    elif fixed.shares:
        event = min(event, next_run(m, place, held))
    own.key = event - own.origin


@part
def look_past_last(m: Machine) -> None:
    """Where the next thing that happens is that a last block comes, keep that, and look for what happens behind it."""
    while m.now.num_due > 0:
        place = m.live[0].heap
        own = m.live[place]
        if own.key != own.last:
            return
        await_last(m, place)
        own.key = min(own.final, m.fixed.max_tokens + 1) - own.origin
        _sink(m, 0, place, m.now.num_due)


@part
def begin_decoding(m: Machine, place: int) -> None:
    """From the next step on, a request adds a token a step."""
    now, own = m.now, m.live[place]
    now.new_used -= held_bytes(own, own.held, m.fixed)
    own.origin = own.held - now.counter
    now.units += held_units(own, own.held + 1, m.fixed)
    now.used += held_bytes(own, own.held + 1, m.fixed)
    bend(m, place, own.held + 1)
    if m.fixed.is_turning:
        note_slide(m, place, own.held)
    now.num_decoding += 1
    if now.first_new == place:
        now.first_new = next_new(m, own.younger)
    own.saved = 0
    if m.fixed.layout == BLOCKS:
        m.live[-own.origin % m.fixed.unit].growing += 1
        if m.fixed.shares and m.fixed.num_groups == 0:
            go_on(m, place, own.held)
    set_key(m, place, own.held)
    push(m, place)


@part
def leave(m: Machine, place: int, held: int) -> None:
    """Let a live request go, with its memory."""
    now, own = m.now, m.live[place]
    now.taken_back += _promised_slots(own.final, m.fixed.unit)
    freed(m, place, held)
    if is_decoding(m, place):
        take_out(m, place)
        if own.last != NONE:
            forget_last(m, place)
        next_held = own.origin + now.counter + 1
        now.units -= held_units(own, next_held, m.fixed)
        now.used -= held_bytes(own, next_held, m.fixed)
        now.more_units -= own.more_units
        now.more_bytes -= own.more_bytes
        now.num_sliding -= own.slides
        now.num_decoding -= 1
        if m.fixed.layout == BLOCKS:
            m.live[-own.origin % m.fixed.unit].growing -= 1
    else:
        now.new_used -= held_bytes(own, own.held, m.fixed)
    if now.first_new == place:
        now.first_new = next_new(m, own.younger)
    if own.older == NONE:
        now.oldest = own.younger
    else:
        m.live[own.older].younger = own.younger
    if own.younger == NONE:
        now.youngest = own.older
    else:
        m.live[own.younger].older = own.older
    own.request = NONE
    m.live[m.fixed.max_batch - now.num_live].vacant = place
    now.num_live -= 1


@part
def complete(m: Machine, place: int, held: int) -> None:
    """A live request has all its tokens, and ends: at once, or where steps are planned with the iteration."""
    now = m.now
    m.requests[m.live[place].request].outcome = COMPLETED
    if m.fixed.plans_steps:
        m.live[place].held = held
        m.live[now.num_ending].ending = place
        now.num_ending += 1
    else:
        end(m, place, held)


@part
def end(m: Machine, place: int, held: int) -> None:
    """A live request, whose outcome is set, ends; when, is known at the iteration's end."""
    now = m.now
    request = m.live[place].request
    own = m.requests[request]
    own.held, own.finish_order = held, now.num_finished
    now.num_finished += 1
    now.must_wait = 0
    m.live[now.num_ended].ended = request
    now.num_ended += 1
    allocated, wasted, rounded, shared_bytes = now.allocated, now.wasted, now.rounded, now.shared_bytes
    leave(m, place, held)
    now.used_by_ended += held_bytes(m.live[place], held, m.fixed) - (shared_bytes - now.shared_bytes)
    now.allocated_by_ended += allocated - now.allocated
    now.wasted_by_ended += wasted - now.wasted
    now.rounded_by_ended += rounded - now.rounded


@part
def note_end(m: Machine, request: int) -> None:
    """A request has ended now, and others may be sent."""
    now = m.now
    m.requests[request].finish_ns = now.clock_ns
    if m.fixed.is_awaited:
        m.requests[request].follows = NONE
        if now.first_ended == NONE:
            now.first_ended = request
        else:
            m.requests[now.last_ended].follows = request
        now.last_ended = request


@part
def stack(m: Machine, request: int, saved: int, since_ns: int) -> None:
    """Put a request at the head of the queue, to wait until another has ended, where that is the rule."""
    now = m.now
    own = m.live[now.num_stacked]
    own.stacked, own.stacked_held, own.stacked_since_ns = request, saved, since_ns
    now.num_stacked += 1
    now.must_wait = m.fixed.waits_for_end


@part
def preempt(m: Machine, place: int, held: int) -> None:
    """A live request gives its memory back, and waits; one that is to take a decode step in this iteration does not."""
    now, own = m.now, m.live[place]
    asked = m.requests[own.request]
    now.has_given_way = 1
    if is_decoding(m, place) and now.decode == TAKEN:
        now.stepped -= 1
        now.units_seen -= held_units(own, held + 1, m.fixed)
    if own.has_stepped:
        asked.num_preemptions += 1
        now.num_preemptions += 1
    if m.fixed.preemption == SWAP and held > 0:
        num_bytes = held_bytes(own, held, m.fixed)
        now.spent_ps += m.fixed.transfer_ps + _moved_ps(num_bytes, m.fixed.swap_ps, m.fixed)
        now.moved_bytes += num_bytes
    is_planned = m.fixed.plans_steps and m.fixed.preemption != SWAP
    lost = _lost_tokens(held, is_decoding(m, place), is_planned)
    stack(m, own.request, max(own.saved, lost), now.clock_ns)
    leave(m, place, held)
