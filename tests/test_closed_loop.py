"""Clients that wait for their answers: what is under way, what is conserved, and the limits of one and of many."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.configuration.composed import composed
from kvbench.configuration.parts import parts_of
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.fleet.fleet import Fleet
from kvbench.strategy.paged import Paged
from kvbench.workload.arrivals import ClosedLoop, Poisson, clients_of
from kvbench.workload.conversation import Conversations, ParallelSampling
from tests.support.fleet_models import PRICES, SLOT_BYTES, columns_of
from tests.support.machines import GEOMETRY

ROOM = 4_096 + 512
PAGED = Paged(block_size=4, pool_tokens=4_096, window_blocks="keep")
LENGTHS = st.lists(st.tuples(st.just(0), st.integers(1, 30), st.integers(0, 24)), min_size=1, max_size=20)
RULES = st.sampled_from(
    [Scheduling(), Scheduling(8, counts_decode=True), Scheduling(16, mixes=False), Scheduling(32, chunks=False)]
)
SERVED = st.fixed_dictionaries(
    {
        "scheduling": RULES,
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(["round_robin", "least_loaded"]),
        "max_batch": st.integers(1, 6),
    }
)


def serve(rows, num_clients, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": ROOM * SLOT_BYTES, "max_batch": 64} | options
    return simulate(columns_of(rows, num_clients), PAGED, PRICES, **chosen)


@settings(max_examples=60, deadline=None)
@given(rows=LENGTHS, num_clients=st.integers(1, 9), options=SERVED)
def test_no_more_are_under_way_than_clients_and_nothing_is_lost(rows, num_clients, options):
    result = serve(rows, num_clients, **options)
    sent, ended = result.arrival_ns, result.finish_ns
    # Sent at the start, or at an end; in their order; each end frees one client.
    assert (sent[:num_clients] == 0).all()
    assert (np.diff(sent) >= 0).all()
    assert sent[num_clients:].tolist() == np.sort(ended)[: max(len(rows) - num_clients, 0)].tolist()
    under_way = [(sent <= moment).sum() - (ended <= moment).sum() for moment in np.concatenate([sent, ended])]
    assert max(under_way) <= num_clients
    # Tokens, and the order of moments.
    assert (result.outcome == 0).all()
    assert result.held_tokens.tolist() == [prompt + max(output - 1, 0) for _, prompt, output in sorted(rows)]
    assert result.totals.num_prompt_tokens + result.totals.num_decoded_tokens == result.held_tokens.sum()
    assert (sent <= result.admitted_ns).all()
    assert (result.admitted_ns <= ended).all()
    first = result.first_token_ns
    assert ((result.admitted_ns <= first) & (first <= ended) | (first == -1)).all()
    # What one request takes alone, it takes at least in company.
    assert result.totals.makespan_ns >= max(serve([row], 1).totals.makespan_ns for row in rows)


@settings(max_examples=30, deadline=None)
@given(rows=LENGTHS, options=SERVED)
def test_one_client_is_served_one_request_after_another(rows, options):
    result = serve(rows, 1, **options)
    took_ns = result.finish_ns - result.arrival_ns
    options |= {"replicas": 1}
    for number, row in enumerate(sorted(rows)):
        alone = serve([row], 1, **options)
        assert took_ns[number] == pytest.approx(alone.totals.makespan_ns, abs=1)  # what is cut off to nanoseconds
    assert result.totals.makespan_ns == result.finish_ns[-1] == result.arrival_ns[-1] + took_ns[-1]


@settings(max_examples=30, deadline=None)
@given(rows=LENGTHS, options=SERVED)
def test_as_many_clients_as_requests_are_all_at_once(rows, options):
    closed, at_once = serve(rows, len(rows), **options), serve(rows, None, **options)
    for name in ("admitted_ns", "first_token_ns", "finish_ns", "replica"):
        assert getattr(closed, name).tolist() == getattr(at_once, name).tolist()


def test_more_clients_are_served_no_slower_until_the_machine_is_full():
    rows = [(0, 20, 12)] * 64
    spans = [serve(rows, clients).totals.makespan_ns for clients in (1, 2, 4, 8, 16, 32, 64)]
    assert spans == sorted(spans, reverse=True)
    assert spans[0] > 2 * spans[-1]
    full = [serve(rows, clients, max_batch=4).totals.makespan_ns for clients in (8, 16, 64)]
    assert max(full) <= 1.02 * min(full)


def test_a_queue_that_is_the_clients_counts_in_ttft():
    result = serve([(0, 20, 12)] * 6, 4, max_batch=1)
    # One is served at a time: from the fourth on each has waited for three others, since its client sent it.
    waited = result.admitted_ns - result.arrival_ns
    alone_ns = serve([(0, 20, 12)], 1).totals.makespan_ns
    assert waited[3:] == pytest.approx([3 * alone_ns] * 3, abs=10)


def test_replicas_are_given_what_is_sent_when_it_is_sent():
    rows = [(0, 10, 24)] + [(0, 10, 2)] * 9
    result = serve(rows, 2, replicas=2, routing="least_loaded")
    busy = int(result.replica[0 if result.output_tokens[0] == 24 else int(np.argmax(result.output_tokens))])
    long = int(np.argmax(result.output_tokens))
    within = (result.arrival_ns < result.finish_ns[long]) & (np.arange(10) != long) & (result.arrival_ns > 0)
    assert within.any()
    assert (result.replica[within & (result.arrival_ns >= result.arrival_ns[long])] != busy).all()


def test_a_scenario_says_how_many_clients_there_are():
    config = composed({"scenario": "closed_loop", "backend": "modelled", "model": "llama3_8b", "hardware": "h100"})
    parts = parts_of(config)
    assert parts.workload.num_clients == 4
    scenario = Conversations(num_requests=5, arrivals=ClosedLoop(concurrency=3))
    columns = scenario.columns(np.random.default_rng(0))
    assert (columns.num_clients, columns.arrivals_ns.tolist()) == (3, [0] * 5)
    assert clients_of(Poisson()) is None
    with pytest.raises(ValueError, match="concurrency is a positive integer and at most 1,000,000, got 0"):
        ClosedLoop(concurrency=0)
    with pytest.raises(ValueError, match="samples of a prompt are sent at once, and clients of ClosedLoop"):
        ParallelSampling(arrivals=ClosedLoop())


def test_clients_send_no_faster_than_they_are_answered():
    config = composed({"scenario": "closed_loop", "backend": "fleet", "model": "llama3_8b", "hardware": "h100"})
    from kvbench.configuration.model import geometry_of
    from kvbench.configuration.parts import backend_of

    server = backend_of({**config, "backend": Fleet(rate_scale=2.0)}, geometry_of(config))
    columns = replace(columns_of([(0, 1, 1)]), num_clients=4)
    with pytest.raises(ValueError, match=r"rate_scale=2 is of .*set the scenario's arrivals.concurrency, 4 now"):
        server.arriving(columns)
