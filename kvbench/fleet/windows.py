"""Tables of blocks of groups of layers from one pool: those with a window give back what that has left, a step late."""

from kvbench.compiled import part, plain
from kvbench.engine.prefixes import is_window_kept, left_blocks
from kvbench.fleet.rows import LiveRow
from kvbench.fleet.state import FixedRow
from kvbench.timing.prices import UNBOUNDED

_is_window_kept, _left_blocks = plain(is_window_kept), plain(left_blocks)


@part
def block_bytes(group: int, fixed: FixedRow) -> int:
    """Bytes of a block of a group."""
    return fixed.unit * fixed.holds[group].slot_bytes


@part
def left_in(group: int, num_tokens: int, fixed: FixedRow) -> int:
    """Blocks at the front of so many tokens that a group's layers do not look at any more."""
    return _left_blocks(num_tokens, fixed.holds[group].most_tokens, fixed.unit)


@part
def is_named(own: LiveRow, group: int, number: int, fixed: FixedRow) -> bool:
    """Whether a full block that a live request holds has a name: not all that windows held for a while have one."""
    if group == 0 or number < own.hit_blocks:
        return True
    window = fixed.holds[group].most_tokens
    return _is_window_kept(number, own.prompt, own.junction, fixed.window_interval, window, fixed.unit)


@part
def left_bytes(own: LiveRow, fixed: FixedRow) -> int:
    """Bytes of the blocks that a live request has given back."""
    num_bytes = 0
    for group in range(1, fixed.num_groups):
        num_bytes += left_in(group, own.before, fixed) * block_bytes(group, fixed)
    return num_bytes


@part
def next_block(own: LiveRow, held: int, fixed: FixedRow) -> int:
    """The fewest tokens, more than a request holds, with which it takes a block, fills one, or gives one back."""
    rest, event = held % fixed.unit, UNBOUNDED
    event = held + 1 if rest == 0 else held + fixed.unit - rest
    for group in range(1, fixed.num_groups):
        num_left = left_in(group, own.before, fixed)
        event = min(event, max(held + 1, fixed.holds[group].most_tokens + (num_left + 1) * fixed.unit))
    return event
