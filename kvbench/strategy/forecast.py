"""Forecasts: reserve at admission what the request is predicted to hold at its end."""

from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve
from kvbench.predictor.base import Predictor
from kvbench.predictor.learned import Learned
from kvbench.predictor.past import ExponentialAverage, PastQuantile
from kvbench.predictor.replay import further_tokens
from kvbench.predictor.weights import find_weights, load_weights
from kvbench.strategy.base import derived, rounded_up
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Session


def forecast_capacity(num_prompt: int, num_total: int, round_to: int, max_capacity: int, room: int) -> int:
    """How much to reserve: the predicted end, rounded up, within the room; the prompt in any case, within the maximum.

    Args:
        num_prompt: tokens of the first prompt, > 0.
        num_total: tokens predicted to be held at the end.
        round_to: the result is a multiple of this, unless room, prompt or maximum decide.
        max_capacity: slots at most.
        room: slots that the budget has left; a prediction waits for no memory, a prompt must.
    Returns:
        Slots.
    """
    return min(max(num_prompt, min(rounded_up(num_total, round_to), room)), max_capacity)


@dataclass(frozen=True, kw_only=True)
class Forecasting(Dynamic):
    """Reserve the predicted final length at admission; grow as Dynamic does where that was too little.

    What is known then is the first prompt and the requests completed before, in the same repetition. Where nothing is
    known yet, nothing is predicted to follow the prompt. The base of those that say which predictor.

    Args:
        initial_capacity: slots reserved at least, > 0.
        growth_factor: as in Dynamic.
        max_capacity: as in Dynamic.
        round_to: as in Dynamic.
    Source: Jin et al. 2023, arXiv:2306.06000 (S³), for reserving by predicted length.
    Departs: of a prompt only its length is read; who exceeds the prediction grows and is not preempted for it.
    """

    initial_capacity: int = 256

    decides_by = "the requests completed before"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._predictor  # noqa: B018, refuses parameters of its own

    @derived
    def _predictor(self) -> Predictor:
        raise NotImplementedError

    def on_begin(self) -> None:
        """Forget the requests of the repetition before."""
        self._predictor.forget()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the prompt and the predicted tokens after it."""
        num_prompt = session.turns[0].num_append_tokens
        num_total = max(num_prompt + (self._predictor.predict(num_prompt) or 0), self.initial_capacity)
        capacity = forecast_capacity(num_prompt, num_total, self.round_to, self.max_tokens, view.room(seq))
        return (Reserve(seq, capacity),)

    def on_complete(self, session: Session) -> None:
        """Learn what followed the first prompt."""
        self._predictor.learn(session.turns[0].num_append_tokens, further_tokens(session))


@dataclass(frozen=True, kw_only=True)
class Forecast(Forecasting):
    """Forecast by a predictor of one's own.

    Args:
        predictor: predicts the tokens that follow the first prompt.
        initial_capacity: slots reserved at least, > 0.
        growth_factor: as in Dynamic.
        max_capacity: as in Dynamic.
        round_to: as in Dynamic.
    Raises:
        ValueError: a parameter is out of its range.
    Source: that of the predictor.
    Departs: none.
    """

    predictor: Predictor

    @derived
    def _predictor(self) -> Predictor:
        if not isinstance(self.predictor, Predictor):
            raise ValueError(
                f"predictor is an object that forgets, learns and predicts, got {self.predictor!r}; a configuration "
                "names AverageForecast, QuantileForecast or LearnedForecast, which have one"
            )
        return self.predictor


@dataclass(frozen=True, kw_only=True)
class AverageForecast(Forecasting):
    """Forecast by the exponential average of what followed the prompts of completed requests.

    An average is exceeded about half the time: little is wasted, and many requests grow.

    Args:
        alpha: weight of the newest request in the average, above 0, at most 1.
        initial_capacity: as in Forecast.
        growth_factor: as in Forecast.
        max_capacity: as in Forecast.
        round_to: as in Forecast.
    Raises:
        ValueError: a parameter is out of its range.
    Source: exponential averaging, as schedulers use it for the next burst of a process.
    Departs: one average over all requests, rounded up.
    """

    alpha: float = 0.1

    @derived
    def _predictor(self) -> Predictor:
        return ExponentialAverage(alpha=self.alpha)


@dataclass(frozen=True, kw_only=True)
class QuantileForecast(Forecasting):
    """Forecast by a quantile of what followed the prompts of the last completed requests.

    Args:
        quantile: share of those requests that it would have been enough for, above 0, at most 1.
        history_window: completed requests remembered, > 0.
        initial_capacity: as in Forecast.
        growth_factor: as in Forecast.
        max_capacity: as in Forecast.
        round_to: as in Forecast.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Gong et al. 2025, arXiv:2507.10150, for predicting from the lengths of past requests.
    Departs: a fixed quantile at admission; nothing is drawn, and nothing predicted anew while a request runs.
    """

    quantile: float = 0.9
    history_window: int = 256

    @derived
    def _predictor(self) -> Predictor:
        return PastQuantile(quantile=self.quantile, history_window=self.history_window)


@dataclass(frozen=True, kw_only=True)
class LearnedForecast(Forecasting):
    """Forecast by a small trained network that reads the prompt's length and the last completed requests.

    It predicts from the first request on. The weights are fixed in a run; `python -m kvbench train` makes them.
    azure_conv was trained on the first three fifths of that trace: a run on its first requests flatters it. Another
    workload needs weights of its own.

    Args:
        weights: a name that comes with kvbench (azure_conv), or the path of a .safetensors file.
        initial_capacity: as in Forecast.
        growth_factor: as in Forecast.
        max_capacity: as in Forecast.
        round_to: as in Forecast.
    Raises:
        ValueError: a parameter is out of its range, or the file holds no such weights.
    Source: Jin et al. 2023, arXiv:2306.06000 (S³), for a learned predictor of length; Koenker and Bassett 1978 for
        the loss.
    Departs: a quantile from lengths alone, by a network of some 600 numbers; no text is read.
    """

    weights: str = "azure_conv"

    @derived
    def _predictor(self) -> Predictor:
        return Learned(weights=load_weights(find_weights(self.weights)))
