"""Constraints judged by intervals, and the highest load at which they hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.decide.constraints import SATISFIED, VIOLATED, constraints_of
from kvbench.decide.highest import LEAST, MOST, STEPS, Ladder, highest_load
from kvbench.results.conditions import UNTOLD


def row(value, low=math.nan, high=math.nan):
    return {"ttft_p99_s": value, "ttft_p99_s_low": low, "ttft_p99_s_high": high}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(0.9, 0.8, 0.99), SATISFIED),
        (row(0.9, 0.8, 1.1), UNTOLD),
        (row(1.1, 0.9, 1.2), UNTOLD),
        (row(1.2, 1.1, 1.3), VIOLATED),
        (row(1.0), SATISFIED),
        (row(1.01), VIOLATED),
        (row(math.nan), UNTOLD),
        ({}, UNTOLD),
    ],
)
def test_a_constraint_is_judged_by_the_whole_interval(found, verdict):
    (limit,) = constraints_of(["ttft_p99<=1"])
    assert limit.verdict(found) == verdict


def test_constraints_that_cannot_be_read():
    assert [each.column for each in constraints_of(['"ttft_p99<=1e-3,goodput>=2"', "peak<9E+1"])] == [
        "ttft_p99_s",
        "goodput_per_s",
        "peak_bytes",
    ]
    for text, why in (
        ("ttfp99<=1", "Did you mean 'ttft_p99_s'"),
        ("cost<=1", "Did you mean 'cost_per_million_tokens'"),
        ("ttft_p99=1", "a measure, a comparison and a number"),
        ("paged.ttft_p99<=1", "no word before it"),
    ):
        with pytest.raises(ValueError, match=why):
            constraints_of([text])
    with pytest.raises(ValueError, match="got nothing"):
        constraints_of([])


def line(first_over, spread):
    """A ladder on which TTFT is over its bound from a step on, and off by so many steps either way."""

    def run(load):
        value = load / 2 ** (first_over / STEPS) * 0.999
        return row(value, value / 2 ** (spread / STEPS), value * 2 ** (spread / STEPS))

    return Ladder(lambda step: 2 ** (step / STEPS), run)


@given(st.integers(-700, 700), st.integers(0, 40))
def test_bisection_finds_the_step_and_its_interval(first_over, spread):
    ladder = line(first_over, spread)
    found = highest_load(ladder, constraints_of(["ttft_p99<=1"]))
    assert found.value == ladder.load_at(first_over)
    assert found.low == ladder.load_at(first_over - spread)
    assert found.high == ladder.load_at(first_over + spread)
    assert found.limited_by == "ttft_p99<=1"
    assert len(ladder.tried) < 70


def test_a_bound_that_never_holds_and_one_that_always_does():
    never = highest_load(line(LEAST - 5, 0), constraints_of(["ttft_p99<=1"]))
    assert never[:3] == (0, 0, 0)
    always = highest_load(line(MOST + 5, 0), constraints_of(["ttft_p99<=1"]))
    assert (always.value, always.limited_by) == (2**20, "")


def test_of_a_figure_that_is_empty_it_cannot_be_told():
    """What the others allow bounds it from above; where they allow nothing, nothing holds whatever the figure is."""
    nothing = highest_load(Ladder(float, lambda load: row(math.nan)), constraints_of(["ttft_p99<=1"]))
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.high)
    assert (nothing.low, nothing.limited_by) == (0, "ttft_p99<=1")
    both = constraints_of(["ttft_p99<=1", "quality.kl<=0.02"])
    ladder = line(40, 7)
    found = highest_load(ladder, both)
    assert math.isnan(found.value)
    assert found[1:] == (0, ladder.load_at(47), "quality.kl<=0.02")
    assert highest_load(line(LEAST - 50, 7), both) == (0, 0, 0, "ttft_p99<=1")
    known = line(40, 7)
    told = Ladder(known.load_at, lambda load: known.run(load) | {"quality_kl": 0.01})
    assert highest_load(told, both) == highest_load(line(40, 7), both[:1])


def test_where_not_all_is_served_no_load_holds_whatever_the_figures_of_the_others():
    short = {"outcome": "out_of_memory 3 of 9"}
    never = Ladder(line(40, 7).load_at, lambda load: row(0.1) | short)
    assert highest_load(never, constraints_of(["ttft_p99<=1"])) == (
        0,
        0,
        0,
        "not all were served: out_of_memory 3 of 9",
    )
    nothing = Ladder(never.load_at, lambda load: row(math.nan) | short)
    assert highest_load(nothing, constraints_of(["ttft_p99<=1"]))[:3] == (0, 0, 0)
    crowded = Ladder(never.load_at, lambda load: row(0.1) | (short if load > never.load_at(11) else {}))
    found = highest_load(crowded, constraints_of(["ttft_p99<=1"]))
    assert found[:3] == (never.load_at(11),) * 3
    assert found.limited_by == "not all were served: out_of_memory 3 of 9"
