"""Train the learned predictor: the first part of a trace trains, the next chooses, the last is never seen."""

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_number
from kvbench.predictor.features import NUM_INPUTS, WINDOW, features, inputs
from kvbench.predictor.network import Adam, Network, new_network, pinball
from kvbench.predictor.recent import Recent
from kvbench.predictor.replay import Examples, replay
from kvbench.predictor.weights import PredictorWeights, described

Matrix = NDArray[np.float64]

TRAIN_SHARE, CHOOSE_SHARE = 0.6, 0.2
LEAST_EXAMPLES = 50
WIDTH = 16
EPOCHS = 30
BATCH = 256
LEAST_BATCHES = 32
"""In an epoch, so that a short trace is not left with too few steps; its batches are smaller."""
RATE = 3e-3


def split(num_examples: int) -> tuple[slice, slice, slice]:
    """Split requests by time: those that train, those that choose, those that are not seen.

    Args:
        num_examples: requests in order of arrival.
    Raises:
        ValueError: there are fewer than 50.
    """
    if num_examples < LEAST_EXAMPLES:
        raise ValueError(f"training needs at least {LEAST_EXAMPLES} requests, got {num_examples}")
    first = int(num_examples * TRAIN_SHARE)
    second = int(num_examples * (TRAIN_SHARE + CHOOSE_SHARE))
    return slice(0, first), slice(first, second), slice(second, num_examples)


def train(examples: Examples, quantile: float, seed: int, trace: str, source: str) -> PredictorWeights:
    """Train on the first part; of all epochs, keep the one with the least loss on the part that chooses.

    Args:
        examples: the whole trace; the last part is not looked at.
        quantile: of the further tokens, above 0, below 1.
        seed: the same seed gives the same weights.
        trace: its name, for the metadata.
        source: where it is from and its licence, for the metadata.
    Returns:
        The weights, rounded to float32 as they are saved.
    Raises:
        ValueError: the quantile is out of its range, or there are too few requests.
    """
    check_number("quantile", quantile, 0, 1, above=True, below=True)
    learning, choosing, unseen = split(len(examples))
    values = _features(examples, choosing.stop)
    seen = values[learning]
    low, high, mean, std = (_rounded(statistic) for statistic in _ranges(seen))
    actual = examples.num_further_tokens[: choosing.stop].astype(np.float64)
    scale = float(_rounded(np.maximum(actual[learning].mean(), 1.0)))
    network, epoch = _fit(inputs(values, low, high, mean, std), actual / scale, learning, choosing, quantile, seed)
    spans = {"train": learning, "choose": choosing, "unseen": unseen}
    about = described(
        quantile,
        trace=trace,
        source=source,
        split={name: [span.start, span.stop] for name, span in spans.items()},
        split_by="arrival",
        seed=seed,
        epoch=epoch,
    )
    return PredictorWeights(low, high, mean, std, Network(*map(_rounded, network.parameters)), scale, about)


def _features(examples: Examples, end: int) -> Matrix:
    recent, rows = Recent(WINDOW), []
    prompts, further = examples.num_prompt_tokens.tolist(), examples.num_further_tokens.tolist()
    replay(
        examples,
        lambda index: rows.append(features(prompts[index], recent)),
        lambda index: recent.add(further[index]),
        end,
    )
    return np.array(rows)


def _ranges(seen: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Least, most, mean and standard deviation of each feature, where it is known; 1 for one that never varies."""
    known = np.where(np.isnan(seen).all(axis=0), 0.0, seen)
    std = np.nanstd(known, axis=0)
    return np.nanmin(known, axis=0), np.nanmax(known, axis=0), np.nanmean(known, axis=0), np.where(std > 0, std, 1.0)


def _fit(x: Matrix, y: Matrix, learning: slice, choosing: slice, quantile: float, seed: int) -> tuple[Network, int]:
    """The best network, and the epoch that it is of."""
    rng = np.random.default_rng(seed)
    network = new_network(NUM_INPUTS, WIDTH, float(np.quantile(y[learning], quantile)), rng)
    num_batches = min(max(learning.stop // BATCH, LEAST_BATCHES), learning.stop)
    adam, best, best_loss, best_epoch = Adam(network), network, np.inf, 0
    for epoch in range(EPOCHS):
        rate = RATE * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2
        order = rng.permutation(learning.stop)
        for batch in np.array_split(order, num_batches):
            adam.step(network.gradients(x[batch], y[batch], quantile), rate)
        loss = pinball(y[choosing], network(x[choosing]), quantile)
        if loss < best_loss:
            best, best_loss, best_epoch = network.copy(), loss, epoch
    return best, best_epoch


def _rounded(array: Matrix) -> Matrix:
    """As float32 holds it, so that weights in memory and on file say the same."""
    return np.asarray(array, dtype=np.float32).astype(np.float64)
