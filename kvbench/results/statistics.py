"""Statistics of samples and of repetitions."""

import math
from collections.abc import Sequence

import numpy as np

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
SAMPLES_BEYOND = 10

# Student's t, two-sided 95 %, by degrees of freedom from 1; beyond the table the normal's 1.960 is within 2 %.
_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL_95 = 1.960


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


def confidence_half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean: t · s / √n; NaN under two finite values.

    Args:
        values: one a repetition.
    """
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    if len(finite) < 2:  # noqa: PLR2004
        return math.nan
    quantile = _T_95[len(finite) - 2] if len(finite) - 2 < len(_T_95) else _NORMAL_95
    return float(quantile * finite.std(ddof=1) / math.sqrt(len(finite)))
