"""Statistics of samples."""

import math

import numpy as np

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
SAMPLES_BEYOND = 10


def percentile(samples: np.ndarray, name: str) -> float:
    """A percentile, or NaN where fewer than ten samples lie beyond it.

    Args:
        samples: finite numbers.
        name: p50, p90 or p99.
    """
    return float(np.percentile(samples, PERCENTILES[name])) if has_percentile(len(samples), name) else math.nan


def has_percentile(num_samples: int, name: str) -> bool:
    """Whether at least ten of so many samples lie beyond a percentile."""
    return num_samples * (100 - PERCENTILES[name]) >= 100 * SAMPLES_BEYOND


def statistic(samples: np.ndarray, name: str) -> float:
    """Mean, maximum or a percentile; NaN of no samples."""
    if len(samples) == 0:
        return math.nan
    match name:
        case "mean":
            return float(samples.mean())
        case "max":
            return float(samples.max())
        case _:
            return percentile(samples, name)
