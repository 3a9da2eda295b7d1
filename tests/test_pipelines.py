"""Pipelines: batches at their stages, the fleet against the runner, and what no number of stages can do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.rank import rank_in
from kvbench.engine.scheduling import Scheduling, chunk_tokens
from kvbench.fleet import simulate
from kvbench.fleet.fleet import Fleet
from kvbench.plan.area import Area
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from kvbench.timing.prices import (
    DECODE_FIXED,
    DECODE_UNIT,
    LINEAR,
    PREFILL,
    SEQUENCES,
    SIZES,
    STEP,
    STEP_ROWS,
    of_batch,
    sized_ps,
)
from kvbench.timing.pricing import prices_of
from kvbench.timing.shapes import AS_IT_IS, Factors
from kvbench.timing.stages import lay_in_stages
from tests.support.fleet_models import by_runner, columns_of, results
from tests.test_rank_prices import LINKED, conditions

STAGES = st.integers(1, 4)
ROWS = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 30), st.integers(0, 24)), min_size=1, max_size=14)
RULES = st.builds(
    lambda tokens, mixes, counts_decode: Scheduling(tokens, mixes=mixes, counts_decode=counts_decode),
    st.sampled_from([None, 4, 20]),
    st.booleans(),
    st.booleans(),
)
MAKERS = {
    "paged": lambda: Paged(block_size=4, pool_tokens=120),
    "dynamic": lambda: Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=64, round_to=4),
    "static": lambda: Static(max_seq_len=64),
}


def served(name, rows, pipeline, rules, **options):
    server = Fleet().made(conditions(pipeline=pipeline))
    budget_bytes = 4 * 64 * 256 + 2**16
    chosen = {"geometry": server.geometry, "budget_bytes": budget_bytes, "max_batch": 6, "scheduling": rules}
    return simulate(columns_of(rows), MAKERS[name](), server.prices(Area()), **chosen, **options)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15, deadline=None)
@given(rows=ROWS, pipeline=STAGES, rules=RULES)
def test_the_fleet_is_the_runner_and_its_jumps_are_its_steps(name, rows, pipeline, rules):
    fleet, stepped = (served(name, rows, pipeline, rules, step_by_step=each) for each in (False, True))
    assert results(fleet) == results(stepped)
    requests, *_ = by_runner(
        columns_of(rows), MAKERS[name](), 4 * 64 * 256 + 2**16, 6, rules=rules, conditions=conditions(pipeline=pipeline)
    )
    assert fleet.first_token_ns.tolist() == requests["first_token_ns"].tolist()
    assert fleet.finish_ns.max() == requests["finish_ns"].max()


def priced(stages=(), factors=AS_IT_IS):
    """A model's prices with its four layers in stages."""
    work = rank_in(conditions(pipeline=max(len(stages), 1))).work
    return prices_of(LINKED, work._replace(stages=stages), factors=factors)


def laid(linear, stages, head=None, decode=None):
    """Tables with prices by tokens, of heads by sequences, and of decode steps, laid in stages."""
    tables = np.zeros((PREFILL + 1, SIZES + 1), np.int64)
    numbers = range(1, SIZES + 1)
    for row, price in ((LINEAR, linear), (SEQUENCES, head), (DECODE_FIXED, decode), (DECODE_UNIT, decode)):
        tables[row, 1:] = [price(number) for number in numbers] if price else 0
    whole = tables.copy()
    lay_in_stages(tables, stages)
    return whole, tables


def test_bubbles_by_hand():
    # A token's products take 1,000 ps, half of it in each of two stages.
    _, tables = laid(lambda number: 1_000 * number, (1, 1))
    taken = [sized_ps(LINEAR, of_batch(number, 1, 2), tables) for number in range(1, 5)]
    # One sequence is at one stage, and the other idle: half is bubble. Of three, two go together: a quarter. Else none.
    assert taken == [1_000, 1_000, 2_000, 2_000]
    # Read weights are read for each batch: a second stage brings memory, and no time.
    _, tables = laid(lambda number: 5_000, (1, 1))
    assert sized_ps(LINEAR, of_batch(64, 1, 2), tables) == 5_000
    # Of three layers, both stages take as long as the one that has two: 4 / 3 of an even half.
    _, tables = laid(lambda number: 3_000 * number, (2, 1))
    assert sized_ps(LINEAR, of_batch(2, 1, 2), tables) == 4_000


def test_all_batches_pass_the_head_and_few_do_not_wait_for_it():
    _, tables = laid(lambda number: 8_000, (1, 1, 1, 1), head=lambda number: 1_000)
    # Each stage's layers take 2,000, the last one 3,000 with the head: four batches come out in 12,000, not 9,000.
    assert tables[LINEAR, 1] + tables[SEQUENCES, 4] == 12_000
    # A lone one is through in 9,000; so is each of two and three, since 3 · 3,000 are no more.
    assert [tables[LINEAR, 1] + tables[SEQUENCES, number] for number in (1, 2, 3)] == [9_000, 9_000, 9_000]


def test_attention_of_steps_is_that_of_a_batch():
    _, tables = laid(lambda number: 0, (1, 1), decode=lambda number: 10 * number)
    assert tables[DECODE_FIXED, 1:5].tolist() == [10, 10, 20, 20]
    # A unit of all takes half of a batch's, where there are two.
    assert tables[DECODE_UNIT, 1:5].tolist() == [10, 10, 15, 20]


def test_no_prompt_is_cut_but_in_an_engines_chunks():
    assert of_batch(100, 40, 4) == 40
    assert of_batch(100, 10, 4) == 25
    assert chunk_tokens(700, 2_048, 1, 4) == 512
    assert chunk_tokens(300, 2_048, 1, 4) == 300
    assert chunk_tokens(700, 2_048, 0, 4) == 700
    assert Scheduling(512).of_stages(4).tokens == 2_048
    assert Scheduling().of_stages(4) == Scheduling()


def test_one_stage_is_none():
    alone, one = priced(), priced((4,))
    assert (alone.tables == one.tables).all()
    assert alone._replace(tables=None) == one._replace(tables=None)


PRICE = st.builds(
    lambda floor, each, knee: lambda number: max(floor, each * max(number - knee, 0) + floor // 2),
    st.integers(1, 10**6),
    st.integers(0, 10**4),
    st.integers(0, 300),
)
LAYERS = st.lists(st.integers(1, 40), min_size=2, max_size=8)


@settings(max_examples=20, deadline=None)
@given(linear=PRICE, head=PRICE, decode=PRICE, stages=LAYERS, number=st.integers(1, SIZES))
def test_no_iteration_is_faster_than_all_stages_at_once(linear, head, decode, stages, number):
    whole, tables = laid(linear, stages, head, decode)
    num_stages = len(stages)
    assert num_stages * sized_ps(LINEAR, of_batch(number, 1, num_stages), tables) >= whole[LINEAR, number]
    assert num_stages * tables[SEQUENCES, number] >= whole[SEQUENCES, number]
    for row in np.ravel(STEP_ROWS):
        assert num_stages * tables[row, number] >= whole[row, number]
    assert (np.diff(tables[[LINEAR, SEQUENCES]]) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(linear=PRICE, head=PRICE, decode=PRICE, stages=LAYERS, more=st.integers(1, 9))
def test_more_work_in_a_stage_takes_no_less(linear, head, decode, stages, more):
    _, tables = laid(linear, stages, head, decode)
    _, longer = laid(lambda number: more * linear(number), stages, head, lambda number: more * decode(number))
    assert (longer[LINEAR] >= tables[LINEAR]).all()
    assert (longer[[DECODE_FIXED, DECODE_UNIT]] >= tables[[DECODE_FIXED, DECODE_UNIT]]).all()
    # What waits for the head waits less where stages take longer, and all together no less.
    steps = -(-np.arange(SIZES + 1) // len(stages))
    assert (longer[LINEAR, steps] + longer[SEQUENCES] + 2 >= tables[LINEAR, steps] + tables[SEQUENCES]).all()
    _, uneven = laid(linear, [stages[0] + sum(stages), *stages[1:]], head, decode)
    _, even = laid(linear, [sum(stages)] * len(stages), head, decode)
    assert (uneven[LINEAR] >= even[LINEAR]).all()


def test_a_machine_whose_products_take_longer_takes_longer():
    plain, slow = priced((2, 2)), priced((2, 2), Factors(products=1.5, prefill=1.5))
    assert (slow.tables[[LINEAR, STEP]] >= plain.tables[[LINEAR, STEP]]).all()
    assert slow.tables[LINEAR, 500] > plain.tables[LINEAR, 500]


def test_many_prompts_are_served_nearly_twice_as_fast_by_two_stages_and_one_is_not():
    rules = Scheduling(64)
    many, alone = [(0, 64, 1)] * 64, [(0, 64, 1)]
    one, two = (served("static", many, stages, rules.of_stages(stages)).finish_ns.max() for stages in (1, 2))
    assert 0.5 * one < two < 0.6 * one
    one, two = (served("static", alone, stages, rules.of_stages(stages)).finish_ns.max() for stages in (1, 2))
    assert two == pytest.approx(one, rel=0.001)  # it is sent on, besides, and both stages write at once
