"""What the learned predictor knows of a request when it is admitted, as numbers."""

import math

import numpy as np
from numpy.typing import NDArray

from kvbench.predictor.recent import Recent

Matrix = NDArray[np.float64]

WINDOW = 64
"""Completed requests that the features look back on."""

FEATURES = ("log2_prompt", "log2_recent_mean", "log2_recent_median", "log2_recent_p90", "recent_dispersion")
KNOTS = np.arange(0.0, 15.5, 0.5)
"""Two to each doubling of the prompt, from 1 token to 32,768."""

NUM_INPUTS = len(FEATURES) + len(KNOTS)


def features(num_prompt_tokens: int, recent: Recent) -> list[float]:
    """The features of one request, in the order of FEATURES; NaN for what no completed request tells yet.

    Args:
        num_prompt_tokens: tokens of its first prompt, > 0.
        recent: further tokens of the requests completed before.
    Returns:
        log2 of the prompt; log2(1 + tokens) of mean, median and 0.9 quantile; standard deviation ÷ mean.
    """
    prompt = math.log2(num_prompt_tokens)
    if not len(recent):
        return [prompt, *[math.nan] * (len(FEATURES) - 1)]
    mean = recent.mean()
    sizes = (math.log2(1 + tokens) for tokens in (mean, recent.quantile(0.5), recent.quantile(0.9)))
    return [prompt, *sizes, recent.deviation() / max(mean, 1.0)]


def inputs(values: Matrix, low: Matrix, high: Matrix, mean: Matrix, std: Matrix) -> Matrix:
    """What the network reads: features within the range of training, standardised, and the prompt's place among knots.

    Beyond what training saw a network says anything at all, so that each feature is held to the range it was seen in.

    Args:
        values: [num_requests, num_features], NaN where unknown.
        low: [num_features], the least of training.
        high: [num_features], the most of training.
        mean: [num_features], taken for what is unknown.
        std: [num_features], > 0.
    Returns:
        [num_requests, num_inputs].
    """
    known = np.clip(np.where(np.isnan(values), mean, values), low, high)
    return np.concatenate([(known - mean) / std, _hats(known[:, 0])], axis=1)


def _hats(values: Matrix) -> Matrix:
    """Piecewise linear in the prompt: at a knot its own weight is 1, between two they share it."""
    away = np.abs(np.clip(values, KNOTS[0], KNOTS[-1])[:, None] - KNOTS) / (KNOTS[1] - KNOTS[0])
    hats: Matrix = np.maximum(0.0, 1.0 - away)
    return hats
