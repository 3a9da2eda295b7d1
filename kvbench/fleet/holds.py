"""Bytes of a sequence, and what its attention sees, by its tokens: straight lines, with a bend where a window is full
or a chunk ends. Between events all that decode are on straight stretches of theirs."""

from kvbench.compiled import part, plain
from kvbench.fleet.rows import LiveRow
from kvbench.fleet.state import FixedRow, Machine
from kvbench.fleet.windows import beside_bytes
from kvbench.timing.prices import UNBOUNDED, units_seen

_units_seen = plain(units_seen)


@part
def bytes_of(num_tokens: int, fixed: FixedRow) -> int:
    """Bytes of so many slots of a sequence, and of its states."""
    if num_tokens == 0:
        return 0
    if not fixed.is_bounded:
        return fixed.state_bytes + num_tokens * fixed.slot_bytes
    if fixed.num_groups > 0:
        return num_tokens * fixed.slot_bytes
    num_bytes = fixed.state_bytes
    for i in range(fixed.num_holds):
        num_bytes += min(num_tokens, fixed.holds[i].most_tokens) * fixed.holds[i].slot_bytes
    return num_bytes


@part
def replaced_bytes(num_tokens: int, capacity: int, fixed: FixedRow) -> int:
    """Those of them in tensors that growth beyond a capacity replaces: layers that hold all that they ever do stay."""
    if not fixed.is_bounded:
        return num_tokens * fixed.slot_bytes
    num_bytes = 0
    for i in range(fixed.num_holds):
        if capacity < fixed.holds[i].most_tokens:
            num_bytes += num_tokens * fixed.holds[i].slot_bytes
    return num_bytes


@part
def twice_bytes(capacity: int, fixed: FixedRow) -> int:
    """What growth beyond a capacity holds twice: the largest tensor, while it is copied."""
    if not fixed.is_bounded:
        return capacity * fixed.holds[0].tensor_bytes
    tensor_bytes = 0
    for i in range(fixed.num_holds):
        if capacity < fixed.holds[i].most_tokens:
            tensor_bytes = max(tensor_bytes, fixed.holds[i].tensor_bytes)
    return capacity * tensor_bytes


@part
def passing_bytes(held: int, num_tokens: int, fixed: FixedRow) -> int:
    """What an append holds beside: a layer's old tokens and new ones, where some of them are not to stay."""
    most_bytes = 0
    if fixed.is_bounded and num_tokens > 1:
        for i in range(fixed.num_holds):
            hold = fixed.holds[i]
            num_old = held % hold.most_tokens if hold.is_chunk else min(held, hold.most_tokens)
            if num_old + num_tokens > hold.most_tokens:
                most_bytes = max(most_bytes, (num_old + num_tokens) * hold.layer_bytes)
    return most_bytes


@part
def next_bend(held: int, fixed: FixedRow) -> int:
    """The fewest tokens, more than a sequence holds, from which on a token more adds another amount than before."""
    bend = UNBOUNDED
    for i in range(fixed.num_holds):
        if fixed.holds[i].most_tokens > held:
            bend = min(bend, fixed.holds[i].most_tokens)
    for i in range(fixed.num_sights):
        sight = fixed.sights[i]
        if sight.is_chunk:
            bend = min(bend, held + (1 if held % sight.reach == 0 else sight.reach - held % sight.reach))
        elif sight.reach > held:
            bend = min(bend, sight.reach)
    return bend


@part
def units_of(num_tokens: int, fixed: FixedRow) -> int:
    """Units that the newest of so many tokens sees."""
    return _units_seen(num_tokens, fixed) if fixed.is_bounded else num_tokens * fixed.slot_units


@part
def lost_tokens(own: LiveRow, fixed: FixedRow) -> int:
    """Tokens that a live request held as it gave way: who decoded may come back with one more to compute."""
    return own.saved - (fixed.plans_steps if own.saved > own.prompt else 0)


@part
def used_slots(own: LiveRow, num_tokens: int) -> int:
    """Slots of the area main in use of so many tokens, where slots are reduced."""
    return min(num_tokens - own.away, own.most)


@part
def held_bytes(own: LiveRow, num_tokens: int, fixed: FixedRow) -> int:
    """Bytes that a live request uses with so many tokens."""
    if fixed.num_groups > 0:
        return bytes_of(num_tokens, fixed) + beside_bytes(own, num_tokens, fixed)
    if not fixed.is_turning:
        return bytes_of(num_tokens, fixed)
    return bytes_of(used_slots(own, num_tokens), fixed) + own.aside * fixed.aside_bytes // fixed.aside_group


@part
def held_units(own: LiveRow, num_tokens: int, fixed: FixedRow) -> int:
    """Units that the newest of so many tokens of a live request sees."""
    if not fixed.is_turning:
        return units_of(num_tokens, fixed)
    return used_slots(own, num_tokens) * fixed.slot_units + own.aside * fixed.aside_units


@part
def bend(m: Machine, place: int, num_tokens: int) -> None:
    """Note by how much a step more of a request that decodes adds, once it holds so many tokens."""
    own, now, fixed = m.live[place], m.now, m.fixed
    more_units, more_bytes = fixed.slot_units, fixed.slot_bytes
    if fixed.is_bounded or fixed.is_turning:
        more_units = held_units(own, num_tokens + 1, fixed) - held_units(own, num_tokens, fixed)
        more_bytes = held_bytes(own, num_tokens + 1, fixed) - held_bytes(own, num_tokens, fixed)
    now.more_units += more_units - own.more_units
    now.more_bytes += more_bytes - own.more_bytes
    own.more_units, own.more_bytes = more_units, more_bytes
