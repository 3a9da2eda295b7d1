"""What no load and no machine changes: tokens, that faster machines are no slower, and what a machine does at most."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from kvbench.timing.prices import STEP
from kvbench.timing.pricing import prices_of
from tests.support.fleet_models import PRICES, SLOT_BYTES, columns_of
from tests.support.machines import GEOMETRY, WORK, machine

STAGING = 1024 // 2
STRATEGIES = {
    "paged": Paged(block_size=4, pool_tokens=120, window_blocks="keep"),
    "dynamic": Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=64, round_to=4),
    "static": Static(max_seq_len=64),
}
NAMES = st.sampled_from(sorted(STRATEGIES))
STAGES = st.integers(1, 4)
LENGTHS = st.tuples(st.integers(1, 30), st.integers(1, 24))
RULES = st.sampled_from(
    [Scheduling(), Scheduling(8, counts_decode=True), Scheduling(16, mixes=False), Scheduling(32, chunks=False)]
)


def served(rows, name="static", prices=PRICES, slots=200, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": (slots + STAGING) * SLOT_BYTES, "max_batch": 6} | options
    return simulate(columns_of(rows), STRATEGIES[name], prices, **chosen)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 4_000), LENGTHS), min_size=1, max_size=14),
    name=NAMES,
    stages=STAGES,
    rules=RULES,
    preemption=st.sampled_from(["recompute", "swap"]),
)
def test_what_comes_out_is_what_was_asked_for(lengths, name, stages, rules, preemption):
    rows = [(arrival, *own) for arrival, own in lengths]
    prices = prices_of(machine(), WORK._replace(stages=(2,) * stages))
    result = served(rows, name, prices, scheduling=rules, preemption=preemption)
    assert (result.outcome == 0).all()
    # A prompt brings the first token, each step one more; what is computed again is no token of it.
    totals, asked = result.totals, np.array([row[1:] for row in rows]).sum(axis=0)
    assert totals.num_decoded_tokens + len(rows) == asked[1]
    assert totals.num_prompt_tokens == asked[0]
    assert (result.arrival_ns <= result.admitted_ns).all()
    assert (result.admitted_ns <= result.first_token_ns).all()
    assert (result.first_token_ns <= result.finish_ns).all()
    assert totals.busy_ns <= totals.makespan_ns == result.finish_ns.max()


FASTER = {"memory_bytes_per_s": 64e9, "flops_per_s": 128e9, "host_bytes_per_s": 6.4e9}
"""Rates of the machine of round figures."""


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=14),
    name=NAMES,
    stages=STAGES,
    rules=RULES,
    preemption=st.sampled_from(["recompute", "swap"]),
    faster=st.fixed_dictionaries({figure: st.floats(1.0, 20.0) for figure in FASTER}),
)
def test_more_bandwidth_and_operations_make_nothing_later(lengths, name, stages, rules, preemption, faster):
    # All come at once: whoever is admitted with whom hangs on no clock, which could make a fast machine the slower one.
    rows, work = [(0, *own) for own in lengths], WORK._replace(stages=(2,) * stages)
    plain, fast = (
        served(rows, name, prices_of(made, work), scheduling=rules, preemption=preemption)
        for made in (machine(), machine(**{figure: FASTER[figure] * times for figure, times in faster.items()}))
    )
    for moment in ("admitted_ns", "first_token_ns", "finish_ns"):
        assert (getattr(fast, moment) <= getattr(plain, moment)).all()
    assert fast.totals.busy_ns <= plain.totals.busy_ns


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=14), rules=RULES, max_batch=st.integers(1, 6))
def test_saturated_it_is_as_fast_as_its_best_batch_at_most_and_one_by_one_at_least(lengths, rules, max_batch):
    rows = [(0, *own) for own in lengths]
    result = served(rows, scheduling=rules, max_batch=max_batch, slots=2_000)
    steps_ps = PRICES.tables[STEP, : max_batch + 1].astype(float)
    best_ps = (steps_ps[1:] / np.arange(1, max_batch + 1)).min()
    assert result.totals.makespan_ns * 1_000 >= result.totals.num_decoded_tokens * best_ps
    serial = served(rows, scheduling=rules, max_batch=1, slots=2_000).totals.makespan_ns
    alone = [served([row], scheduling=rules, max_batch=1, slots=2_000).totals.makespan_ns for row in rows]
    assert abs(serial - sum(alone)) <= len(rows)  # what is cut off to nanoseconds
    assert max(alone) <= result.totals.makespan_ns <= serial
