"""What the kernel works on: tables of integers, one record a request, a live request, and a replica."""

from typing import NamedTuple

import numpy as np

from kvbench.model.cost import Prices

NONE = -1
"""No request, no place, not yet."""
FOREVER = 2**60
"""In nanoseconds: 36 years, beyond every clock."""
UNBOUNDED = 2**62

COMPLETED, TOO_LONG, OUT_OF_MEMORY = range(3)
OUTCOMES = ("completed", "too_long", "out_of_memory")
"""How a request ends, by its code; -1 where it has not."""

CONTIGUOUS, CHUNKS, BLOCKS = range(3)
COUNTING, BUDDY, BEST_FIT = range(3)
SPACES = ("counting", "buddy", "best_fit")
RECOMPUTE, SWAP = range(2)
PREEMPTIONS = ("recompute", "swap")
ROUND_ROBIN, LEAST_LOADED = range(2)
ROUTINGS = ("round_robin", "least_loaded")

IDLE_QUEUE, FULL_BATCH, NO_MEMORY, COMPUTING = range(4)
"""Why the head of the queue waits in an iteration: nobody does, or the first test that it fails: the batch is full,
memory does not last, or the iteration's chunk of prompts is spent."""
DURATION, USED, ALLOCATED, WASTED, BATCH, ROUNDED = range(6)
"""What is summed over time, in picoseconds: 1, and slots or requests; of the wasted slots, those that an allocator
rounded up. The rest follows: reserved slots are allocated ones less used and wasted ones, free ones the budget's less
allocated ones."""
NUM_CLASSES, NUM_SUMS = 4, 6
WAITED, WAITING = NUM_CLASSES * NUM_SUMS, NUM_CLASSES * NUM_SUMS + 1
"""Columns of the sums behind those, which come by class: see `tally`."""
MOST = WAITING + 1
MOST_USED, MOST_ALLOCATED, MOST_BATCH, MOST_WAITING = range(MOST, MOST + 4)
NUM_COLUMNS = MOST + 4
"""And behind them the most, at any time, of what is summed or waits."""


def _record(*names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names])


REQUEST = _record(
    "arrival_ns",
    "prompt",
    "output",
    "follows",  # the next request of its replica
    "admitted_ns",
    "first_token_ns",
    "finish_ns",
    "num_preemptions",
    "outcome",
    "finish_order",
    "held",
    "replica",
)
LIVE = _record(
    "request",
    "prompt",
    "final",
    "held",  # tokens, while the prompt is computed; then they are origin + the replica's counter of steps
    "origin",
    "saved",  # tokens to compute again, or to fetch, before anything else
    "capacity",
    "taken",  # slots set aside; more than capacity where an allocator rounds
    "place",
    "waste",
    "key",  # the step at which something happens to it
    "position",  # in the heap
    "has_stepped",
    "older",
    "younger",
    "arrived",  # in order of admission
    # From here on, tables of their own, as long as this one.
    "heap",
    "due",
    "ended",
    "begun",
    "vacant",
    "stacked",
    "stacked_held",
    "stacked_since_ns",
    "growing",  # sequences of blocks, by the step modulo a block's size at which they take another
)
REPLICA = _record(
    "has_begun",
    "clock_ns",
    "rest_ps",
    "head_ns",  # when the iteration began
    "head_rest_ps",
    "until_ns",  # it runs until the first iteration that begins then, or later
    "idle_ns",
    "admission_ps",
    "spent_ps",
    "counter",
    "next",
    "tail",
    "unseen",  # the next who has not been told to be in the queue, and the arrival
    "unseen_ns",
    "num_queued",  # who have arrived and never were in
    "num_live",
    "num_decoding",
    "num_stacked",
    "num_due",
    "num_ended",
    "num_begun",
    "num_admitted",
    "oldest",
    "youngest",
    "first_new",
    "must_wait",
    "quota",  # requests that may be admitted in the iteration, as their prompts fit
    "has_given_way",
    "why_waiting",
    "origin_sum",
    "new_held",
    "allocated",
    "wasted",
    "rounded",
    "used_by_ended",  # what those held that ended in the iteration: it is theirs until its end
    "allocated_by_ended",
    "wasted_by_ended",
    "rounded_by_ended",
    "stepped",
    "context",
    "tokens",
    "budget_tokens",
    "bin_ns",
    "bin",  # the head's
    "bin_end_ns",
    "num_routed",
    "num_finished",
    "num_finished_before",
    "num_iterations",
    "num_prompt_tokens",
    "num_decoded_tokens",
    "num_recomputed_tokens",
    "num_swapped_tokens",
    "num_preemptions",
    "num_resizes",
    "num_copied_tokens",
    "peak_bytes",
)


FIXED = _record(
    "max_batch",
    "chunk_tokens",
    "preemption",
    "routing",
    "layout",
    "unit",
    "max_tokens",
    "slot_bytes",
    "tensor_bytes",  # of those, in the largest tensor, where growth copies; else 0
    "fixed_bytes",
    "limit_bytes",
    "limit_slots",
    "is_small_pool",  # whether the budget has room for another block beside the pool
    "space",
    "space_slots",
    "min_block",
    "is_split",
    "is_lazy",
    "max_jump",
    *Prices._fields,
)


class Machine(NamedTuple):
    """All that a replica's part of the kernel sees. Every figure in it is passed at every call, so they are few.

    Args:
        requests: REQUEST records of the whole trace.
        now: a REPLICA record.
        live: LIVE records, more than can be live at once.
        sums: float64 [bins + 1, NUM_COLUMNS], see `tally`.
        space: int64 [4, n], an address space's lists, see `space`.
        fixed: a FIXED record: what does not change, alike for all replicas, prices among it.
        admitted: the strategy's rule at admission.
        grown: and that of growth.
    """

    requests: object
    now: object
    live: object
    sums: object
    space: object
    fixed: object
    admitted: object
    grown: object


class Tables(NamedTuple):
    """The tables of all replicas: see `Machine`; all but the first and last with a dimension more, the replica."""

    requests: object
    replicas: object
    live: object
    sums: object
    space: object
    fixed: object
