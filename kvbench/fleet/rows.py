"""Records of requests: what becomes of each, and what a live one holds."""

from typing import Protocol


class ServedRow(Protocol):
    """A record of a request: what becomes of it."""

    arrival_ns: int
    prompt: int
    output: int
    follows: int  # the next request of its replica
    admitted_ns: int
    first_token_ns: int
    finish_ns: int
    num_preemptions: int
    outcome: int
    finish_order: int
    held: int
    replica: int


class LiveRow(Protocol):
    """A record of a live request, and a row of tables that are as long."""

    request: int
    prompt: int
    final: int
    held: int  # tokens, while the prompt is computed; then they are origin + the replica's counter of steps
    origin: int
    saved: int  # tokens to compute again, or to fetch, before anything else
    capacity: int
    taken: int  # slots set aside; more than capacity where an allocator rounds
    place: int
    waste: int  # bytes set aside that no token will fill
    # Of strategies that reduce slots: tokens that are not in the area main, slots in use there at most while each new
    # token takes another's, slots of the area before it, and of the one before that, tokens when several last came at
    # once, and whether what was to follow attention found no memory.
    away: int
    most: int
    aside: int
    far: int
    pass_at: int  # tokens at which all that is held is next reduced, where that is not after each append
    gone: int  # slots at the front of the area before main that have left a chunk of others
    several: int
    is_pending: int
    slides: int  # whether each step copies a slot over that of one that is evicted
    more_units: int  # how many units more the next step sees, and how many bytes more are used, while it decodes
    more_bytes: int
    key: int  # the step at which something happens to it
    last: int  # the step at which its last block comes, where that is the next thing that happens
    position: int  # in the heap
    has_stepped: int
    older: int
    younger: int
    arrived: int  # in order of admission
    open: int  # of blocks with names: the segment that it fills, and how many of its first ones it found
    hit_blocks: int
    before: int  # of tables by group: tokens that it held as windows last gave back what they had left
    junction: int  # and tokens that others begin with, too, where not all that it needs of them to go on was there; 0
    # From here on, tables of their own, as long as this one.
    heap: int
    due: int
    ended: int
    begun: int
    vacant: int
    stacked: int
    stacked_held: int
    stacked_since_ns: int
    coming: int
    growing: int  # sequences of blocks, by the step modulo a block's size at which they take another
    ending: int  # who ends with the iteration
    named: int  # states that got their names in the iteration, see `prefix.states`
