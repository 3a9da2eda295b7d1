"""A network with one hidden layer, and its training by stochastic gradients of the pinball loss."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

DECAYS = (0.9, 0.999)
EPSILON = 1e-8


def pinball(actual: Matrix | NDArray[np.int64], predicted: Matrix | NDArray[np.int64], quantile: float) -> float:
    """Mean pinball loss: a token short costs quantile, a token too many 1 − quantile. The quantile itself is best.

    Args:
        actual: one a request.
        predicted: one a request.
        quantile: above 0, below 1.
    Returns:
        The mean over requests, in the unit of what is predicted.
    Source: Koenker and Bassett, Regression quantiles, Econometrica 46 (1978), section 3.
    """
    missing = np.asarray(actual, dtype=np.float64) - predicted
    return float(np.maximum(quantile * missing, (quantile - 1) * missing).mean())


@dataclass(frozen=True)
class Network:
    """relu(x · hidden_weight + hidden_bias) · output_weight + output_bias.

    Args:
        hidden_weight: [num_inputs, width].
        hidden_bias: [width].
        output_weight: [width].
        output_bias: [1].
    """

    hidden_weight: Matrix
    hidden_bias: Matrix
    output_weight: Matrix
    output_bias: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """The output for each row of x: [num_rows, num_inputs] to [num_rows]."""
        return self._hidden(x) @ self.output_weight + self.output_bias

    def _hidden(self, x: Matrix) -> Matrix:
        return np.maximum(x @ self.hidden_weight + self.hidden_bias, 0.0)

    def gradients(self, x: Matrix, y: Matrix, quantile: float) -> list[Matrix]:
        """Gradients of the mean pinball loss, in the order of the parameters."""
        hidden = self._hidden(x)
        slope = np.where(y > hidden @ self.output_weight + self.output_bias, -quantile, 1 - quantile) / len(y)
        back = slope[:, None] * self.output_weight * (hidden > 0)
        return [x.T @ back, back.sum(axis=0), hidden.T @ slope, slope.sum(keepdims=True)]

    @property
    def parameters(self) -> list[Matrix]:
        """Its arrays, in the order of the constructor."""
        return [self.hidden_weight, self.hidden_bias, self.output_weight, self.output_bias]

    def copy(self) -> "Network":
        """The network as it is now; training goes on without it."""
        return Network(*(parameter.copy() for parameter in self.parameters))


def new_network(num_inputs: int, width: int, first_output: float, rng: np.random.Generator) -> Network:
    """A network that answers about first_output whatever it is asked.

    Source: He et al. 2015, arXiv:1502.01852, for the hidden layer's spread.
    """
    return Network(
        rng.normal(0.0, np.sqrt(2.0 / num_inputs), (num_inputs, width)),
        np.zeros(width),
        rng.normal(0.0, 0.1 / np.sqrt(width), width),
        np.full(1, first_output),
    )


class Adam:
    """Adam's steps, in place.

    Args:
        network: what is trained.
    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    Departs: none.
    """

    def __init__(self, network: Network) -> None:
        self._parameters = network.parameters
        self._means = [np.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [np.zeros_like(parameter) for parameter in self._parameters]
        self._num_steps = 0

    def step(self, gradients: list[Matrix], rate: float) -> None:
        """Move every parameter against its gradient."""
        self._num_steps += 1
        keep_mean, keep_square = DECAYS
        whole_mean, whole_square = 1 - keep_mean**self._num_steps, 1 - keep_square**self._num_steps
        for parameter, mean, square, gradient in zip(
            self._parameters, self._means, self._squares, gradients, strict=True
        ):
            mean += (1 - keep_mean) * (gradient - mean)
            square += (1 - keep_square) * (gradient**2 - square)
            parameter -= rate * (mean / whole_mean) / (np.sqrt(square / whole_square) + EPSILON)
