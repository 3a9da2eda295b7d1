"""Tiers below the device, which keep copies of named blocks: the rules that are plain functions of integers.

A replica's tiers are host, disk and remote store, in this order, as many as have bytes. A tier of n blocks is a set of
names, least recently used first. Storing a block that is there makes it the newest; another is put in as the newest,
and beyond n the oldest leaves, to be stored in the next tier below in the same way, or for good. Nothing else changes
an order: a load does not. Several blocks are stored the deepest first, so that those before them outlive them.

Blocks are stored in the first tier: by `THROUGH` all named blocks of a request when it lets go of them, at its end or
preempted, whoever else holds them; by `EVICTION` a block that the device drops, as it goes.

At admission, behind the blocks that the device has, each block that can be taken over (`most_hit_blocks`) is looked for
in the first tier that has it, up to the first block that none has. Stretches of blocks of one tier are loaded one after
another, each a transfer: all of them, or as long as one `is_worth` it. What is looked up is as it is before anything
goes for it: room is made after, and what leaves a tier by that is loaded all the same. Loaded blocks are the device's
new ones, have their names at once, and are not computed.

With `prefetch` blocks are fetched ahead for a request that joins the queue: those behind what the device and the first
tier then have together, as far as the tiers below have them, each over the link of the first of these that has it.
Requests come one after another, as they joined. At its admission what has come of its blocks is used: it is stored in
the first tier, before anything else is looked for, and the rest is left where it is. Nothing is stored before, what
has come behind a gap is lost, and so is all where the first tier no longer has what was before it.

A link is each tier's and each replica's own, and loads do not wait for what is written. An iteration that admits with
loads ends no earlier than the last of them is ready (`ready_ps`), so that a link is free again whenever one begins: its
queue is of one iteration, counted from the iteration's begin, which is before anybody is admitted to it. Loads go
first: what is fetched ahead goes on when they have passed (`spare_ns`).
"""

from math import exp
from statistics import NormalDist

BELOW = HOST, DISK, REMOTE = "host", "disk", "remote"
"""Tiers, the next below the device first."""
TIER_WRITES = THROUGH, EVICTION = "through", "eviction"
TIER_LOADS = ALWAYS, COST = "always", "cost"
DRAWS = 1_024
"""Latencies that one is drawn from."""
_PS_PER_NS, _LONGEST_NS = 1_000, 9 * 10**15
_PRIME, _FIRST, _SECOND, _BITS = 2**31 - 1, 48_271, 69_621, 15


def tier_blocks(tier_bytes: int, block_bytes: int) -> int:
    """Blocks that a tier holds."""
    return tier_bytes // block_bytes


def busy_until_ps(free_ps: int, begin_ps: int, num_blocks: int, block_ps: int) -> int:
    """When a link is free again that is given so many blocks more to load.

    Args:
        free_ps: when it is free of those before.
        begin_ps: when it is given them.
        num_blocks: of one transfer.
        block_ps: that each takes on it.
    """
    return max(free_ps, begin_ps) + num_blocks * block_ps


def ready_ps(busy_until: int, latency_ps: int) -> int:
    """When the blocks of a transfer are on the device: what does not queue passes behind its time on the link."""
    return busy_until + latency_ps


def spare_ns(moment_ns: int, loading_ns: int) -> int:
    """How long a link had nothing to load by a moment, between iterations.

    Args:
        moment_ns: the clock.
        loading_ns: that it loaded before, each iteration's loads up to a whole nanosecond.
    """
    return moment_ns - loading_ns


def num_come(start_ns: int, now_ns: int, latency_ps: int, block_ps: int, num_blocks: int) -> int:
    """Blocks of those that are fetched ahead that have come.

    Args:
        start_ns: when the link began with them, of `spare_ns`.
        now_ns: of the same.
        latency_ps: of a transfer, as it is in the middle where it varies.
        block_ps: that each takes on the link.
        num_blocks: how many are to come.
    """
    spent_ps = min(now_ns - start_ns, _LONGEST_NS) * _PS_PER_NS - latency_ps
    return min(max(spent_ps, 0) // block_ps, num_blocks)


def free_again_ns(start_ns: int, now_ns: int, block_ps: int, num_blocks: int) -> int:
    """When a link is free of those that it fetches ahead: when all have passed, or they are no longer waited for."""
    return min(start_ns + -(-num_blocks * block_ps // _PS_PER_NS), now_ns)


def is_worth(wait_ps: int, latency_ps: int, num_blocks: int, block_ps: int, block_tokens: int, token_ps: int) -> bool:
    """Whether loading blocks takes no longer than computing their tokens.

    Args:
        wait_ps: until the link begins with them.
        latency_ps: of a transfer, as it is in the middle where it varies.
        num_blocks: of one transfer.
        block_ps: that each takes on the link.
        block_tokens: tokens of a block.
        token_ps: that computing a token more takes: a model's figure on a machine, see `timing.links.token_ps`.
    """
    return wait_ps + latency_ps + num_blocks * block_ps <= num_blocks * block_tokens * token_ps


def drawn(seed: int, replica: int, transfer: int) -> int:
    """Which of DRAWS latencies a transfer has, by a run's seed and its number among the replica's of that tier."""
    state = (seed % _PRIME + replica * _SECOND + transfer + 1) % _PRIME * _FIRST % _PRIME
    state = (state ^ (state >> _BITS)) * _SECOND % _PRIME
    return (state ^ (state >> _BITS)) % DRAWS


def latencies_ps(fixed_ps: int, varying_ps: int, spread: float) -> tuple[int, ...]:
    """Latencies that one is drawn from: a fixed part, and one with a lognormal factor, at the middles of DRAWS shares.

    Args:
        fixed_ps: of every transfer.
        varying_ps: the median of the other part.
        spread: standard deviation of its logarithm; 0: it does not vary.
    """
    normal = NormalDist()
    factors = (exp(spread * normal.inv_cdf((number + 0.5) / DRAWS)) for number in range(DRAWS))
    return tuple(fixed_ps + round(varying_ps * factor) for factor in factors)
