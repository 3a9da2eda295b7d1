"""Room for tokens to come: growth by the strategy's rule, or fewer slots in use; and who gives way where it lacks."""

from kvbench.compiled import part
from kvbench.fleet.holds import held_units, lost_tokens, passing_bytes
from kvbench.fleet.live import end, is_decoding, preempt
from kvbench.fleet.memory import growth_ps, resized
from kvbench.fleet.state import OUT_OF_MEMORY, OVER, Machine
from kvbench.fleet.turns import make_way


@part
def make_room(m: Machine, place: int, held: int, required: int) -> bool:
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
            num_decoded = now.counter + (now.decode == OVER)
            preempt(m, youngest, victim.origin + num_decoded if is_decoding(m, youngest) else victim.held)
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
            asked.held = max(held, lost_tokens(own, m.fixed))  # what it was to compute again counts as held
            return False
