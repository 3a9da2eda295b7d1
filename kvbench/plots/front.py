"""Which points of a trade-off no other point beats."""

import numpy as np


def pareto_front(cost: np.ndarray, other_cost: np.ndarray) -> np.ndarray:
    """Whether each point is on the front: no other is at most as costly in both and cheaper in one.

    Args:
        cost: one cost, smaller is better.
        other_cost: the other, of the same points. A point with a NaN in either is on no front.
    Returns:
        A mask over the points.
    """
    a, b = np.asarray(cost, dtype=float), np.asarray(other_cost, dtype=float)
    no_worse = (a[:, None] <= a) & (b[:, None] <= b)
    better = (a[:, None] < a) | (b[:, None] < b)
    return ~(no_worse & better).any(axis=0) & np.isfinite(a) & np.isfinite(b)
