"""Prompts in an iteration, the oldest first, while its tokens last; and what was lost, or swapped, before."""

from kvbench.compiled import part, plain
from kvbench.engine.scheduling import taken_tokens
from kvbench.fleet.holds import held_bytes, passing_bytes
from kvbench.fleet.live import complete, end, enter, is_decoding
from kvbench.fleet.paying import pay
from kvbench.fleet.prefix.cache import fill
from kvbench.fleet.prefix.groups import leave_windows, name_in_groups
from kvbench.fleet.prefix.states import next_stop
from kvbench.fleet.queue import is_admitted, is_promised, is_waiting, take_first, take_found
from kvbench.fleet.room import make_room
from kvbench.fleet.state import NONE, SWAP, TOO_LONG, Machine
from kvbench.fleet.tally import add_wait
from kvbench.fleet.turns import next_most, reduce
from kvbench.timing.prices import UNBOUNDED

_taken_tokens = plain(taken_tokens)


@part
def compute_prompts(m: Machine) -> int:
    """A step of everyone whose prompt is not computed, while the iteration's budget lasts; how many took one."""
    num_new, place = 0, m.now.first_new
    while place != NONE:
        own = m.live[place]
        if not is_decoding(m, place):
            took, is_done = compute(m, place)
            num_new += took
            if not is_done:
                return num_new
        place = own.younger
    return num_new + compute_admitted(m)


@part
def compute_admitted(m: Machine) -> int:
    """Admit those who may be within an iteration, and take their first step; how many took one."""
    now, num_new = m.now, 0
    while now.quota > 0 and not now.has_given_way and now.budget_tokens > 0 and is_waiting(m) and is_promised(m):
        if m.fixed.is_asked and not is_admitted(m):
            break
        now.quota -= 1
        request, saved, since_ns = take_first(m)
        place = enter(m, request, saved)
        num_waiting = now.num_stacked
        if m.fixed.shares:
            take_found(m, place)
        took, is_done = compute(m, place)
        num_new += took
        if now.num_stacked > num_waiting and not took:
            m.live[num_waiting].stacked_since_ns = since_ns  # it has waited all the time
        else:
            add_wait(m, since_ns, now.head_ns)
        if not is_done:
            break
    return num_new


@part
def compute(m: Machine, place: int) -> tuple[bool, bool]:
    """Fetch what was swapped, and compute tokens of a prompt, or of what was lost.

    Returns:
        Whether anything was done, and whether the next request has its turn.
    """
    now, own, fixed = m.now, m.live[place], m.fixed
    goal = max(own.saved, own.prompt)
    took = is_cut = False
    if fixed.num_groups > 0 and fixed.kept_bytes == 0:
        leave_windows(m, place, own.held)
    while own.held < goal:
        held = own.held
        is_fetch = fixed.preemption == SWAP and held < own.saved
        is_apart = held < own.saved and (is_fetch or fixed.plans_steps + fixed.kept_bytes == 0)
        num_tokens = (own.saved if is_apart else goal) - held
        if not is_fetch:
            is_first = now.budget_tokens == now.first_tokens
            num_tokens = _taken_tokens(num_tokens, now.budget_tokens, is_first, fixed.tokens, fixed.chunks)
            if fixed.is_turning:
                num_most = next_most(m, place, num_tokens)
                is_cut, num_tokens = num_most < num_tokens, num_most
        if num_tokens == 0:
            now.budget_tokens = 0
            return took, False
        if fixed.kept_bytes > 0:
            num_tokens = next_stop(m, place, num_tokens, goal)
            if num_tokens == 0:
                return took, True
            leave_windows(m, place, held)
        if held + num_tokens > fixed.max_tokens:
            m.requests[own.request].outcome = TOO_LONG
            end(m, place, held)
            return took, True
        is_tight = held + num_tokens > own.capacity or passing_bytes(held, num_tokens, fixed) > 0
        num_bytes = held_bytes(own, held, fixed)
        if (is_tight or fixed.is_turning) and not make_room(m, place, held, held + num_tokens):
            return took, True
        took = True
        own.held += num_tokens
        if fixed.shares and fixed.num_groups > 0:
            name_in_groups(m, place, held, own.held)
        elif fixed.shares:
            fill(m, place, held // fixed.unit, own.held // fixed.unit)
        pay(m, place, held, num_tokens, is_fetch)
        if fixed.is_turning:
            if num_tokens > 1:
                own.several = own.held
            reduce(m, place, own.held, num_tokens)
        now.new_used += held_bytes(own, own.held, fixed) - num_bytes
        if own.held < goal:
            is_over = fixed.tokens == UNBOUNDED or fixed.kept_bytes > 0
            if is_over or (is_cut and held >= own.saved):
                return took, True
    if own.held == own.final:
        complete(m, place, own.held)
    else:
        m.live[now.num_begun].begun = place
        now.num_begun += 1
    return took, True
