"""From the kernel's bins to means over time of each replica."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.fleet.state import ALLOCATED, BATCH, FOUND, LOADING, LOOKED, NUM_CLASSES, NUM_SUMS, WAITED, WAITING
from kvbench.timing.prices import PS_PER_NS

MOST_STRETCHES = 64
"""That a run is told in, of each replica."""
MOST_TOLD = 1_024
"""Replicas of a fleet that are told by themselves, if there are no more."""


class ByReplica(NamedTuple):
    """Load and memory of each replica over time: float64 [replicas, stretches], means as those of `Timeline`; without a
    row where there is one replica, or very many.

    Args:
        stretch_ns: how long each is, the last but its end; the first begins at 0.
        batch: requests that took a step.
        queue: requests that had arrived, or were preempted, and waited to be admitted.
        allocated: bytes set aside.
        looked: tokens of prompts that were looked for among blocks with names, in iterations that begin in it: a sum.
        found: of these, tokens found on the device or loaded from below it.
    """

    stretch_ns: int
    batch: NDArray[np.float64]
    queue: NDArray[np.float64]
    allocated: NDArray[np.float64]
    looked: NDArray[np.float64]
    found: NDArray[np.float64]


def by_replica(sums: NDArray[np.float64], bins_ns: NDArray[np.int64], makespan_ns: int) -> ByReplica:
    """Means and sums over stretches of one length.

    Args:
        sums: [replicas, bins + 1, sums], in picoseconds: see `fleet.tally`.
        bins_ns: the length of each replica's bins; each the least one's double, or that one's, and so on.
        makespan_ns: where it ends.
    """
    bin_ns, num_bins = int(bins_ns.max()), sums.shape[1] - 1
    num_shown = min(makespan_ns // bin_ns + 1, num_bins)
    joined = -(-num_shown // MOST_STRETCHES)
    own_bins = np.minimum(joined, num_shown - np.arange(0, num_shown, joined))
    is_told = 1 < len(sums) <= MOST_TOLD
    found = np.zeros((5, len(sums) * is_told, own_bins.size))
    for replica, own_ns in enumerate(bins_ns.tolist() if is_told else ()):
        own = sums[replica, :-1]
        into = np.minimum(np.arange(num_bins) * own_ns // (bin_ns * joined), own_bins.size - 1)
        by_class = own[:, :WAITED].reshape(num_bins, NUM_CLASSES, NUM_SUMS).sum(axis=1)
        queued = own[:, WAITED] + np.cumsum(own[:, WAITING]) * own_ns
        summed = by_class[:, BATCH], queued * PS_PER_NS, by_class[:, ALLOCATED]
        tokens = own[:, LOOKED], own[:, FOUND:LOADING].sum(axis=1)
        for row, values in enumerate((*summed, *tokens)):
            np.add.at(found[row, replica], into, values)
    means = found[:3] / (own_bins * float(bin_ns) * PS_PER_NS)
    return ByReplica(bin_ns * joined, *means, *found[3:])
