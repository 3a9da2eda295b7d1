"""Arrival processes: their laws, with fixed seeds, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.workload.arrivals import AllAtOnce, ConstantRate, Gamma, Poisson, Sinusoidal

NUM = 40_000
RATE = 5.0

rates = st.floats(1e-3, 1e5)
processes = st.one_of(
    st.just(AllAtOnce()),
    rates.map(lambda rate: ConstantRate(rate_per_s=rate)),
    rates.map(lambda rate: Poisson(rate_per_s=rate)),
    st.builds(lambda rate, cv: Gamma(rate_per_s=rate, cv=cv), rates, st.floats(0.05, 10)),
    st.builds(
        lambda rate, amplitude, period: Sinusoidal(rate_per_s=rate, amplitude=amplitude, period_s=period),
        rates,
        st.floats(0, 1),
        st.floats(1e-3, 1e6),
    ),
)


def draw(process, num=NUM, seed=7):
    return process.times_ns(num, np.random.default_rng(seed))


def gaps_s(process):
    return np.diff(draw(process), prepend=0) / 1e9


@given(process=processes, num=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_times_are_int64_and_never_decrease(process, num, seed):
    times = draw(process, num, seed)
    assert times.dtype == np.int64
    assert times.shape == (num,)
    assert (np.diff(times, prepend=0) >= 0).all()


@given(process=processes, num=st.integers(0, 50), more=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_a_longer_draw_begins_with_the_shorter(process, num, more, seed):
    np.testing.assert_array_equal(draw(process, num + more, seed)[:num], draw(process, num, seed))


def test_all_at_once_is_at_the_start():
    assert draw(AllAtOnce(), 3).tolist() == [0, 0, 0]


def test_constant_by_hand():
    assert draw(ConstantRate(rate_per_s=4), 4).tolist() == [0, 250_000_000, 500_000_000, 750_000_000]


def check_exponential(gaps, mean):
    """Kolmogorov and Smirnov's distance to the exponential law stays under its 0.1 % quantile."""
    ordered = np.sort(gaps)
    law = 1 - np.exp(-ordered / mean)
    ranks = np.arange(ordered.size + 1) / ordered.size
    distance = max((ranks[1:] - law).max(), (law - ranks[:-1]).max())
    assert distance < 1.95 / math.sqrt(ordered.size)


def test_poisson_gaps_are_exponential():
    check_exponential(gaps_s(Poisson(rate_per_s=RATE)), 1 / RATE)


def test_poisson_gaps_are_independent():
    gaps = gaps_s(Poisson(rate_per_s=RATE))
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / math.sqrt(NUM)


@pytest.mark.parametrize("cv", [0.25, 1.0, 3.0])
def test_gamma_gaps_have_the_mean_and_the_cv(cv):
    gaps = gaps_s(Gamma(rate_per_s=RATE, cv=cv))
    assert gaps.mean() == pytest.approx(1 / RATE, rel=4 * cv / math.sqrt(NUM))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


def test_gamma_with_a_cv_of_1_is_poisson():
    check_exponential(gaps_s(Gamma(rate_per_s=RATE, cv=1)), 1 / RATE)


@pytest.mark.parametrize("amplitude", [0.3, 0.9, 1.0])
def test_sinusoidal_is_unit_poisson_in_its_cumulative_rate(amplitude):
    times_s = draw(Sinusoidal(rate_per_s=RATE, amplitude=amplitude, period_s=60)) / 1e9
    # The cumulative rate, written out here again.
    turn = 2 * np.pi / 60
    cumulative = RATE * times_s + RATE * amplitude / turn * (1 - np.cos(turn * times_s))
    check_exponential(np.diff(cumulative, prepend=0), 1.0)


def test_sinusoidal_inverts_to_the_nanosecond():
    process = Sinusoidal(rate_per_s=RATE, amplitude=0.9, period_s=60)
    counts = np.cumsum(np.random.default_rng(7).standard_exponential(NUM))
    # Times are rounded to half a nanosecond, at a rate of 1.9 × the mean at most.
    np.testing.assert_allclose(process.cumulative(draw(process) / 1e9), counts, rtol=0, atol=RATE * 2e-9)


def test_sinusoidal_puts_the_load_into_the_first_half_of_the_period():
    times_s = draw(Sinusoidal(rate_per_s=RATE, amplitude=0.8, period_s=10)) / 1e9
    whole = times_s[times_s < times_s[-1] // 10 * 10]
    share = np.mean(whole % 10 < 5)
    assert share == pytest.approx(0.5 + 0.8 / np.pi, abs=4 * 0.5 / math.sqrt(whole.size))


def test_sinusoidal_without_amplitude_is_poisson():
    flat = Sinusoidal(rate_per_s=RATE, amplitude=0, period_s=60)
    np.testing.assert_array_equal(draw(flat), draw(Poisson(rate_per_s=RATE)))


BAD = [
    (ConstantRate, {"rate_per_s": 0}, "rate_per_s is a number of at least 1e-09 and at most 1000000000.0, got 0"),
    (ConstantRate, {"rate_per_s": -1.5}, "rate_per_s .* got -1.5"),
    (Poisson, {"rate_per_s": math.nan}, "rate_per_s .* got nan"),
    (Poisson, {"rate_per_s": math.inf}, "rate_per_s .* got inf"),
    (Poisson, {"rate_per_s": "fast"}, "rate_per_s .* got 'fast'"),
    (Poisson, {"rate_per_s": None}, "rate_per_s .* got None"),
    (Poisson, {"rate_per_s": True}, "rate_per_s .* got True"),
    (Gamma, {"rate_per_s": 1, "cv": 0}, "cv is a number above 0 and at most 100, got 0"),
    (Gamma, {"rate_per_s": 1, "cv": 101}, "cv .* got 101"),
    (Gamma, {"rate_per_s": 0, "cv": 1}, "rate_per_s .* got 0"),
    (
        Sinusoidal,
        {"rate_per_s": 1, "amplitude": 1.1, "period_s": 1},
        "amplitude is a number .* at most 1",
    ),
    (Sinusoidal, {"rate_per_s": 1, "amplitude": -0.1, "period_s": 1}, "amplitude .* got -0.1"),
    (Sinusoidal, {"rate_per_s": 1, "amplitude": 0.5, "period_s": 0}, "period_s .* got 0"),
    (Sinusoidal, {"rate_per_s": -1, "amplitude": 0.5, "period_s": 1}, "rate_per_s .* got -1"),
]


@pytest.mark.parametrize(("process", "parameters", "message"), BAD)
def test_bad_parameters_are_refused(process, parameters, message):
    with pytest.raises(ValueError, match=message):
        process(**parameters)


@pytest.mark.parametrize("num", [-1, 1.5, "3"])
def test_a_bad_number_of_requests_is_refused(num):
    with pytest.raises(ValueError, match="num_requests is an integer of at least 0 and at most 1,000,000,000, got"):
        draw(Poisson(rate_per_s=1), num)


def test_times_beyond_int64_are_refused():
    with pytest.raises(ValueError, match=r"at most 9.2e9 s \(292 years\) are allowed: raise rate_per_s"):
        draw(ConstantRate(rate_per_s=1e-9), 20)
