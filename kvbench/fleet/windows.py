"""Tables of blocks of groups of layers from one pool: those with a window give back what that has left, a step late."""

from kvbench.compiled import part, plain
from kvbench.engine.prefixes import is_checkpoint, is_window_kept, left_blocks
from kvbench.fleet.rows import LiveRow
from kvbench.fleet.state import FixedRow
from kvbench.timing.prices import UNBOUNDED

_is_checkpoint, _is_window_kept, _left_blocks = plain(is_checkpoint), plain(is_window_kept), plain(left_blocks)


@part
def left_in(group: int, num_tokens: int, fixed: FixedRow) -> int:
    """Blocks at the front of so many tokens that a group's layers do not look at any more."""
    return _left_blocks(num_tokens, fixed.holds[group].most_tokens, fixed.unit)


@part
def is_named(own: LiveRow, group: int, number: int, fixed: FixedRow) -> bool:
    """Whether a full block that a live request holds has a name: not all that windows held for a while have one, and of
    states those that steps ended with there."""
    if group == 0 or number < own.hit_blocks:
        return True
    hold = fixed.holds[group]
    if hold.is_state:
        return _is_checkpoint((number + 1) * fixed.unit, own.prompt, own.junction, fixed.state_interval, fixed.unit)
    return _is_window_kept(number, own.prompt, own.junction, fixed.window_interval, hold.most_tokens, fixed.unit)


@part
def beside_bytes(own: LiveRow, num_tokens: int, fixed: FixedRow) -> int:
    """Bytes of a live request with so many tokens beside those of these: its states, less blocks given back."""
    num_bytes = 0
    for group in range(1, fixed.num_groups):
        hold = fixed.holds[group]
        if hold.is_state:
            num_bytes += num_states(own.before, num_tokens, fixed) * hold.block_bytes
        else:
            num_bytes -= left_in(group, own.before, fixed) * hold.block_bytes
    return num_bytes


@part
def num_states(before: int, num_tokens: int, fixed: FixedRow) -> int:
    """States that a request has with so many tokens, and with fewer before its last step: those of different blocks."""
    if num_tokens == 0:
        return 0
    return 1 + int(before > 0 and (before - 1) // fixed.unit < (num_tokens - 1) // fixed.unit)


@part
def next_block(own: LiveRow, held: int, fixed: FixedRow) -> int:
    """The fewest tokens, more than a request holds, with which it takes a block, fills one, or gives one back."""
    rest, event = held % fixed.unit, UNBOUNDED
    event = held + 1 if rest == 0 else held + fixed.unit - rest
    for group in range(1, fixed.num_groups):
        num_left = left_in(group, own.before, fixed)
        event = min(event, max(held + 1, fixed.holds[group].most_tokens + (num_left + 1) * fixed.unit))
    return event
