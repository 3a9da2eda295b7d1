"""Many iterations at once, while every live request decodes and nothing happens: what they come to in closed form."""

import math

from kvbench.compiled import part, plain
from kvbench.fleet.last_blocks import is_last_due, take_last
from kvbench.fleet.live import look_past_last, next_key
from kvbench.fleet.memory import note_peak
from kvbench.fleet.state import BLOCKS, IDLE_QUEUE, NONE, Machine
from kvbench.fleet.tally import Level, add, add_one, begin, note_queue, pass_time
from kvbench.fleet.turns import calm_steps, slid
from kvbench.timing.prices import (
    DECODE_FIXED,
    DECODE_UNIT,
    LINEAR,
    PS_PER_NS,
    SEQUENCES,
    SIZES,
    STEP,
    of_batch,
    sized_ps,
    unit_ps,
)

LONGEST_NS = 9 * 10**15
_sized_ps, _unit_ps, _of_batch = plain(sized_ps), plain(unit_ps), plain(of_batch)


@part
def jump(m: Machine) -> bool:
    """Let iterations pass until the one before something happens, or until somebody may be admitted.

    Returns:
        Whether the next iteration is one to take by itself, with nobody admitted before it.
    """
    now, fixed = m.now, m.fixed
    if now.first_new != NONE or now.num_decoding == 0 or now.quota > 0:
        return True
    look_past_last(m)
    most = next_key(m) - now.counter - 1
    if fixed.is_turning:
        most = calm_steps(m, most)
    num_steps = min(most, fixed.max_jump)
    if fixed.layout == BLOCKS:
        num_steps = _fitting(m, num_steps)
    if num_steps <= 0:
        return True
    stop_ns = min(now.until_ns, now.bin_end_ns)
    if now.why_waiting == IDLE_QUEUE or fixed.fetches_at > 0:
        stop_ns = min(stop_ns, now.unseen_ns)
    need_ps = min(stop_ns - now.clock_ns, LONGEST_NS) * PS_PER_NS - now.rest_ps
    first_ps = _step_ps(m)
    more_ps = _more_ps(m)
    num_steps = _until(num_steps, need_ps, first_ps, more_ps)
    bin_ps = (now.bin_end_ns - now.clock_ns) * PS_PER_NS - now.rest_ps
    if num_steps > 1 and _passed_ps(num_steps, first_ps, more_ps) > bin_ps:
        num_steps -= 1  # the last one ends in another bin: it is taken by itself
    _pass_steps(m, num_steps, first_ps, more_ps)
    if num_steps < most or now.clock_ns >= stop_ns:
        return False
    note_queue(m)
    begin(m)
    return True


@part
def _step_ps(m: Machine) -> int:
    """What the next iteration takes in which all decode, and nothing else happens."""
    num, fixed, step_ps = m.now.num_decoding, m.fixed, m.fixed.step_ps
    if num <= SIZES:
        step_ps = int(m.tables[STEP, num])
    else:
        step_ps += _sized_ps(LINEAR, _of_batch(num, 1, fixed.num_stages), m.tables)
        step_ps += _sized_ps(SEQUENCES, num, m.tables) + _sized_ps(DECODE_FIXED, num, m.tables)
        step_ps += num * (fixed.write_ps + fixed.state_ps)
    return step_ps + m.now.beside_ps + m.now.units * _unit_ps(DECODE_UNIT, num, m.tables, fixed.unit_parts)


@part
def _more_ps(m: Machine) -> int:
    """By how much each such iteration takes longer than the one before."""
    each_ps = _unit_ps(DECODE_UNIT, m.now.num_decoding, m.tables, m.fixed.unit_parts)
    return m.now.more_units * each_ps + m.now.more_beside_ps


@part
def calm_ns(m: Machine) -> int:
    """When the first iteration of a replica begins in which a request might end, at the earliest."""
    now, fixed = m.now, m.fixed
    is_open = now.num_stacked + now.num_queued > 0 and now.num_live < fixed.max_batch and not now.must_wait
    if now.first_new != NONE or now.num_decoding == 0 or is_open or now.unseen != NONE:
        return max(now.clock_ns, now.unseen_ns) if now.num_live == 0 and now.unseen != NONE else now.clock_ns
    most = next_key(m) - now.counter - 1
    if fixed.is_turning:
        most = calm_steps(m, most)
    num_steps = min(most, fixed.max_jump)
    if fixed.layout == BLOCKS:
        num_steps = _fitting(m, num_steps)
    return now.clock_ns + _passed_ps(num_steps, _step_ps(m), _more_ps(m)) // PS_PER_NS


@part
def _passed_ps(num_steps: int, first_ps: int, more_ps: int) -> int:
    """What so many iterations take, each by the same longer than the one before."""
    return num_steps * first_ps + num_steps * (num_steps - 1) // 2 * more_ps


@part
def _until(most: int, need_ps: int, first_ps: int, more_ps: int) -> int:
    """The least number of iterations that take so long, at least 1 and at most the most."""
    if most == 1 or first_ps >= need_ps:
        return 1
    if _passed_ps(most, first_ps, more_ps) <= need_ps:
        return most
    base = first_ps - 0.5 * more_ps
    num_steps = int(2.0 * need_ps / (base + math.sqrt(base * base + 2.0 * more_ps * need_ps)))
    num_steps = min(max(num_steps, 1), most)
    while _passed_ps(num_steps, first_ps, more_ps) < need_ps:
        num_steps += 1
    while num_steps > 1 and _passed_ps(num_steps - 1, first_ps, more_ps) >= need_ps:
        num_steps -= 1
    return num_steps


@part
def _fitting(m: Machine, most: int) -> int:
    """How many iterations the pool has blocks for."""
    now, unit = m.now, m.fixed.unit
    if m.fixed.slot_bytes == 0:
        return most
    room = (m.fixed.limit_bytes - now.allocated) // m.fixed.slot_bytes
    if now.num_decoding * (most + unit) <= room:
        return most
    free = room // unit
    num_periods = min(most // unit, free // now.num_decoding)
    free -= num_periods * now.num_decoding
    num_steps = num_periods * unit
    turn = now.counter % unit
    while num_steps < most:
        free -= m.live[turn].growing
        if free < 0:
            break
        num_steps += 1
        turn = turn + 1 if turn + 1 < unit else 0
    return num_steps


@part
def _pass_steps(m: Machine, num_steps: int, first_ps: int, more_ps: int) -> None:
    now = m.now
    n, num_live = num_steps, now.num_decoding
    # Before the first of them, if it has added as much as the others.
    used = now.used - now.more_bytes - now.shared_bytes
    lasted_ps = _passed_ps(n, first_ps, more_ps)
    # The sum of each iteration's number times its time.
    numbered_ps = first_ps * (0.5 * n * (n + 1)) + more_ps * ((n - 1.0) * n * (n + 1.0) / 3.0)
    allocated = float(now.allocated) * lasted_ps
    if m.fixed.layout == BLOCKS:
        allocated += _hand_out(m, n, lasted_ps, first_ps, more_ps)
        note_peak(m, 0)
    if now.num_sliding > 0:
        slid(m, n)
    wasted = _wasted_over(m, n, lasted_ps, first_ps, more_ps)
    pass_time(m, lasted_ps)
    last = Level(used + n * now.more_bytes, now.allocated, now.wasted, now.rounded, num_live)
    if n == 1:
        add_one(m, lasted_ps, last)
    else:
        used_ps = float(used) * lasted_ps + now.more_bytes * numbered_ps
        add(m, now.bin, float(lasted_ps), used_ps, allocated, wasted, last)
    now.counter += n
    now.units += n * now.more_units
    now.used += n * now.more_bytes
    now.num_iterations += n
    now.num_decoded_tokens += n * num_live
    now.num_finished_before = now.num_finished


@part
def _wasted_over(m: Machine, num_steps: int, lasted_ps: int, first_ps: int, more_ps: int) -> float:
    """Bytes that no token will fill over so many iterations, summed over time; last blocks come in them."""
    now, before = m.now, 0.0
    while is_last_due(m, now.counter + num_steps):
        passed = m.live[m.live[now.num_coming - 1].coming].last - now.counter - 1
        wasted = now.wasted
        take_last(m)
        before += float(now.wasted - wasted) * _passed_ps(passed, first_ps, more_ps)
    return float(now.wasted) * lasted_ps - before


@part
def _hand_out(m: Machine, num_steps: int, lasted_ps: int, first_ps: int, more_ps: int) -> float:
    """Hand out the blocks of so many iterations; what they add to the slots allocated, summed over time, in bytes.

    Sequences grow in one iteration of each period of as many as a block has slots. What is handed out in an iteration
    is held through it, and through those that follow.
    """
    now, unit = m.now, m.fixed.unit
    turn, num_blocks, added = now.counter % unit, 0, 0.0
    if num_steps < unit:
        passed_ps = 0
        for i in range(num_steps):
            count = m.live[turn].growing
            num_blocks += count
            added += float(count) * (lasted_ps - passed_ps)
            passed_ps += first_ps + i * more_ps
            turn = turn + 1 if turn + 1 < unit else 0
    else:
        for i in range(unit):
            count = m.live[turn].growing
            if count > 0:
                times = (num_steps - 1 - i) // unit + 1
                num_blocks += times * count
                added += count * _held_ps(i, times, unit, float(lasted_ps), float(first_ps), float(more_ps))
            turn = turn + 1 if turn + 1 < unit else 0
    block_bytes = unit * m.fixed.slot_bytes
    now.allocated += num_blocks * block_bytes
    return added * block_bytes


@part
def _held_ps(first: int, times: int, unit: int, lasted_ps: float, first_ps: float, more_ps: float) -> float:
    """How long blocks are held, together, that are handed out after `first` iterations and then in every unit-th."""
    numbers = 0.5 * times * (times - 1)
    passed = times * float(first) + unit * numbers
    squares = times * float(first * first) + 2.0 * first * unit * numbers
    squares += float(unit * unit) * (numbers * (2 * times - 1) / 3.0)
    return times * lasted_ps - (first_ps * passed + 0.5 * more_ps * (squares - passed))
