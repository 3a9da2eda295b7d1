"""Who beats whom, by hand: what lies within the intervals decides nothing, and what is exact decides as ever."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvbench.configuration.entry import entries
from kvbench.results.front import Cost, alike, leaders, pareto_front, rounded_cost
from kvbench.strategy.chain import Chain
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.sinks import Sinks

NAN = np.nan


@pytest.mark.parametrize(
    ("cost", "half", "other", "expected"),
    [
        ([1, 2, 3, 1, 2, NAN], 0, [3, 2, 3, 3, 3, 0], "YY.Y.."),  # exact: equal points are both on it
        ([1, 2], 0.4, [5, 4], "YY"),
        ([1, 2], 0.5, [5, 4], ".Y"),  # the intervals touch: only the other cost decides
        ([1, 2], 0.5, [4, 4], "YY"),
        ([1, 2], 0.5, [4, NAN], "Y."),
        ([1, 2, 3], 0.5, [3, 2, 1], "Y.Y"),  # neighbours cannot be told apart, the ends can
        ([1, 2], NAN, [5, 4], ".."),
        ([], 0, [], ""),
    ],
)
def test_front_by_hand(cost, half, other, expected):
    costs = Cost.around(cost, half), Cost.around(other)
    assert "".join("Y" if on else "." for on in pareto_front(*costs)) == expected
    assert pareto_front(*reversed(costs)).tolist() == pareto_front(*costs).tolist()


def test_a_circle_decides_nothing():
    a = Cost(np.array([2.0, 5, 0, 0]), np.array([2.0, 5, 10, 0]))
    b = Cost(np.array([0.0, 0, 5, 10]), np.array([10.0, 0, 5, 10]))
    assert pareto_front(a, b).all()


POINT = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 9), st.integers(0, 3))


@given(st.lists(POINT, min_size=1, max_size=12))
@example([(0, 0, 2, 0), (0, 2, 1, 0), (1, 0, 0, 2), (2, 0, 0, 0), (3, 0, 1, 0)])  # beaten by one that is beaten itself
def test_a_front_is_never_empty_and_nobody_on_it_is_beaten_beyond_doubt(points):
    a, half_a, b, half_b = np.array(points, dtype=float).T
    costs = Cost.around(a, half_a), Cost.around(b, half_b)
    on = pareto_front(*costs)
    assert on.any()
    beyond_doubt = costs[0].less() & costs[1].less()
    assert not beyond_doubt[:, on].any()
    exact = pareto_front(Cost.around(a), Cost.around(b))
    beaten = ((a[:, None] <= a) & (b[:, None] <= b) & ((a[:, None] < a) | (b[:, None] < b))).any(axis=0)
    assert exact.tolist() == (~beaten).tolist()


def test_leaders_and_those_alike():
    cost = Cost.around([1.0, 1.5, 3.0, 9.0, NAN, 3.4], [0.3, 0.3, 1.3, 0.0, 0.0, 0.1])
    assert leaders(cost).tolist() == [True, True, False, False, False, False]
    assert alike(cost) == [[0, 1], [1, 2], [2, 5]]
    assert alike(Cost.around([281.0, 305.0], [255.0, 92.0])) == [[0, 1]]
    assert alike(Cost.around([281.0, 305.0], [NAN, 92.0])) == []


def test_what_lossless_rows_differ_by_is_rounding():
    lossless = np.array([True, True, False, False])
    cost = rounded_cost(np.array([10.0, 10.1, 10.15, 10.3]), lossless)
    assert leaders(cost).tolist() == [True, True, False, False]
    assert alike(cost) == [[0, 1], [1, 2]]
    assert alike(rounded_cost(np.array([10.0, NAN, 10.0009, 10.1]), lossless)) == [[0, 2]]


def test_strategies_say_who_is_a_reference():
    marked = {entry.name for entry in entries() if entry.is_reference}
    assert marked == {"exact", "power_of_two", "recompute"}
    sinks = Sinks(num_sinks=1, window=4)
    grown = Dynamic(initial_capacity=2, growth_factor=2.0, max_capacity=16, round_to=1)
    assert [Chain(parts=[growth, sinks]).reference for growth in (Exact(round_to=1), grown)] == [True, False]
