"""The learned predictor: a quantile of further tokens, given the prompt's length and the last requests."""

import math
from dataclasses import dataclass

import numpy as np

from kvbench.predictor.features import WINDOW, features
from kvbench.predictor.recent import Recent
from kvbench.predictor.weights import PredictorWeights


@dataclass(kw_only=True, eq=False)
class Learned:
    """Asks a trained network. With no completed request yet, it goes by the prompt alone.

    Args:
        weights: the network and what it was trained for.
    """

    weights: PredictorWeights

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the requests; what was trained stays."""
        self._recent = Recent(WINDOW)

    def learn(self, num_prompt_tokens: int, num_further_tokens: int) -> None:
        """Remember the request; the weights do not change."""
        self._recent.add(num_further_tokens)

    def predict(self, num_prompt_tokens: int) -> int:
        """The network's answer, rounded up, never below 0."""
        answer = self.weights.predict(np.array([features(num_prompt_tokens, self._recent)]))
        return max(math.ceil(float(answer[0])), 0)
