"""Times, summed up in no more memory than a histogram's: what `statistics` says of samples, to half a percent."""

import math

import numpy as np

from kvbench.results.statistics import PERCENTILES, has_percentile, statistic

RATIO = 1.01
"""Of a bin's ends; a bin's middle is within half a percent of what is in it."""
LEAST = 2.0**-75
"""The lower end of the first bin; nothing that is positive in a fleet is less, in seconds."""
NUM_BINS = math.ceil(math.log(2.0**31 / LEAST) / math.log(RATIO))
PRECISION = "percentiles within 0.5 %"


class SampleList:
    """Samples themselves, for exact statistics."""

    def __init__(self) -> None:
        self._samples = np.zeros(0)

    def add(self, samples: np.ndarray) -> None:
        """Add finite numbers."""
        self._samples = np.append(self._samples, samples) if self._samples.size else samples

    def statistic(self, name: str) -> float:
        """Mean, maximum or a percentile."""
        return statistic(self._samples, name)


class Histogram:
    """Counts of samples by size: the mean and the maximum are exact, a percentile within half a percent."""

    def __init__(self) -> None:
        self._counts = np.zeros(NUM_BINS + 1, np.int64)  # the first: of nothing
        self._sum, self._least, self._most = 0.0, math.inf, 0.0

    def add(self, samples: np.ndarray) -> None:
        """Add numbers from 0 to 2^31."""
        if not samples.size:
            return
        with np.errstate(divide="ignore"):
            places = np.log(samples / LEAST) / math.log(RATIO)
        bins = np.clip(np.where(samples > 0, places, -1.0).astype(np.int64) + 1, 0, NUM_BINS)
        self._counts += np.bincount(bins, minlength=NUM_BINS + 1)
        self._sum += float(samples.sum())
        self._least = min(self._least, float(samples.min()))
        self._most = max(self._most, float(samples.max()))

    def statistic(self, name: str) -> float:
        """Mean, maximum or a percentile, by the rules of `statistics.statistic`."""
        num_samples = int(self._counts.sum())
        if num_samples == 0:
            return math.nan
        if name == "mean":
            return self._sum / num_samples
        if name == "max":
            return self._most
        if not has_percentile(num_samples, name):
            return math.nan
        rank = (num_samples - 1) * PERCENTILES[name] / 100
        below, above = self._at(math.floor(rank)), self._at(math.ceil(rank))
        return below + (above - below) * (rank - math.floor(rank))

    def _at(self, rank: int) -> float:
        """The sample of a rank from 0, about."""
        number = int(np.searchsorted(np.cumsum(self._counts), rank, side="right"))
        middle = LEAST * RATIO ** (number - 0.5) if number else 0.0
        return min(max(middle, self._least), self._most)
