"""What a fleet computes with: nothing that passes outgrows 64 bits, and what would is refused in words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.choice import Conditions
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.fleet.bounds import LATEST_NS, MEMORY_BYTES, ROW_BYTES, check_requests
from kvbench.fleet.fleet import Fleet
from kvbench.plan.area import Area
from kvbench.strategy.concat import Concat
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from kvbench.timing.prices import DECODE_UNIT, LINEAR, NODES, PREFILL, PS_PER_S, SCALE, SIZES, STEP
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.trace_columns import TraceColumns
from tests.support.fleet_models import PRICES, ROUND, columns_of
from tests.support.machines import GEOMETRY, WEIGHTS, WORK, machine

DAY_NS = 24 * 3600 * 10**9
CHEAP = PRICES._replace(tables=PRICES.tables // 1_000)
CHEAP.tables[STEP] = PRICES.tables[STEP] + (CHEAP.tables - PRICES.tables)[:DECODE_UNIT].sum(axis=0)
SLOW = PRICES._replace(step_ps=2**59, tables=PRICES.tables.copy())
SLOW.tables[STEP] += 2**59 - PRICES.step_ps


def pair_ps(prices):
    """What a pair of query and key takes at least."""
    return prices.tables[PREFILL, : NODES * NODES].min() / SCALE


def run(rows, strategy=None, prices=PRICES, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": 2**50, "max_batch": 2}
    return simulate(columns_of(rows), strategy or Exact(round_to=1), prices, **chosen | options)


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        ([(0, 2**31 - 1, 1)], {}, r"an iteration of the longest requests \(2,147,483,648 tokens\) may take"),
        ([(0, 2**62, 1)], {}, "a request has at most 1,099,511,627,776 tokens, got 4,611,686,018,427,387,904"),
        ([(0, 1, 2**62)], {}, "a request has at most 1,099,511,627,776 tokens"),
        ([(0, 0, 1)], {}, "a prompt of at least 1 token"),
        ([(0, 1, -1)], {}, "0 output tokens or more"),
        ([(0, 1, 1), (LATEST_NS + 1, 1, 1)], {}, "the last request: arrivals to 5.765e"),
        ([(0, 1, 1)], {"max_batch": 10**30}, r"max_batch is a positive integer and at most 1,048,576, got 1000000"),
        ([(0, 1, 1)], {"replicas": 10**9}, "replicas is a positive integer and at most 65,536, got 1000000000"),
        ([(0, 1, 1)], {"scheduling": Scheduling(10**30)}, "scheduling.tokens is a positive integer and at most"),
        ([(0, 1, 1)], {"budget_bytes": 10**30}, "budget_bytes is a positive integer and at most"),
        ([(0, 1, 1)], {"min_block_tokens": 2**62}, "min_block_tokens is a positive integer and at most"),
        ([(0, 1, 1)], {"strategy": Static(max_seq_len=10**30)}, r"Static decides by about 10\^30"),
        ([(0, 1, 1)], {"strategy": Exact(round_to=2**61)}, r"Exact decides by about 10\^18"),
        ([(0, 1, 1)], {"space": "buddy"}, "the tables would take"),
    ],
)
def test_what_would_outgrow_is_refused(rows, given, message):
    with pytest.raises(ValueError, match=message):
        run(rows, **given)


def test_think_times_stay_on_the_clock():
    columns = replace(columns_of([(0, 1, 1), (0, 1, 1)]), think_ns=np.array([0, LATEST_NS + 1]))
    with pytest.raises(ValueError, match=r"think times: to 5.765e\+08 s; a fleet's clock takes them to 5.765e"):
        check_requests(columns, PRICES, 2)


@pytest.mark.parametrize("fold", [None, lambda ended: None])
def test_who_has_not_ended_when_the_clock_does_is_told(fold):
    """3,000 steps of a week each, where the clock holds 1,900, one request at a time."""
    with pytest.raises(ValueError, match=r"holds 1.153e\+09 s \(36 years\), and 2 of these requests have not ended"):
        run([(0, 3, 1_500)] * 3, prices=SLOW, max_batch=1, fold=fold)


def test_many_requests_are_served_where_one_after_another_they_would_outlast_the_clock():
    """20 requests of 190 weeks each, of which all fit at once."""
    result = run([(0, 3, 200)] * 20, prices=SLOW, max_batch=20)
    assert (result.outcome == 0).all()
    assert 20 * result.finish_ns[0] > 2**60


def test_days_are_days():
    """A prompt of ten times the tokens takes a hundred times as long, as far as the clock goes."""
    pair_ns = PRICES.tables[PREFILL, NODES * (NODES - 1)] / SCALE / 1000  # of the longest prompts, with none before
    for num_tokens in (10**6, 5 * 10**6):
        (finish_ns,) = run([(0, num_tokens, 1)]).finish_ns
        assert finish_ns == pytest.approx(num_tokens**2 / 2 * pair_ns, rel=0.2)
    result = run([(0, 3, 4), (LATEST_NS, 3, 4)])
    assert result.outcome.tolist() == [0, 0]
    assert result.finish_ns[1] - LATEST_NS == pytest.approx(result.finish_ns[0], abs=1)


def test_idle_replicas_stand_beside_busy_ones():
    result = run([(0, 5, 500)], replicas=1000)
    assert result.timeline.batch.sum() * result.timeline.bin_ns == pytest.approx(result.finish_ns[0], abs=1)


def test_a_batch_of_more_than_there_are_is_all_of_them():
    rows = [(0, 5, 5)] * 3
    assert run(rows, max_batch=2**20).finish_ns.tolist() == run(rows, max_batch=3).finish_ns.tolist()


LARGE = st.lists(
    st.tuples(
        st.integers(0, LATEST_NS) | st.integers(0, 1000),
        st.integers(1, 60) | st.integers(1, 2**34),
        st.integers(0, 60) | st.integers(0, 2**24),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=LARGE,
    made=st.sampled_from([Exact(round_to=1), Static(max_seq_len=2**40), Paged(block_size=16, pool_tokens=2**32)]),
    max_batch=st.integers(1, 4),
    chunk=st.sampled_from([None, 2**20]),
    budget=st.sampled_from([2**30, 2**42, 2**50]),
    prices=st.sampled_from([PRICES, ROUND, SLOW, CHEAP]),
)
def test_what_passes_ends_and_adds_up(rows, made, max_batch, chunk, budget, prices):
    """Either a message, or all requests end, after their arrival, in order of time, and no figure has wrapped."""
    try:
        result = run(rows, made, prices, max_batch=max_batch, scheduling=Scheduling(chunk), budget_bytes=budget)
    except ValueError:
        return
    columns = columns_of(rows)
    assert (result.outcome >= 0).all()
    assert (result.finish_ns >= columns.arrival_ns).all()
    ran = result.admitted_ns >= 0
    assert (result.admitted_ns >= columns.arrival_ns)[ran].all()
    assert (result.finish_ns >= result.admitted_ns).all()
    assert min(vars(result.totals).values()) >= 0
    assert (result.sums >= 0).all()
    done = result.outcome == 0
    prompts, steps = columns.num_prompt_tokens, np.maximum(columns.num_output_tokens - 1, 0)
    least_ps = 0.5 * prompts.astype(float) ** 2 * pair_ps(prices) + steps.astype(float) * prices.step_ps
    spent_ps = (result.finish_ns - columns.arrival_ns).astype(float) * 1000 + 1000
    assert (spent_ps >= 0.999 * least_ps)[done].all()


def fleet(hardware=None, **changed):
    chosen = {"memory_fraction": 0.5, "max_batch": 2, "ttft_objective_s": None, "tpot_objective_s": None}
    conditions = Conditions(geometry=GEOMETRY, hardware=hardware or machine(), weights=WEIGHTS)
    return Fleet(**chosen | changed).made(conditions)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repeats": 10**30}, r"repeats=about 10\^30, at 450 bytes a request, would take"),
        ({"repeats": 10**6}, "repeats=1,000,000: arrivals to 8.64e"),
        ({"repeats": 10**30, "keep": "summary"}, r"repeats=about 10\^30: arrivals to"),
        ({"rate_scale": 1e-300}, "rate_scale=1e-300: arrivals to"),
    ],
)
def test_arrivals_stay_on_the_clock(changed, message):
    ones = np.ones(1, np.int64)
    one = TraceColumns(arrival_ns=ones * DAY_NS, num_prompt_tokens=ones, num_output_tokens=ones)
    with pytest.raises(ValueError, match=message):
        fleet(**changed).arriving(one)


@pytest.mark.parametrize(
    ("figure", "value", "message"),
    [
        ("memory_bytes", 10**30, "hardware.memory_bytes is at most"),
        ("flops_per_s", 1e-300, "hardware.flops_per_s"),
        ("step_s", 1e300, "hardware.step_s"),
    ],
)
def test_a_machines_figures_stay_on_it(figure, value, message):
    with pytest.raises(ValueError, match=message):
        fleet(hardware=machine(**{figure: value})).prices(Area())
    assert ROW_BYTES * 10**6 < MEMORY_BYTES


def test_prices_are_prices_of_the_machine():
    ours, theirs = fleet().prices(Area()), prices_of(machine(), WORK)
    assert ours._replace(tables=None) == theirs._replace(tables=None)
    assert (ours.tables == theirs.tables).all()
    assert run([(0, 5, 5)], Concat(), fleet().prices(Area())).outcome.tolist() == [0]
    with pytest.raises(ValueError, match="by the machine's figures a piece of work takes"):
        prices_of(
            machine(),
            work_of_parameters(GEOMETRY, replace(WEIGHTS, num_parameters=10**30, num_active_parameters=10**30)),
        )


def test_a_processor_that_takes_an_hour_for_thousands_of_tokens_is_priced():
    large = replace(WEIGHTS, num_parameters=10**9, num_active_parameters=10**9)
    prices = prices_of(machine(flops_per_s=1e10), work_of_parameters(GEOMETRY, large))
    assert prices.tables[LINEAR, SIZES] > 3_000 * PS_PER_S
    assert run([(0, 5, 5)], Concat(), prices).outcome.tolist() == [0]


def test_how_many_iterations_may_be_taken_at_once_is_what_64_bits_hold():
    rows = [(0, 1_000, 200)] * 8
    few, many = (check_requests(columns_of(rows), PRICES, max_batch) for max_batch in (2, 8))
    assert 1 < many < few
    same = [(0, 1_199, 1)] * 8  # as long in the end
    assert check_requests(columns_of(same), PRICES, 2) == few


def test_an_iterations_prompts_are_no_more_than_its_tokens():
    """2,000 prompts of 200,000 tokens might take two months at once; of chunks of 8,192 tokens none does."""
    columns = columns_of([(0, 200_000, 100)] * 2_000)
    with pytest.raises(ValueError, match=r"an iteration of the longest requests \(200,100 tokens\) may take"):
        check_requests(columns, PRICES, 2_000)
    assert check_requests(columns, PRICES, 2_000, scheduling=Scheduling(8_192)) > 1
    with pytest.raises(ValueError, match=r"an iteration of the longest requests \(2,147,483,648 tokens\) may take"):
        check_requests(columns_of([(0, 2**31 - 1, 1)]), PRICES, 2, scheduling=Scheduling(8_192, chunks=False))
