"""Strategies that reserve what a request is predicted to hold; nothing leaks, nothing is read of its end."""

import pytest

from kvbench.ledger import Ledger
from kvbench.plan.ops import Reserve
from kvbench.predictor.past import ConstantPredictor
from kvbench.runner.run import run
from kvbench.strategy.forecast import AverageForecast, Forecast, QuantileForecast, forecast_capacity
from kvbench.workload.request import NS_PER_S, Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.fake import Fake

GROWING = {"initial_capacity": 1, "growth_factor": 1.5, "max_capacity": 8192, "round_to": 1}
FORECASTS = ("predictive_average", "predictive_quantile", "predictive_learned")
ONCE = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 2, "budget_bytes": None}


def admitted(chosen, request, seq=0, slots=None):
    """The slots reserved for a request that is alone."""
    ledger = Ledger(TINY, None if slots is None else slots * TINY.bytes_per_token)
    ledger.open(seq)
    (reserve,) = chosen.on_admit(seq, request, ledger.view)
    return reserve.num_tokens


def test_forecast_capacity_by_hand():
    assert forecast_capacity(100, 150, 1, 8192, 10_000) == 150
    assert forecast_capacity(100, 150, 64, 8192, 10_000) == 192
    assert forecast_capacity(100, 150, 1, 120, 10_000) == 120  # at most the maximum
    assert forecast_capacity(100, 150, 1, 8192, 130) == 130  # a prediction waits for no memory
    assert forecast_capacity(100, 150, 1, 8192, 50) == 100  # a prompt must
    assert forecast_capacity(100, 150, 1, 80, 50) == 80


def test_a_forecast_by_hand():
    # Nothing known: the prompt. Then 40 further tokens, and (40 + 80) / 2; of an answer the last token is not written.
    chosen = AverageForecast(alpha=0.5, **GROWING)
    request = Session(0, (Request(100, 41),))
    assert admitted(chosen, request) == 100
    chosen.on_complete(request)
    assert admitted(chosen, request) == 140
    chosen.on_complete(Session(0, (Request(10, 30), Request(20, 31))))  # 80 further tokens, over all turns
    assert admitted(chosen, Session(0, (Request(7),))) == 67
    assert admitted(chosen, Session(0, (Request(7),)), slots=50) == 50
    chosen.on_begin()
    assert admitted(chosen, request) == 100
    assert (
        admitted(QuantileForecast(quantile=0.5, history_window=3, **GROWING | {"initial_capacity": 128}), request)
        == 128
    )


def test_what_exceeds_a_forecast_grows_as_dynamic_does():
    # 20 + 10 predicted. The 31st token: max(30 · 1.5, 31) = 45 slots.
    chosen = AverageForecast(alpha=1, **GROWING)
    backend = Fake()
    requests = [Session(0, (Request(5, 11),)), Session(NS_PER_S * 9, (Request(20, 13),))]
    run({"it": chosen}, requests, backend, **ONCE)
    assert [op.num_tokens for seq, plan in backend.plans for op in plan if isinstance(op, Reserve) and seq] == [30, 45]


@pytest.mark.parametrize("name", FORECASTS)
def test_requests_of_one_repetition_do_not_leak_into_the_next(name):
    requests = [Session(NS_PER_S * 9 * index, (Request(300, tokens),)) for index, tokens in enumerate((700, 30, 900))]
    backend = Fake()
    run({"it": strategy(name)}, requests, backend, **ONCE | {"num_repetitions": 2, "num_warmup": 1})
    reserved = [(seq, op.num_tokens) for seq, plan in backend.plans for op in plan if isinstance(op, Reserve)]
    third = len(reserved) // 3
    assert reserved == reserved[:third] * 3
    assert len({num_tokens for _, num_tokens in reserved}) > 1


class Sealed:
    """A request that was just admitted: only the length of its first prompt may be asked for."""

    class First:
        num_append_tokens = 300

    class Turns(tuple):
        def __iter__(self):
            pytest.fail("the turns were gone through")

        def __len__(self):
            pytest.fail("the turns were counted")

        def __getitem__(self, index):
            assert index == 0, "a later turn was read"
            return tuple.__getitem__(self, index)

    turns = Turns([First()])


@pytest.mark.parametrize("name", FORECASTS)
def test_a_forecast_reads_nothing_of_a_request_but_its_first_prompt(name):
    chosen = strategy(name)
    for tokens in (50, 70, 90):
        chosen.on_complete(Session(0, (Request(200, tokens),)))
    sealed = admitted(chosen, Sealed())
    assert (
        sealed
        == admitted(chosen, Session(0, (Request(300, 1),)))
        == admitted(chosen, Session(0, (Request(300, 9),) * 4))
    )
    assert sealed > 300


def test_what_is_no_predictor_is_refused():
    with pytest.raises(ValueError, match="a configuration names AverageForecast, QuantileForecast or LearnedForecast"):
        Forecast(predictor="average", **GROWING)
    Forecast(predictor=ConstantPredictor(num_tokens=3), **GROWING)
