"""Predictors that know past requests' further tokens and nothing of the prompt."""

import math
from dataclasses import dataclass

from kvbench.checks import check_int, check_share
from kvbench.predictor.recent import Recent


@dataclass(kw_only=True, eq=False)
class ConstantPredictor:
    """Always the same: what a predictor has to beat.

    Args:
        num_tokens: further tokens of every request, >= 0.
    """

    num_tokens: int

    def forget(self) -> None:
        """There is nothing to forget."""

    def learn(self, num_prompt_tokens: int, num_further_tokens: int) -> None:
        """There is nothing to learn."""

    def predict(self, num_prompt_tokens: int) -> int:
        """The constant."""
        return self.num_tokens


@dataclass(kw_only=True, eq=False)
class ExponentialAverage:
    """The average of past requests' further tokens, in which each newer request weighs more.

    Args:
        alpha: weight of the newest request, above 0, at most 1; all before it share the rest.
    Raises:
        ValueError: alpha is out of its range.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        self.forget()

    def forget(self) -> None:
        """Forget the average."""
        self._average: float | None = None

    def learn(self, num_prompt_tokens: int, num_further_tokens: int) -> None:
        """Move the average towards the request; the first request is the average."""
        if self._average is None:
            self._average = float(num_further_tokens)
        else:
            self._average += self.alpha * (num_further_tokens - self._average)

    def predict(self, num_prompt_tokens: int) -> int | None:
        """The average, rounded up."""
        return None if self._average is None else math.ceil(self._average)


@dataclass(kw_only=True, eq=False)
class PastQuantile:
    """A quantile of the last requests' further tokens: the least of them that so large a share does not exceed.

    Args:
        quantile: the share, above 0, at most 1.
        history_window: requests remembered, > 0.
    Raises:
        ValueError: a number is out of its range.
    """

    quantile: float = 0.9
    history_window: int = 256

    def __post_init__(self) -> None:
        check_share("quantile", self.quantile)
        check_int("history_window", self.history_window, 1)
        self.forget()

    def forget(self) -> None:
        """Forget the requests."""
        self._recent = Recent(self.history_window)

    def learn(self, num_prompt_tokens: int, num_further_tokens: int) -> None:
        """Remember the request."""
        self._recent.add(num_further_tokens)

    def predict(self, num_prompt_tokens: int) -> int | None:
        """The quantile."""
        return self._recent.quantile(self.quantile) if len(self._recent) else None
