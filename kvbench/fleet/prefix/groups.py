"""Blocks with names where groups of layers have tables of their own from one pool, as vLLM's hybrid manager has them.

Layers that look at all tokens come first, then those of each window, or those with states. The runs of each group stand
behind those of the group before, in one table, and what nobody holds in one order of age; a block is of its group's
bytes. A window's blocks go as it leaves them, and others than a request's last ones need not be there; a state is as a
block of a window of two tokens, but that a step makes none of those that it passes. Blocks get their names when they
are filled, one by one, so that no segment is open; of a window's and of states some have none, as the engine says.
"""

from kvbench.compiled import part, plain
from kvbench.engine.prefixes import window_blocks
from kvbench.fleet.prefix.cache import find
from kvbench.fleet.prefix.segments import (
    RunRow,
    covering,
    cut,
    drop,
    first_run,
    fresh,
    head_of,
    link_before,
    run_at,
    segment_at,
    turn_at,
    unlink,
)
from kvbench.fleet.prefix.states import junction_of, note_named
from kvbench.fleet.state import NONE, Machine
from kvbench.fleet.windows import is_named, left_in, num_states

_window_blocks = plain(window_blocks)


@part
def _evict(m: Machine) -> None:
    """Let those blocks go whose room has been taken: see `cache.evict`."""
    now, fixed = m.now, m.fixed
    over_bytes = now.unused_bytes - (fixed.limit_bytes - now.allocated)
    while over_bytes > 0:
        number = segment_at(now.segments_at, 0).newer
        own = segment_at(now.segments_at, number)
        each_bytes = fixed.holds[own.run // fixed.num_runs].block_bytes
        num_gone = min(int(own.count), -(-over_bytes // each_bytes))
        own.count -= num_gone
        over_bytes -= num_gone * each_bytes
        now.unused_bytes -= num_gone * each_bytes
        now.num_evicted_blocks += num_gone
        if own.count == 0:
            unlink(m, number)
            drop(m, number)


@part
def find_in_groups(m: Machine, request: int, num_blocks: int) -> int:
    """How many of the first so many blocks of a request are there, in all groups, for it to go on behind them."""
    _evict(m)
    found, before = find(m, request, num_blocks), NONE
    while found != before:
        before = found
        for group in range(1, m.fixed.num_groups):
            found = _reach(m, request, group, found)
    return found


@part
def _reach(m: Machine, request: int, group: int, num_blocks: int) -> int:
    """The most of so many blocks at whose end a window is there, or all before."""
    need = _window_blocks(m.fixed.holds[group].most_tokens, m.fixed.unit)
    place, top = turn_at(m.fixed.turns_at, request).leaf, num_blocks
    low = top  # blocks from here to the top are there
    while place != NONE and top - low < need:
        run = run_at(m.fixed.runs_at, place)
        while low > run.first and top - low < need:
            own = segment_at(m.now.segments_at, _nearest(m, first_run(m, request, group) + place, low - run.first))
            if run.first + own.first + own.count < low:
                low = top = run.first + own.first + own.count
            if own.count > 0:
                low = run.first + own.first
        place = run.parent
    return int(top)


@part
def _nearest(m: Machine, run: int, past: int) -> int:
    """The segment of a run with the last block before one; number 0, which has none, if there is none."""
    number, found, most = head_of(m, run), 0, 0
    while number > 0:
        own = segment_at(m.now.segments_at, number)
        if own.first < past and min(own.first + own.count, past) > most:
            found, most = number, min(own.first + own.count, past)
        number = own.next
    return found


@part
def have_room(m: Machine, request: int, num_found: int, num_tokens: int) -> bool:
    """Whether what nobody holds is enough for so many tokens of a request, and for its next step.

    Of a window no more blocks are counted than it ever holds at once.
    """
    fixed, unit = m.fixed, m.fixed.unit
    now_tokens = min(num_found * unit + m.now.budget_tokens, num_tokens)
    whole_bytes = now_bytes = 0
    for group in range(fixed.num_groups):
        wanted = min(-(-num_tokens // unit), fixed.holds[group].most_blocks)
        each_bytes, idle = fixed.holds[group].block_bytes, 0
        if fixed.shares:
            idle = _num_idle(m, request, group, num_found)
        num_new, num_now = max(wanted - num_found, 0), -(-now_tokens // unit) - num_found
        if fixed.holds[group].is_state:
            num_new, num_now = min(num_new, 1), min(num_now, 1)
        whole_bytes += (num_new + idle) * each_bytes
        now_bytes += (num_now + idle) * each_bytes
    return max(whole_bytes, now_bytes) <= fixed.limit_bytes - m.now.allocated


@part
def _num_idle(m: Machine, request: int, group: int, num_blocks: int) -> int:
    """How many of the blocks that a request would take over nobody holds."""
    low, found = left_in(group, num_blocks * m.fixed.unit, m.fixed), 0
    place = turn_at(m.fixed.turns_at, request).leaf
    while place != NONE:
        run = run_at(m.fixed.runs_at, place)
        block, past = max(low - run.first, 0), min(run.past, num_blocks) - run.first
        while block < past:
            own_run = first_run(m, request, group) + place
            number = covering(m, own_run, run, block)
            end = min(_end_of(m, own_run, number, block), past)
            if segment_at(m.now.segments_at, number).references == 0:
                found += end - block
            block = end
        place = run.parent
    return found


@part
def _end_of(m: Machine, run: int, number: int, block: int) -> int:
    """Where the blocks of a segment end, from one on, that no other got a name for before."""
    own = segment_at(m.now.segments_at, number)
    end, other = int(own.first + own.count), head_of(m, run)
    while other != number:
        own = segment_at(m.now.segments_at, other)
        if own.first > block and own.count > 0:
            end = min(end, int(own.first))
        other = own.next
    return end


@part
def take_over_groups(m: Machine, place: int, num_blocks: int) -> None:
    """Let a request that has become live hold its first blocks, of a window the last ones that it needs."""
    live = m.live[place]
    live.open, live.hit_blocks, live.before = 0, num_blocks, num_blocks * m.fixed.unit
    live.junction = junction_of(m, live.request, max(live.prompt, live.saved), num_blocks)
    for group in range(m.fixed.num_groups):
        low = left_in(group, live.before, m.fixed)
        number = turn_at(m.fixed.turns_at, live.request).leaf
        while number != NONE:
            run = run_at(m.fixed.runs_at, number)
            first, past = max(low - run.first, 0), min(run.past, num_blocks) - run.first
            _hold(m, group, first_run(m, live.request, group) + number, run, first, past)
            number = run.parent


@part
def _hold(m: Machine, group: int, run: int, row: RunRow, block: int, past: int) -> None:
    """Hold some of a run's blocks, which are there."""
    now = m.now
    while block < past:
        number = covering(m, run, row, block)
        end = min(_end_of(m, run, number, block), past)
        if segment_at(now.segments_at, number).first < block:
            number = cut(m, number, block)
        own = segment_at(now.segments_at, number)
        if own.first + own.count > end:
            cut(m, number, end)
        num_bytes = own.count * m.fixed.holds[group].block_bytes
        if own.references == 0:
            unlink(m, number)
            now.unused_bytes -= num_bytes
            now.allocated += num_bytes
        else:
            now.shared_bytes += num_bytes
        own.references += 1
        block = own.first + own.count


@part
def name_in_groups(m: Machine, place: int, held: int, required: int) -> None:
    """Give names to the blocks that a step fills, from some tokens to more, in all groups; of states, to its own."""
    before, after = held // m.fixed.unit, required // m.fixed.unit
    if before == after:
        return
    _evict(m)
    live = m.live[place]
    for group in range(m.fixed.num_groups):
        if m.fixed.holds[group].is_state:
            before = after - (required % m.fixed.unit == 0)
        number = turn_at(m.fixed.turns_at, live.request).leaf
        while number != NONE:
            run = run_at(m.fixed.runs_at, number)
            first, past = max(run.first, before), min(run.past, after)
            while first < past:
                end = first + _alike(m, place, group, first, past - first, 1)
                if is_named(live, group, first, m.fixed):
                    own = first_run(m, live.request, group) + number
                    _name(m, place, own, first - run.first, end - run.first)
                    if m.fixed.holds[group].is_state:
                        note_named(m, own, first - run.first)
                first = end
            number = run.parent


@part
def _alike(m: Machine, place: int, group: int, number: int, most: int, way: int) -> int:
    """How many of a request's full blocks, from one on or back from it, all have names, as that has, or all none."""
    live, count = m.live[place], 1
    if group == 0:
        return most
    is_first = is_named(live, group, number, m.fixed)
    while count < most and is_named(live, group, number + way * count, m.fixed) == is_first:
        count += 1
    return count


@part
def _name(m: Machine, place: int, run: int, first: int, past: int) -> None:
    """Name blocks of a run, behind all others of it."""
    number, last = head_of(m, run), 0
    while number > 0:
        last, number = number, segment_at(m.now.segments_at, number).next
    own = segment_at(m.now.segments_at, last)
    if last > 0 and own.maker == place and own.references == 1 and own.first + own.count == first:
        own.count += past - first
    else:
        fresh(m, run, first, past - first, place)


@part
def leave_windows(m: Machine, place: int, held: int) -> None:
    """Before a step of a request that holds so many tokens: give back the blocks that its windows have left, and the
    state that its last step went on from."""
    now, live, fixed = m.now, m.live[place], m.fixed
    given_bytes = 0
    for group in range(1, fixed.num_groups):
        low, past = left_in(group, live.before, fixed), left_in(group, held, fixed)
        if fixed.holds[group].is_state:
            num_tokens = held + (live.key != NONE)
            num_given = num_states(live.before, num_tokens, fixed) - num_states(held, num_tokens, fixed)
            given_bytes += num_given * fixed.kept_bytes
            if low < past and live.before > 0:
                _give_back_state(m, place, live.before)
        elif low < past:
            given_bytes += (past - low) * fixed.holds[group].block_bytes
            _give_back(m, place, group, low, past)
    live.before = held
    if live.key == NONE:
        now.new_used -= given_bytes
    else:
        now.used -= given_bytes


@part
def let_go_groups(m: Machine, place: int, held: int) -> None:
    """Let a request that holds so many tokens go of its blocks, group by group, the deepest first."""
    fixed, live = m.fixed, m.live[place]
    num_full, num_blocks = held // fixed.unit, -(-held // fixed.unit)
    if fixed.shares:
        _evict(m)
    for group in range(fixed.num_groups):
        low = left_in(group, live.before, fixed)
        if fixed.holds[group].is_state:
            if held > 0:
                _give_back_state(m, place, held)
            if live.before > 0 and low < left_in(group, held, fixed):
                _give_back_state(m, place, live.before)
        else:
            m.now.allocated -= (num_blocks - num_full) * fixed.holds[group].block_bytes
            _give_back(m, place, group, low, num_full)


@part
def _give_back_state(m: Machine, place: int, num_tokens: int) -> None:
    """Let a request go of the state behind so many tokens, which is free within a block: only who leaves ends there."""
    fixed, num_blocks = m.fixed, num_tokens // m.fixed.unit
    if num_tokens % fixed.unit == 0:
        _give_back(m, place, fixed.num_groups - 1, num_blocks - 1, num_blocks)
    else:
        m.now.allocated -= fixed.kept_bytes


@part
def _give_back(m: Machine, place: int, group: int, low: int, past: int) -> None:
    """Let a request go of full blocks of a group, the deepest first; without names they are free."""
    if not m.fixed.shares:
        m.now.allocated -= (past - low) * m.fixed.holds[group].block_bytes
        return
    live, number = m.live[place], turn_at(m.fixed.turns_at, m.live[place].request).leaf
    while number != NONE:
        run = run_at(m.fixed.runs_at, number)
        least, end = max(low, run.first), min(run.past, past)
        while end > least:
            first = end - _alike(m, place, group, end - 1, end - least, -1)
            if is_named(live, group, first, m.fixed):
                own_run = first_run(m, live.request, group) + number
                _release(m, place, own_run, run, first - run.first, end - run.first)
            else:
                _evict(m)
                m.now.allocated -= (end - first) * m.fixed.holds[group].block_bytes
            end = first
        number = run.parent


@part
def _release(m: Machine, place: int, run: int, row: RunRow, first: int, past: int) -> None:
    """Let go of some of a run's blocks."""
    block, num_hit = past, m.live[place].hit_blocks - row.first
    while block > first:
        number = _made_with(m, place, run, block - 1) if block > num_hit else covering(m, run, row, block - 1)
        own = segment_at(m.now.segments_at, number)
        if own.first + own.count > block:
            cut(m, number, block)
        if own.first < first:
            number = cut(m, number, first)
        block = segment_at(m.now.segments_at, number).first
        _release_one(m, place, number)


@part
def _made_with(m: Machine, place: int, run: int, block: int) -> int:
    """The segment of a run with a block that a request has computed."""
    number = head_of(m, run)
    own = segment_at(m.now.segments_at, number)
    while own.maker != place or block < own.first or block >= own.first + own.count:
        number = own.next
        own = segment_at(m.now.segments_at, number)
    return number


@part
def _release_one(m: Machine, place: int, number: int) -> None:
    """Hold a segment no longer; if nobody does, it is the newest that can be evicted."""
    now, own = m.now, segment_at(m.now.segments_at, number)
    num_bytes = own.count * m.fixed.holds[own.run // m.fixed.num_runs].block_bytes
    if own.maker == place:
        own.maker = NONE
    own.references -= 1
    if own.references > 0:
        now.shared_bytes -= num_bytes
        return
    now.allocated -= num_bytes
    now.unused_bytes += num_bytes
    link_before(m, number, 0)
