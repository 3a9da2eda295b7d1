"""What the kernel works on: tables of integers, one record a request, a live request, and a replica."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.rows import LiveRow, ServedRow
from kvbench.timing.prices import MOST_SIGHTS, Prices, Sight

NONE = -1
"""No request, no place, not yet."""
FULL, BEFORE, AFTER, REST, AT_ONCE, OF_APPEND = range(6)
"""What a strategy is asked of slots that are too many: see `Turns`."""
TO_COME, TAKEN, OVER = range(3)
"""Decode steps of an iteration: see `ReplicaRow.decode`."""
COPIES_NOTHING, COPIES_EVICTED, COPIES_KEPT = range(3)
"""What an eviction copies: nothing in a ring, as many as leave where holes are filled, or all that stay."""
FOREVER = 2**60
"""In nanoseconds: 36 years, beyond every clock."""

Rule = Callable[[int, int], int]
TurnRule = Callable[[int, int, int, int], int]
Rules = tuple[Rule, Rule, TurnRule]
"""A strategy's: at admission, of growth, and of slots that are too many."""
"""A strategy's decision, of prompt and further tokens, or of capacity and slots required."""

COMPLETED, TOO_LONG, OUT_OF_MEMORY, UNREACHED = range(4)
OUTCOMES = ("completed", "too_long", "out_of_memory", "unreached")
"""How a request ends, by its code, the last where one that it follows did not complete; -1 where it has not."""

CONTIGUOUS, CHUNKS, BLOCKS = range(3)
COUNTING, BUDDY, BEST_FIT = range(3)
SPACES = ("counting", "buddy", "best_fit")
RECOMPUTE, SWAP = range(2)
PREEMPTIONS = ("recompute", "swap")
ROUND_ROBIN, LEAST_LOADED, POWER_OF_TWO, SESSION, PREFIX = range(5)
LOAD_PARTS = 1_000
ROUTINGS = ("round_robin", "least_loaded", "power_of_two", "session", "prefix")

IDLE_QUEUE, FULL_BATCH, NO_MEMORY, COMPUTING = range(4)
"""Why the head of the queue waits in an iteration: nobody does, or the first test that it fails: the batch is full,
memory does not last, or the iteration's chunk of prompts is spent."""
DURATION, USED, ALLOCATED, WASTED, BATCH, ROUNDED = range(6)
"""What is summed over time, in picoseconds: 1, and bytes or requests; of the wasted bytes, those that an allocator
rounded up. The rest follows: reserved bytes are allocated ones less used and wasted ones, free ones the budget's less
allocated ones."""
NUM_CLASSES, NUM_SUMS, MOST_TIERS = 4, 6, 3
WAITED, WAITING = NUM_CLASSES * NUM_SUMS, NUM_CLASSES * NUM_SUMS + 1
"""Columns of the sums behind those, which come by class: see `tally`."""
MOST = WAITING + 1
MOST_USED, MOST_ALLOCATED, MOST_BATCH, MOST_WAITING = range(MOST, MOST + 4)
LOOKED, FOUND = MOST + 4, MOST + 5
FOUND_BELOW, LOADING = MOST + 6, MOST + 6 + MOST_TIERS
NUM_COLUMNS = LOADING + MOST_TIERS
"""And behind them the most, at any time, of what is summed or waits. Then, where an iteration begins that admits them,
tokens of prompts that were looked for, found on the device, and loaded by tier below it; and how long loads from each
took, from the iteration's begin, in picoseconds."""


@dataclass(kw_only=True)
class Counters:
    """What a replica counts, and a fleet's totals have of all replicas.

    Args:
        num_iterations: passes over a replica's live requests.
        num_prompt_tokens: tokens of prompts computed, without those computed again.
        num_decoded_tokens: decode steps.
        num_recomputed_tokens: tokens computed again after preemptions.
        moved_bytes: what was moved to the host's memory, and back.
        num_preemptions: how often a request that had begun gave its memory back.
        num_resizes: storages replaced by larger ones.
        copied_bytes: what was copied by that.
        peak_bytes: the most that one replica held at any time, a resize's second tensor and staging buffers included.
        num_queried_tokens: tokens of prompts that were looked for among blocks of others.
        num_hit_tokens: and that were found, and not computed.
        num_evicted_blocks: blocks with a name that were taken for others.
    """

    num_iterations: int
    num_prompt_tokens: int
    num_decoded_tokens: int
    num_recomputed_tokens: int
    moved_bytes: int
    num_preemptions: int
    num_resizes: int
    copied_bytes: int
    peak_bytes: int
    num_queried_tokens: int
    num_hit_tokens: int
    num_evicted_blocks: int


class ReplicaRow(Counters):
    """A record of a replica: where it is."""

    has_begun: int
    clock_ns: int
    rest_ps: int
    head_ns: int  # when the iteration began
    head_rest_ps: int
    until_ns: int  # it runs until the first iteration that begins then, or later
    idle_ns: int
    admission_ps: int
    spent_ps: int
    counter: int
    next: int
    tail: int
    unseen: int  # the next who has not been told to be in the queue, and the arrival
    unseen_ns: int
    num_queued: int  # who have arrived and never were in
    num_live: int
    num_decoding: int
    num_stacked: int
    num_due: int
    num_coming: int  # whose last block comes, of those whose next event is behind that
    num_ended: int
    num_begun: int
    num_admitted: int
    oldest: int
    youngest: int
    first_new: int
    must_wait: int
    quota: int  # requests that may be admitted in the iteration, as their prompts fit
    has_given_way: int  # whether memory did not last in the iteration: nobody is admitted any more
    num_found: int  # blocks that are there of the head of the queue
    num_named: int  # states that got their names in the iteration
    why_waiting: int
    units: int  # that the next step of all who decode sees, and how many more it then does
    more_units: int
    used: int  # bytes that they use when they have taken it, and how many more they then use
    more_bytes: int
    new_used: int  # bytes that those use whose prompts are computed
    decode: int  # whether the iteration's decode steps are to come, are being taken, or are over
    num_sliding: int  # of those who decode, who let go of a slot a step by copying another
    beside_ps: int  # what the next step of all who decode takes beside, and how much more each does that follows it
    more_beside_ps: int
    wait_ps: int  # how long decode steps of the iteration wait for links, beside prompts, and whether one has read
    mixed_wait_ps: int
    has_read: int
    allocated: int
    wasted: int
    rounded: int
    used_at_end: int  # of the iteration, by all who are live
    used_by_ended: int  # what those held that ended in the iteration: it is theirs until its end
    allocated_by_ended: int
    wasted_by_ended: int
    rounded_by_ended: int
    stepped: int
    units_seen: int  # by those who take a decode step in the iteration
    num_begun_with: int  # who decoded as it began
    num_computed: int  # whose prompts had a step in it
    tokens: int
    most_tokens: int  # of these, those of one prompt in one batch, at most
    prompts_ps: int  # attention of prompts, and the most that one's in one batch takes
    longest_ps: int
    budget_tokens: int  # that the iteration has left for prompts, of those that it had first
    first_tokens: int
    bin_ns: int
    bin: int  # the head's
    bin_end_ns: int
    num_routed: int
    num_finished: int
    num_finished_before: int
    promised: int  # slots that those come to hold who were live as the iteration began, or have come in it
    taken_back: int  # of these, slots of who has let go since
    first_ended: int  # who ended, in that order by `follows`, and whose clients are not told yet
    last_ended: int
    num_ending: int  # who keep what they hold to the iteration's end
    # Of blocks with names, see `prefix.segments`.
    number: int  # of the replica
    segments_at: int  # the address of their table, how many of it were ever used, and the first of those given up
    num_segments: int
    vacant_segment: int
    num_unused: int  # blocks that nobody holds, if none is evicted yet whose room has been taken
    unused_bytes: int  # of the same where groups have tables of their own
    shared_bytes: int  # that several requests use, times those but one
    tiers_at: int  # the address of records of the tiers below the device
    ready_ps: int  # after the iteration's begin, when all is there that is loaded in it
    ahead: int  # whether the iteration's decode steps are taken, and not counted yet


class Hold(NamedTuple):
    """What layers hold that hold equally many tokens.

    Args:
        most_tokens: how many, at most; UNBOUNDED: all.
        slot_bytes: bytes of a token in them.
        is_chunk: 1 where they begin anew with every so many tokens, 0 where they let go of them one by one.
        tensor_bytes: those in the largest tensor that growth replaces; 0 where it replaces none.
        layer_bytes: those in one layer.
        most_blocks: of a prompt that is to fit, where they have a table of their own.
        block_bytes: of a block of it.
        is_state: 1 where a block is a state, which a step leaves at its end and nowhere before.
    """

    most_tokens: int
    slot_bytes: int
    is_chunk: int
    tensor_bytes: int
    layer_bytes: int
    most_blocks: int
    block_bytes: int = 0
    is_state: int = 0


TABLES: dict[str, type] = {"sights": Sight, "holds": Hold}
"""Of a record, what is a table of so many records, and not a whole number."""


class FixedRow(Prices):
    """The record of what does not change, a model's prices among it; it is read as a class of prices is."""

    max_batch: int
    tokens: int  # of an iteration
    chunks: int
    mixes: int
    counts_decode: int
    evicts: int
    num_clients: int  # who wait for their answers; 0: requests arrive at their times, or follow others
    is_awaited: int  # whether somebody is sent when others have ended
    preemption: int
    routing: int
    routing_seed: int
    routing_load: int  # parts in LOAD_PARTS that a block which others hold counts of one that is to be computed
    layout: int
    unit: int
    max_tokens: int
    slot_bytes: int  # as long as all layers hold it
    state_bytes: int  # of a sequence, whatever its length
    slot_units: int  # that it is, as long as all layers see it
    is_bounded: int  # whether some layers hold, or see, the last tokens only
    fixed_bytes: int
    limit_bytes: int
    limit_slots: int
    is_turning: int  # whether slots are reduced: then what follows holds
    copies: int
    unit_parts: int  # of a unit that layers' slots are counted in
    aside_bytes: int  # of a group of so many slots of the area before main
    aside_group: int
    aside_chunk: int  # slots that it grows by; 0 where there is none
    aside_units: int  # of a slot of it
    aside_seen: int  # whether attention reads it
    aside_unit: int  # slots that leave it together
    most_aside: int  # that it holds
    cuts: int  # whether a prompt may come in several steps, so that who came later decodes before
    moved_bytes: int  # as aside_bytes, which are 0 where they are on no device
    way_ps: int  # over a link, what so many bytes take as Prices says; 0 where there is none
    far_ps: int  # and of the area before it
    interval: int  # tokens from one time that all is reduced to the next; 0: after each append
    by_norm: int  # whether all K and V are read for that
    num_pinned: int  # slots of main that never leave, in tensors of their own
    voters: int  # queries of an append that score slots, at most, and whether those of single tokens do
    is_each: int
    score_ps: int  # what scoring a slot takes in a decode step
    slide_ps: int  # and what copying one over another's takes, and holds beside; 0 where nothing is copied
    slide_bytes: int
    is_small_pool: int  # whether the budget has room for another block beside the pool
    space: int
    space_slots: int
    min_block: int
    is_split: int
    is_lazy: int
    max_jump: int
    waits_for_end: int
    fits_prompts: int
    plans_steps: int
    is_asked: int  # whether something is asked of the head of the queue when its turn has come
    shares: int  # whether blocks have names; then what follows holds, addresses of tables among it
    num_replicas: int
    order_at: int  # of what orders blocks that nobody holds; 0: they go as they were let go of
    known_at: int  # of what a router knows of blocks; 0: it sees them
    runs_at: int
    table_at: int
    turns_at: int
    num_tiers: int  # below the device; then what follows holds
    writes_through: int  # whether blocks are stored there as requests let go of them, not as the device drops them
    weighs_loads: int  # whether only what is worth it is loaded, by what computing a token takes
    token_ps: int
    tier_seed: int
    loads_at: int  # the address of what requests have loaded: blocks by tier, and how long it took
    fetches: int  # whether blocks are fetched ahead, and then the address of what is known of that
    fetches_at: int
    num_groups: int  # of layers with tables of blocks of their own, by `holds`; 0 where all share one
    window_interval: int  # tokens between ends of windows whose blocks have names wherever they are
    num_runs: int  # of a group, on all copies
    kept_bytes: int  # of a state, where such are kept: the last group's blocks; 0: none is
    state_interval: int  # tokens between those that are kept wherever they are; 0: none is for that
    num_holds: int
    holds: tuple[Hold, ...]


def _record(row: type, *more: str) -> np.dtype[np.void]:
    """A record has what its row names, each a whole number or one of the TABLES."""
    return np.dtype([_field(name) for name in (*row.__annotations__, *more)])


def _field(name: str) -> tuple[Any, ...]:
    return (name, _record(TABLES[name]), (MOST_SIGHTS,)) if name in TABLES else (name, np.int64)


COUNTERS = tuple(field.name for field in fields(Counters))
REQUEST, LIVE, REPLICA = _record(ServedRow), _record(LiveRow), _record(ReplicaRow, *COUNTERS)
FIXED = _record(FixedRow, *(name for name in Prices._fields if name != "tables"))

Row = TypeVar("Row", covariant=True)


class Records(Protocol[Row]):
    """A table of records, of which compiled code takes one at a time."""

    def __getitem__(self, place: int, /) -> Row:
        """The record at a place, to read and to write."""


class Machine(NamedTuple):
    """All that a replica's part of the kernel sees, which is `referred` to: else every figure in it were passed at
    every call.

    Args:
        requests: REQUEST records of the whole trace.
        now: a REPLICA record.
        live: LIVE records, more than can be live at once.
        sums: float64 [bins + 1, NUM_COLUMNS], see `tally`.
        space: int64 [4, n], an address space's lists, see `space`.
        fixed: a FIXED record: what does not change, alike for all replicas, prices among it.
        tables: int64 [rows, sizes], prices by size: see `Prices.tables`.
        admitted: the strategy's rule at admission.
        grown: and that of growth.
        turned: and that of slots that are too many.
    """

    requests: Records[ServedRow]
    now: ReplicaRow
    live: Records[LiveRow]
    sums: NDArray[np.float64]
    space: NDArray[np.int64]
    fixed: FixedRow
    tables: NDArray[np.int64]
    admitted: Rule
    grown: Rule
    turned: TurnRule


class Tables(NamedTuple):
    """The tables of all replicas: see `Machine`; `replicas` to `space` with a dimension more, the replica. What is to
    be sent when others have ended is in `sends`, clients that are free in `frees`, and who follows whom in `following`,
    a `sends.Following`; `turns` are TURN records of the requests, empty where nobody asks for them, and `homes` is
    where sessions are served, by number. `loads` is what each request has loaded of tiers below the device, [requests,
    MOST_TIERS + 1]: tokens by tier as it was first admitted, and how long all its loads took, in picoseconds; empty
    where there are no tiers. `fetches` is what is fetched ahead for each, FETCH records [requests, MOST_TIERS]; empty
    where nothing is.
    """

    requests: NDArray[np.void]
    replicas: NDArray[np.void]
    live: NDArray[np.void]
    sums: NDArray[np.float64]
    space: NDArray[np.int64]
    fixed: NDArray[np.void]
    prices: NDArray[np.int64]
    sends: NDArray[np.int64]
    frees: NDArray[np.int64]
    following: Any
    turns: NDArray[np.void]
    homes: NDArray[np.int64]
    loads: NDArray[np.int64]
    fetches: NDArray[np.void]
