"""The prefix cache of a replica: what is found of a request, held with it, filled by it, and let go of; who is evicted.

As vLLM's block pool does it, in counts of blocks instead of blocks: a block has a name as soon as the step is scheduled
that fills it; blocks without one are taken first, then those that were let go of first, a request's last ones before
its others. How many are evicted follows from how many are free, so that it is done when somebody asks: in between
nothing changes the order.
"""

from kvbench.compiled import part
from kvbench.fleet.prefix import segments
from kvbench.fleet.prefix.known import note_changed
from kvbench.fleet.prefix.order import (
    first_ranked,
    is_alike,
    note_cut,
    note_found,
    note_gone,
    note_let_go,
    note_made,
    note_merged,
)
from kvbench.fleet.prefix.segments import (
    RunRow,
    append,
    catch_up,
    covering,
    drop,
    head_of,
    held_now,
    is_growing,
    is_open,
    link_before,
    run_at,
    segment_at,
    take_out_of_run,
    turn_at,
    unlink,
)
from kvbench.fleet.prefix.tier import store, store_all, tier_at
from kvbench.fleet.state import NONE, Machine
from kvbench.timing.prices import UNBOUNDED


@part
def free_blocks(m: Machine) -> int:
    """Blocks that nobody holds, with a name or without."""
    return (m.fixed.limit_bytes - m.now.allocated) // (m.fixed.unit * m.fixed.slot_bytes)


@part
def evict(m: Machine) -> None:
    """Let those blocks go whose room has been taken: the oldest first, of each segment from its deep end."""
    now = m.now
    num_over = now.num_unused - free_blocks(m)
    while num_over > 0:
        number = first_ranked(m) if m.fixed.order_at > 0 else segment_at(now.segments_at, 0).newer
        own = segment_at(now.segments_at, number)
        num_gone = min(own.count, num_over)
        if m.fixed.order_at > 0:
            num_gone = note_gone(m, number, num_gone)
        if m.fixed.known_at > 0:
            note_changed(m, own.run)
        own.count -= num_gone
        if m.fixed.num_tiers > 0 and not m.fixed.writes_through:
            store(tier_at(now.tiers_at, 0), own.run, own.first + own.count, own.first + own.count + num_gone)
        num_over -= num_gone
        now.num_unused -= num_gone
        now.num_evicted_blocks += num_gone
        if own.count == 0:
            unlink(m, number)
            drop(m, number)


@part
def fresh(m: Machine, run: int, first: int, count: int, place: int) -> int:
    """A new segment of a run, that a request holds which computes it; its number."""
    number = segments.fresh(m, run, first, count, place)
    m.now.must_wait &= m.fixed.waits_for_end  # more may be found of the head of the queue
    if m.fixed.order_at > 0:
        note_made(m, number, place)
    if m.fixed.known_at > 0:
        note_changed(m, run)
    return number


@part
def cut(m: Machine, number: int, at: int) -> int:
    """Cut a segment in two at a block of its run, or behind its last where it is open; the deeper one."""
    deeper = segments.cut(m, number, at)
    if m.fixed.order_at > 0:
        note_cut(m, number, deeper)
    return deeper


@part
def covered(m: Machine, run: int, row: RunRow) -> int:
    """Blocks of a run that are there, from its beginning on."""
    number = head_of(m, run)
    if number == 0:
        return 0
    own = segment_at(m.now.segments_at, number)
    if own.next == 0:
        catch_up(m, number, row)
        return int(own.count) if own.first == 0 else 0
    reach = 0
    while True:
        number = covering(m, run, row, reach)
        if number == 0:
            return reach
        own = segment_at(m.now.segments_at, number)
        reach = own.first + own.count


@part
def find(m: Machine, request: int, num_blocks: int) -> int:
    """How many of the first so many blocks of a request are there.

    No block is there without those before it, so that the search begins at the deep end.
    """
    evict(m)
    turn = turn_at(m.fixed.turns_at, request)
    place = turn.leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        if run.first < num_blocks:
            reach = covered(m, turn.base + place, run)
            if reach > 0:
                return min(int(run.first) + reach, num_blocks)
        place = run.parent
    return 0


@part
def num_idle(m: Machine, request: int, num_blocks: int) -> int:
    """How many of the first blocks of a request, which are there, nobody holds."""
    turn, found = turn_at(m.fixed.turns_at, request), 0
    place = turn.leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        block, reach = 0, min(run.past, num_blocks) - run.first
        while block < reach:
            own = segment_at(m.now.segments_at, covering(m, turn.base + place, run, block))
            end = min(own.first + own.count, reach)
            if own.references == 0:
                found += end - block
            block = end
        place = run.parent
    return found


@part
def may_grow(m: Machine, request: int, num_blocks: int) -> bool:
    """Whether somebody fills blocks of the run that the next block of a request is in."""
    turn = turn_at(m.fixed.turns_at, request)
    place = turn.leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        if run.first <= num_blocks < run.past:
            return is_growing(m, turn.base + place)
        place = run.parent
    return False


@part
def take_over(m: Machine, place: int, num_blocks: int) -> None:
    """Let a request that has become live hold its first blocks, which are there."""
    own = m.live[place]
    own.open, own.hit_blocks = 0, num_blocks
    turn = turn_at(m.fixed.turns_at, own.request)
    number = turn.leaf
    while number != NONE:
        run = run_at(m.fixed.runs_at, number)
        if run.first < num_blocks:
            _hold(m, place, turn.base + number, run, min(run.past, num_blocks) - run.first)
        number = run.parent


@part
def _hold(m: Machine, place: int, run: int, row: RunRow, reach: int) -> None:
    """Let a request hold a run's first blocks."""
    now, block_bytes, block = m.now, m.fixed.unit * m.fixed.slot_bytes, 0
    while block < reach:
        number = covering(m, run, row, block)
        own = segment_at(now.segments_at, number)
        if own.first < block:
            number = cut(m, number, block)
            own = segment_at(now.segments_at, number)
        end = own.first + own.count
        if end > reach or is_open(m, number):
            cut(m, number, min(end, reach))
        was_idle = own.references == 0
        if was_idle:
            unlink(m, number)
            now.num_unused -= own.count
            now.allocated += own.count * block_bytes
        else:
            now.shared_bytes += own.count * block_bytes
        own.references += 1
        if m.fixed.order_at > 0:
            note_found(m, number, place, was_idle)
        block = own.first + own.count


@part
def fill(m: Machine, place: int, before: int, after: int) -> None:
    """Give names to the blocks that a step of a prompt fills, from one number of blocks to another."""
    if before == after:
        return
    live = m.live[place]
    turn, left = turn_at(m.fixed.turns_at, live.request), live.open
    if left > 0 and segment_at(m.now.segments_at, left).next > 0:
        # Others have come behind it: its next blocks get their names after theirs.
        if segment_at(m.now.segments_at, left).count == 0:
            drop(m, left)
        left = 0
    live.open = 0
    number = turn.leaf
    while number != NONE:
        run = run_at(m.fixed.runs_at, number)
        if run.past <= before:
            break
        if run.first < after:
            first, past = max(run.first, before) - run.first, min(run.past, after) - run.first
            if left > 0 and segment_at(m.now.segments_at, left).run == turn.base + number:
                own = left
                segment_at(m.now.segments_at, own).count = past - segment_at(m.now.segments_at, own).first
            else:
                own = fresh(m, turn.base + number, first, past - first, place)
            if run.first + past < run.past:
                live.open = own
            _overtake(m, own, place, run)
        number = run.parent


@part
def go_on(m: Machine, place: int, held: int) -> None:
    """Open a segment for the next block that a request fills as it decodes, unless one is open or none is to come."""
    live, block = m.live[place], held // m.fixed.unit
    if live.open > 0 or live.final // m.fixed.unit <= block:
        return
    turn = turn_at(m.fixed.turns_at, live.request)
    number = turn.leaf
    while run_at(m.fixed.runs_at, number).first > block:
        number = run_at(m.fixed.runs_at, number).parent
    run = run_at(m.fixed.runs_at, number)
    live.open = fresh(m, turn.base + number, block - run.first, 0, place)
    _overtake(m, live.open, place, run)


@part
def next_run(m: Machine, place: int, held: int) -> int:
    """The tokens, more than a request holds, at which it fills the last block of a run and goes on with another."""
    live = m.live[place]
    if live.open == 0:
        return UNBOUNDED
    base = turn_at(m.fixed.turns_at, live.request).base
    past = run_at(m.fixed.runs_at, segment_at(m.now.segments_at, live.open).run - base).past
    return past * m.fixed.unit if past < live.final // m.fixed.unit and past * m.fixed.unit > held else UNBOUNDED


@part
def cross(m: Machine, place: int, held: int) -> None:
    """Go on with the next run, where a request has filled one with so many tokens."""
    live = m.live[place]
    if live.open == 0:
        return
    own = segment_at(m.now.segments_at, live.open)
    run = run_at(m.fixed.runs_at, own.run - turn_at(m.fixed.turns_at, live.request).base)
    if held // m.fixed.unit >= run.past:
        own.count = run.past - run.first - own.first
        live.open = 0
        go_on(m, place, held)


@part
def _overtake(m: Machine, number: int, place: int, row: RunRow) -> None:
    """List those behind the last segment of a run who fill it and hold fewer tokens than its request."""
    run = segment_at(m.now.segments_at, number).run
    other, held = head_of(m, run), held_now(m, place)
    while other != number:
        own = segment_at(m.now.segments_at, other)
        behind = own.next
        if is_open(m, other) and held_now(m, own.maker) < held:
            catch_up(m, other, row)
            if own.count > 0:
                other = cut(m, other, own.first + own.count)
            take_out_of_run(m, other)
            append(m, other)
        other = behind


@part
def let_go(m: Machine, place: int, held: int) -> int:
    """Let a request that holds so many tokens go of its blocks, the deepest first; slots that others still hold."""
    evict(m)
    live, num_named, num_held = m.live[place], held // m.fixed.unit, 0
    turn = turn_at(m.fixed.turns_at, live.request)
    if live.open > 0:
        own = segment_at(m.now.segments_at, live.open)
        run = run_at(m.fixed.runs_at, own.run - turn.base)
        own.count = min(run.past, num_named) - run.first - own.first
        if own.count == 0:
            drop(m, live.open)
        live.open = 0
    number = turn.leaf
    while number != NONE:
        run = run_at(m.fixed.runs_at, number)
        if run.first < num_named:
            num_held += _release(m, place, turn.base + number, run, min(run.past, num_named) - run.first)
        number = run.parent
    if m.fixed.num_tiers > 0 and m.fixed.writes_through:
        store_all(m, live.request, 0, num_named)
    return num_held * m.fixed.unit


@part
def _release(m: Machine, place: int, run: int, row: RunRow, reach: int) -> int:
    """Let go of a run's first blocks; how many of them others hold."""
    number, num_held, block = head_of(m, run), 0, reach
    if segment_at(m.now.segments_at, number).next == 0:
        return _release_one(m, place, number)
    while block > m.live[place].hit_blocks - row.first and block > 0:
        number = _made_before(m, place, run, block)
        num_held += _release_one(m, place, number)
        block = segment_at(m.now.segments_at, number).first
    while block > 0:
        number = covering(m, run, row, block - 1)
        num_held += _release_one(m, place, number)
        block = segment_at(m.now.segments_at, number).first
    return num_held


@part
def _made_before(m: Machine, place: int, run: int, block: int) -> int:
    """The deepest segment of a run that a request has computed, and that begins before a block."""
    number, found, first = head_of(m, run), 0, NONE
    while number > 0:
        own = segment_at(m.now.segments_at, number)
        if own.maker == place and first < own.first < block:
            found, first = number, own.first
        number = own.next
    return found


@part
def _release_one(m: Machine, place: int, number: int) -> int:
    """Hold a segment no longer; how many of its blocks others hold."""
    now, own = m.now, segment_at(m.now.segments_at, number)
    if own.maker == place:
        own.maker = NONE
    own.references -= 1
    if own.references > 0:
        now.shared_bytes -= own.count * m.fixed.unit * m.fixed.slot_bytes
        return int(own.count)
    now.num_unused += own.count
    deeper = segment_at(now.segments_at, 0).older
    link_before(m, number, 0)
    if m.fixed.order_at > 0:
        note_let_go(m, number)
        if deeper > 0 and is_alike(m, number, deeper):
            _merge(m, number, deeper)
    elif deeper > 0:
        _merge(m, number, deeper)
    return 0


@part
def _merge(m: Machine, number: int, deeper: int) -> None:
    """Make one of a run's only two segments, if the deeper one was let go of just before the other that it follows."""
    own, other = segment_at(m.now.segments_at, number), segment_at(m.now.segments_at, deeper)
    if other.run != own.run or other.first != own.first + own.count:
        return
    first = segment_at(m.now.segments_at, head_of(m, own.run))
    if segment_at(m.now.segments_at, first.next).next == 0:
        own.count += other.count
        if m.fixed.order_at > 0:
            note_merged(m, number, deeper)
        unlink(m, deeper)
        drop(m, deeper)
