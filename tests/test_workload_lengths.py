"""Length distributions: their laws, with fixed seeds, and what they refuse."""

import gzip
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.workload.lengths import ConstantLength, Empirical, Lognormal, Uniform, Zipf
from kvbench.workload.trace_file import TraceError, TraceMissing

NUM = 40_000
TOLERANCE = 4 / math.sqrt(NUM)

ranges = st.tuples(st.integers(1, 2000), st.integers(0, 2000)).map(lambda pair: (pair[0], sum(pair)))
distributions = st.one_of(
    st.integers(1, 10**6).map(lambda tokens: (ConstantLength(tokens=tokens), tokens, tokens)),
    ranges.map(lambda r: (Uniform(low=r[0], high=r[1]), *r)),
    st.builds(
        lambda r, sigma: (Lognormal(median=sum(r) / 2, sigma=sigma, low=r[0], high=r[1]), *r), ranges, st.floats(0, 20)
    ),
    st.builds(lambda r, e: (Zipf(exponent=e, low=r[0], high=r[1]), *r), ranges, st.floats(0, 100)),
)


def draw(distribution, size=NUM, seed=11):
    return distribution.draw(size, np.random.default_rng(seed))


@given(case=distributions, size=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_lengths_are_int64_within_the_range(case, size, seed):
    distribution, low, high = case
    lengths = draw(distribution, size, seed)
    assert lengths.dtype == np.int64
    assert lengths.shape == (size,)
    assert ((lengths >= low) & (lengths <= high)).all()


@given(case=distributions, size=st.integers(0, 40), more=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_a_longer_draw_begins_with_the_shorter(case, size, more, seed):
    np.testing.assert_array_equal(draw(case[0], size + more, seed)[:size], draw(case[0], size, seed))


def test_constant_is_constant():
    assert draw(ConstantLength(tokens=7), 3).tolist() == [7, 7, 7]


def frequencies(lengths, low, high):
    return np.bincount(lengths - low, minlength=high - low + 1) / lengths.size


def test_uniform_has_both_ends_alike():
    np.testing.assert_allclose(frequencies(draw(Uniform(low=3, high=7)), 3, 7), 0.2, atol=TOLERANCE * 0.4)


def test_lognormal_has_the_median_and_the_sigma():
    lengths = draw(Lognormal(median=500, sigma=0.6, low=1, high=10**6))
    assert np.median(lengths) == pytest.approx(500, rel=0.02)
    assert np.log(lengths).std() == pytest.approx(0.6, rel=0.02)
    assert lengths.mean() == pytest.approx(500 * math.exp(0.6**2 / 2), rel=0.02)


def test_lognormal_rounds_to_the_nearest():
    assert set(draw(Lognormal(median=10.6, sigma=0, low=1, high=20)).tolist()) == {11}


@given(exponent=st.floats(0, 100), ranks=st.integers(1, 500))
def test_zipf_stays_in_its_range_at_the_largest_uniform_number(exponent, ranks):
    class Largest:
        def random(self, size):
            return np.full(size, np.nextafter(1.0, 0.0))

    assert Zipf(exponent=exponent, low=1, high=ranks).draw(1, Largest())[0] <= ranks


def test_lognormal_puts_what_is_beyond_a_bound_on_it():
    lengths = draw(Lognormal(median=100, sigma=1, low=100, high=200))
    assert np.mean(lengths == 100) == pytest.approx(0.5, abs=0.02)
    assert np.mean(lengths == 200) == pytest.approx(0.5 * math.erfc(math.log(2) / math.sqrt(2)), abs=0.02)


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 2.5])
def test_zipf_frequencies_fall_with_the_rank(exponent):
    weights = [rank**-exponent for rank in range(1, 9)]
    wanted = np.array(weights) / sum(weights)
    got = frequencies(draw(Zipf(exponent=exponent, low=20, high=27)), 20, 27)
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE * 0.5)


COLUMN = "id,tokens\na,5\nb,9\nc,5\nd,300\n"


@pytest.mark.parametrize("packed", [False, True])
def test_empirical_draws_rows_alike(tmp_path, packed):
    path = tmp_path / "lengths.csv"
    path.write_bytes(gzip.compress(COLUMN.encode()) if packed else COLUMN.encode())
    lengths = draw(Empirical(path=str(path), column="tokens"))
    assert set(lengths.tolist()) == {5, 9, 300}
    assert np.mean(lengths == 5) == pytest.approx(0.5, abs=TOLERANCE * 0.5)


def test_empirical_says_where_a_value_is_bad(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("tokens\n5\n\n0\n")
    with pytest.raises(
        TraceError, match=r"lengths.csv, line 4, column tokens: got '0'; allowed is a whole number from 1"
    ):
        draw(Empirical(path=str(path), column="tokens"))


def test_empirical_names_the_nearest_column(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text(COLUMN)
    with pytest.raises(TraceError, match=r"unknown column 'token'\. Did you mean 'tokens'"):
        draw(Empirical(path=str(path), column="token"))


def test_empirical_says_which_file_is_missing(tmp_path):
    with pytest.raises(TraceMissing, match=r"none\.csv does not exist"):
        draw(Empirical(path=str(tmp_path / "none.csv"), column="tokens"))


LOGNORMAL = {"median": 10, "sigma": 1, "low": 1, "high": 20}
BAD = [
    (ConstantLength, {"tokens": 0}, "tokens is a positive integer and at most 2,147,483,647, got 0"),
    (ConstantLength, {"tokens": 1.5}, "tokens .* got 1.5"),
    (ConstantLength, {"tokens": "8"}, "tokens .* got '8'"),
    (ConstantLength, {"tokens": True}, "tokens .* got True"),
    (Uniform, {"low": 0, "high": 5}, "low is a positive integer"),
    (Uniform, {"low": 6, "high": 5}, "high is at least low, got low 6 and high 5"),
    (Uniform, {"low": 1, "high": 2**31}, "high is a positive integer"),
    (Lognormal, LOGNORMAL | {"median": 0.5}, "median is a number of at least 1 and at most 20, got 0.5"),
    (Lognormal, LOGNORMAL | {"median": 21}, "median .* got 21"),
    (Lognormal, LOGNORMAL | {"median": math.nan}, "median .* got nan"),
    (Lognormal, LOGNORMAL | {"sigma": -1}, "sigma is a number of at least 0 and at most 20, got -1"),
    (Lognormal, LOGNORMAL | {"low": -3}, "low .* got -3"),
    (Lognormal, LOGNORMAL | {"low": 30}, "high is at least low"),
    (Zipf, {"exponent": -1, "low": 1, "high": 5}, "exponent is a number of at least 0 and at most 100, got -1"),
    (Zipf, {"exponent": math.inf, "low": 1, "high": 5}, "exponent .* got inf"),
    (Zipf, {"exponent": 1, "low": 5, "high": 4}, "high is at least low"),
    (Zipf, {"exponent": 1, "low": 1, "high": 10_000_001}, "low to high is at most 10000000 lengths, got 1 to 10000001"),
]


@pytest.mark.parametrize(("distribution", "parameters", "message"), BAD)
def test_bad_parameters_are_refused(distribution, parameters, message):
    with pytest.raises(ValueError, match=message):
        distribution(**parameters)
