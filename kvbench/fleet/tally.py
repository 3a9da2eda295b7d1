"""Sums over time, kept for bins of time, so that memory and batch can be drawn; the bins' sums are the run's.

An iteration counts in the bin in which it begins. When time outgrows the bins, each two become one, twice as long.

How many wait is kept by its changes: WAITED, by how much the bin's own sum changes where one begins or ceases to wait
within it, in nanoseconds; WAITING, how many more wait from the bin's beginning on, through all bins to come.
"""

from kvbench.compiled import part
from kvbench.fleet.state import ALLOCATED, BATCH, DURATION, NUM_SUMS, ROUNDED, USED, WAITED, WAITING, WASTED, Machine


@part
def widen(m: Machine, until_ns: int) -> None:
    """Make the bins long enough that they cover a moment."""
    sums = m.sums
    num_bins = sums.shape[0] - 1
    while until_ns >= m.now.bin_ns * num_bins:
        for i in range(num_bins // 2):
            # Who waits from a pair's second bin on waits through half of the pair, and through all from the next one.
            waiting = sums[2 * i, WAITING] + (sums[2 * i - 1, WAITING] if i > 0 else 0.0)
            late = sums[2 * i + 1, WAITING] * m.now.bin_ns
            for j in range(WAITING):
                sums[i, j] = sums[2 * i, j] + sums[2 * i + 1, j]
            sums[i, WAITED] += late
            sums[i, WAITING] = waiting
        sums[num_bins // 2, WAITING] = sums[num_bins, WAITING] + sums[num_bins - 1, WAITING]
        sums[num_bins // 2, :WAITING] = 0.0
        sums[num_bins // 2 + 1 :] = 0.0
        m.now.bin_ns *= 2


@part
def add(m: Machine, duration_ps: float, used: float, allocated: float, batch: float) -> None:
    """Add what was the case in iterations that began in the head's bin; all but the first are times picoseconds."""
    own, first = m.now.head_ns // m.now.bin_ns, m.now.why_waiting * NUM_SUMS
    m.sums[own, first + DURATION] += duration_ps
    m.sums[own, first + USED] += used
    m.sums[own, first + ALLOCATED] += allocated
    m.sums[own, first + WASTED] += duration_ps * m.now.wasted
    m.sums[own, first + ROUNDED] += duration_ps * m.now.rounded
    m.sums[own, first + BATCH] += batch


@part
def _mark(m: Machine, moment_ns: int, num_more: int) -> None:
    """From a moment on, so many more wait."""
    own = moment_ns // m.now.bin_ns
    m.sums[own, WAITED] += num_more * ((own + 1) * m.now.bin_ns - moment_ns)
    m.sums[own + 1, WAITING] += num_more


@part
def add_wait(m: Machine, since_ns: int, until_ns: int) -> None:
    """Add that a request waited, at most until the head."""
    _mark(m, since_ns, 1)
    _mark(m, until_ns, -1)
