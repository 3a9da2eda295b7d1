"""Forecasts: reserve at admission what the request is predicted to hold at its end."""

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve
from kvbench.predictor.base import Predictor
from kvbench.predictor.learned import Learned
from kvbench.predictor.past import ExponentialAverage, PastQuantile
from kvbench.predictor.replay import further_tokens
from kvbench.predictor.weights import find_weights, load_weights
from kvbench.strategy.base import rounded_up
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


class Forecast(Dynamic):
    """Reserve the predicted final length at admission; grow as Dynamic does where that was too little.

    What is known then is the first prompt and the requests completed before, in the same repetition. Where nothing is
    known yet, nothing is predicted to follow the prompt.

    Args:
        predictor: predicts the tokens that follow the first prompt.
        initial_capacity: slots reserved at least, > 0.
        growth_factor: as in Dynamic.
        max_capacity: as in Dynamic.
        round_to: as in Dynamic.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Jin et al. 2023, arXiv:2306.06000 (S³), for reserving by predicted length.
    Departs: of a prompt only its length is read; who exceeds the prediction grows and is not preempted for it.
    """

    decides_by = "the requests completed before"

    def __init__(
        self,
        predictor: Predictor,
        *,
        initial_capacity: int,
        growth_factor: float,
        max_capacity: int | None,
        round_to: int,
    ) -> None:
        super().__init__(
            initial_capacity=initial_capacity,
            growth_factor=growth_factor,
            max_capacity=max_capacity,
            round_to=round_to,
        )
        if not isinstance(predictor, Predictor):
            raise ValueError(
                f"predictor is an object that forgets, learns and predicts, got {predictor!r}; a configuration names "
                "AverageForecast, QuantileForecast or LearnedForecast, which have one"
            )
        self._predictor = predictor

    def on_begin(self) -> None:
        """Forget the requests of the repetition before."""
        self._predictor.forget()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the prompt and the predicted tokens after it."""
        num_prompt = session.turns[0].num_append_tokens
        num_total = max(num_prompt + (self._predictor.predict(num_prompt) or 0), self.initial_capacity)
        capacity = forecast_capacity(num_prompt, num_total, self.round_to, self.max_capacity, view.room(seq))
        return (Reserve(seq, capacity),)

    def on_complete(self, session: Session) -> None:
        """Learn what followed the first prompt."""
        self._predictor.learn(session.turns[0].num_append_tokens, further_tokens(session))


class AverageForecast(Forecast):
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

    def __init__(
        self,
        *,
        alpha: float,
        initial_capacity: int,
        growth_factor: float,
        max_capacity: int | None,
        round_to: int,
    ) -> None:
        super().__init__(
            ExponentialAverage(alpha),
            initial_capacity=initial_capacity,
            growth_factor=growth_factor,
            max_capacity=max_capacity,
            round_to=round_to,
        )


class QuantileForecast(Forecast):
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

    def __init__(
        self,
        *,
        quantile: float,
        history_window: int,
        initial_capacity: int,
        growth_factor: float,
        max_capacity: int | None,
        round_to: int,
    ) -> None:
        super().__init__(
            PastQuantile(quantile, history_window),
            initial_capacity=initial_capacity,
            growth_factor=growth_factor,
            max_capacity=max_capacity,
            round_to=round_to,
        )


class LearnedForecast(Forecast):
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

    def __init__(
        self,
        *,
        weights: str,
        initial_capacity: int,
        growth_factor: float,
        max_capacity: int | None,
        round_to: int,
    ) -> None:
        super().__init__(
            Learned(load_weights(find_weights(weights))),
            initial_capacity=initial_capacity,
            growth_factor=growth_factor,
            max_capacity=max_capacity,
            round_to=round_to,
        )
