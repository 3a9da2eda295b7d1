"""The learned predictor against the others, on requests that none of them was trained or chosen on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvbench.predictor.base import Predictor
from kvbench.predictor.learned import Learned
from kvbench.predictor.network import pinball
from kvbench.predictor.past import ConstantPredictor, ExponentialAverage, PastQuantile
from kvbench.predictor.recent import rank
from kvbench.predictor.replay import Examples, predictions
from kvbench.predictor.train import split
from kvbench.predictor.weights import PredictorWeights

ALPHAS = (0.01, 0.03, 0.1, 0.3)
WINDOWS = (16, 64, 256, 1024)


def compare(weights: PredictorWeights, examples: Examples) -> list[dict[str, object]]:
    """Rate every predictor on the unseen part, at the quantile that the weights were trained for.

    Those that learn as they go meet all requests that end before, in every part; their parameter is the one with the
    least loss on the part that chooses. Averages do not aim at a quantile: their loss says what they cost where
    being short costs more, their coverage how often they are.

    Args:
        weights: trained on the first part of the same requests.
        examples: the whole trace.
    Returns:
        Rows as of `rate`, with `predictor` and `parameter`: learned; quantile, average; the mean and the quantile of
        the training part.
    """
    learning, choosing, unseen = split(len(examples))
    quantile = weights.quantile
    past = np.sort(examples.num_further_tokens[learning])
    by_window = [
        (f"history_window={window}", PastQuantile(quantile=quantile, history_window=window)) for window in WINDOWS
    ]
    by_alpha = [(f"alpha={alpha}", ExponentialAverage(alpha=alpha)) for alpha in ALPHAS]
    compared = {
        "learned": ("", Learned(weights=weights)),
        "quantile": _chosen(by_window, examples, choosing, quantile),
        "average": _chosen(by_alpha, examples, choosing, quantile),
        "training mean": ("", ConstantPredictor(num_tokens=int(np.ceil(past.mean())))),
        "training quantile": ("", ConstantPredictor(num_tokens=int(past[rank(quantile, len(past)) - 1]))),
    }
    actual = examples.num_further_tokens[unseen]
    return [
        {"predictor": name, "parameter": parameter} | rate(actual, predictions(predictor, examples, unseen), quantile)
        for name, (parameter, predictor) in compared.items()
    ]


def _chosen(
    candidates: Sequence[tuple[str, Predictor]], examples: Examples, choosing: slice, quantile: float
) -> tuple[str, Predictor]:
    actual = examples.num_further_tokens[choosing]
    return min(candidates, key=lambda named: pinball(actual, predictions(named[1], examples, choosing), quantile))


def rate(actual: NDArray[np.int64], predicted: NDArray[np.int64], quantile: float) -> dict[str, object]:
    """Rate predictions of further tokens.

    Args:
        actual: tokens, one a request, at least one.
        predicted: tokens, one a request.
        quantile: what a token short costs; one too many costs the rest to 1.
    Returns:
        `num_requests`; `pinball_tokens`, the mean pinball loss; `coverage`, the share of requests that the prediction
        was enough for; `waste_tokens` and `short_tokens`, the means of what was too much and of what was wanting.
    """
    over = predicted - actual
    return {
        "num_requests": len(actual),
        "pinball_tokens": pinball(actual, predicted, quantile),
        "coverage": float((over >= 0).mean()),
        "waste_tokens": float(np.maximum(over, 0).mean()),
        "short_tokens": float(np.maximum(-over, 0).mean()),
    }
