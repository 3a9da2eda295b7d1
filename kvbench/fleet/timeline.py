"""From the kernel's bins to means over time."""

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.result import Timeline, wasted_bytes
from kvbench.fleet.state import (
    ALLOCATED,
    BATCH,
    DURATION,
    FOUND,
    FOUND_BELOW,
    LOADING,
    LOOKED,
    MOST,
    MOST_ALLOCATED,
    MOST_BATCH,
    MOST_USED,
    MOST_WAITING,
    NO_MEMORY,
    NUM_CLASSES,
    NUM_SUMS,
    USED,
    WAITED,
    WAITING,
    WASTED,
)
from kvbench.timing.prices import PS_PER_NS


def timeline_of(
    sums: NDArray[np.float64], bins_ns: NDArray[np.int64], makespan_ns: int, limit_bytes: int, is_split: bool
) -> tuple[Timeline, NDArray[np.float64]]:
    """Means over bins of one length, and the sums of all bins, both of all replicas together.

    Args:
        sums: [replicas, bins + 1, sums], in picoseconds: see `fleet.tally`.
        bins_ns: the length of each replica's bins; each the least one's double, or that one's, and so on.
        makespan_ns: where it ends.
        limit_bytes: what caches may take, of a replica.
        is_split: whether reserved slots and internal waste were told apart.
    Returns:
        The timeline; and [why waiting, what] sums in picoseconds.
    """
    bin_ns = int(bins_ns.max())
    num_bins = sums.shape[1] - 1
    total = np.zeros((num_bins, NUM_CLASSES * NUM_SUMS))
    queued = np.zeros(num_bins)
    most, looked = np.zeros((num_bins, LOOKED - MOST)), np.zeros((num_bins, sums.shape[2] - LOOKED))
    for own, own_ns in zip(sums[:, :-1], bins_ns.tolist(), strict=True):
        # A replica that is idle while another is busy for long may have bins that are very much shorter.
        into = np.arange(num_bins) * own_ns // bin_ns
        np.add.at(total, into, own[:, :WAITED])
        own_most = np.zeros_like(most)
        np.maximum.at(own_most, into, own[:, MOST:LOOKED])
        np.add.at(looked, into, own[:, LOOKED:])
        most += own_most
        np.add.at(queued, into, own[:, WAITED] + np.cumsum(own[:, WAITING]) * own_ns)
    num_shown = min(makespan_ns // bin_ns + 1, num_bins)
    total = total.reshape(num_bins, NUM_CLASSES, NUM_SUMS)
    means = total[:num_shown] / (bin_ns * PS_PER_NS)
    every, blocked = means.sum(axis=1), means[:, NO_MEMORY]
    most_used, most_allocated, most_batch, most_queue = (
        most[:num_shown, column - MOST] for column in (MOST_USED, MOST_ALLOCATED, MOST_BATCH, MOST_WAITING)
    )
    # No mean is above the most, and no part below nothing, by what sums of floats lose.
    allocated = np.minimum(every[:, ALLOCATED], most_allocated)
    used = np.minimum(every[:, USED], most_used)
    wasted = wasted_bytes(used, allocated, every[:, WASTED], is_split)
    blocked_free = np.minimum(
        limit_bytes * blocked[:, DURATION] - blocked[:, ALLOCATED], limit_bytes * len(sums) - allocated
    )
    timeline = Timeline(
        bin_ns=bin_ns,
        used=used,
        allocated=allocated,
        reserved=np.maximum(allocated - used - wasted, 0.0),
        internal_waste=wasted,
        blocked_free=np.maximum(blocked_free, 0.0),
        batch=np.minimum(every[:, BATCH], most_batch),
        busy=every[:, DURATION],
        queue=np.minimum(queued[:num_shown] / bin_ns, most_queue),
        most_used=most_used,
        most_allocated=most_allocated,
        most_batch=most_batch,
        most_queue=most_queue,
        looked=looked[:num_shown, 0],
        found=looked[:num_shown, FOUND - LOOKED],
        found_below=looked[:num_shown, FOUND_BELOW - LOOKED : LOADING - LOOKED].T,
        loads=looked[:num_shown, LOADING - LOOKED :].T / (bin_ns * PS_PER_NS),
    )
    return timeline, total.sum(axis=0)
