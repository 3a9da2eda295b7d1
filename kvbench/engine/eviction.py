"""Which blocks that nobody holds go first, where others need their room, as plain functions of integers."""

LRU, FIFO, LFU, SESSION, OPTIMAL = range(5)
EVICTIONS = ("lru", "fifo", "lfu", "session", "optimal")
NEVER = 2**60
"""The request that needs again what none does: later than all."""


def eviction_rank(eviction: int, maker: int, num_found: int, goes_on: int, next_use: int) -> int:
    """Of blocks that nobody holds, and that have none of these behind them, the one of the least rank goes first.

    Of equal ones it is the one that was let go of first.

    Args:
        eviction: the policy's place in EVICTIONS.
        maker: when the request was admitted that computed the block, among all that were.
        num_found: how often the block was found by others.
        goes_on: whether the session of the last request that held it has another turn to come.
        next_use: the next request, in the order of them all, whose prompt has the block; NEVER: there is none.
    Source: Belady 1966 (optimal).
    """
    if eviction == FIFO:
        return maker
    if eviction == LFU:
        return num_found
    if eviction == SESSION:
        return goes_on
    if eviction == OPTIMAL:
        return -next_use
    return 0
