"""What every predictor can do."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Predictor(Protocol):
    """Predicts a request's further tokens when it is admitted, and learns from requests that were completed."""

    def forget(self) -> None:
        """Forget every request, as if newly made."""
        ...

    def learn(self, num_prompt_tokens: int, num_further_tokens: int) -> None:
        """Take in a completed request."""
        ...

    def predict(self, num_prompt_tokens: int) -> int | None:
        """The further tokens of a request with such a first prompt; None where there is nothing to go by yet."""
        ...
