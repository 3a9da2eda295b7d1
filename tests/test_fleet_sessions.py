"""Turns that follow others in a fleet: when they are sent, by whom, and that they are served as any others then."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.strategy.paged import Paged
from kvbench.workload.trace_columns import TraceColumns
from tests.support.fleet_models import PRICES, SLOT_BYTES, results
from tests.support.machines import GEOMETRY

SLOTS = 256
PAGED = Paged(block_size=4, pool_tokens=SLOTS, window_blocks="keep")
# Of each request: arrival in ns, prompt, output, think time in ns, and how far before it those stand that it follows.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 400_000),
        st.integers(1, 30),
        st.integers(0, 24),
        st.integers(0, 300_000),
        st.sets(st.integers(1, 5), max_size=2),
    ),
    min_size=1,
    max_size=14,
)
OPTIONS = st.fixed_dictionaries(
    {
        "scheduling": st.sampled_from([Scheduling(), Scheduling(8, counts_decode=True, plans_steps=True)]),
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(["round_robin", "least_loaded"]),
        "max_batch": st.integers(1, 4),
    }
)


def columns_of(rows, num_clients=None):
    rows = sorted(rows, key=lambda row: row[0] if num_clients is None else 0)
    arrival, prompt, output, think = (np.array([row[i] for row in rows]) for i in range(4))
    parents = [[number - back for back in sorted(row[4]) if back <= number] for number, row in enumerate(rows)]
    sessions = np.arange(len(rows))
    for number, own in enumerate(parents):
        for parent in own:
            sessions[sessions == sessions[parent]] = sessions[number]
    return TraceColumns(
        arrival_ns=arrival if num_clients is None else np.zeros(len(rows), np.int64),
        num_prompt_tokens=prompt,
        num_output_tokens=output,
        sessions=np.unique(sessions, return_inverse=True)[1],
        parents=np.array([parent for own in parents for parent in own], np.int64),
        parent_offsets=np.cumsum([0, *(len(own) for own in parents)]),
        think_ns=think,
        num_clients=num_clients,
    )


def serve(columns, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": (SLOTS + 512) * SLOT_BYTES, "max_batch": 4}
    return simulate(columns, PAGED, PRICES, **chosen | options)


def begins(columns, finish_ns, number):
    own = columns.parents[columns.parent_offsets[number] : columns.parent_offsets[number + 1]]
    after = (int(finish_ns[parent]) + int(columns.think_ns[number]) for parent in own)
    return max((int(columns.arrival_ns[number]), *after))


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, options=OPTIONS)
def test_a_turn_is_sent_after_all_that_it_follows_and_served_as_if_it_came_then(rows, options):
    columns = columns_of(rows)
    found = serve(columns, **options)
    assert found.arrival_ns.tolist() == [begins(columns, found.finish_ns, number) for number in range(len(rows))]
    order = np.argsort(found.arrival_ns, kind="stable")
    known = TraceColumns(
        arrival_ns=found.arrival_ns[order],
        num_prompt_tokens=columns.num_prompt_tokens[order],
        num_output_tokens=columns.num_output_tokens[order],
    )
    again = serve(known, **options)
    place = np.argsort(order)
    assert {name: np.array(values)[place].tolist() for name, values in results(again).items()} == results(found)
    assert again.replica[place].tolist() == found.replica.tolist()
    assert again.totals == found.totals


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, options=OPTIONS, block=st.integers(1, 9), repeats=st.integers(1, 3))
def test_turns_in_blocks_and_step_by_step_are_those_of_the_whole_trace(rows, options, block, repeats):
    columns, pieces = columns_of(rows), []
    whole = serve(columns, repeats=repeats, **options)
    stepped = serve(columns, repeats=repeats, step_by_step=True, **options)
    assert results(whole) == results(stepped)
    assert whole.totals == stepped.totals
    folded = serve(columns, repeats=repeats, fold=pieces.append, block=block, **options)
    assert folded.totals == whole.totals
    ended = sorted(
        zip(*(np.concatenate([getattr(piece, name) for piece in pieces]).tolist() for name in NAMES), strict=True)
    )
    assert ended == sorted(zip(*(getattr(whole, name).tolist() for name in NAMES), strict=True))


NAMES = ("arrival_ns", "finish_ns", "prompt_tokens", "output_tokens", "replica", "finish_order")


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, options=OPTIONS, num_clients=st.integers(1, 4))
def test_clients_have_a_session_each(rows, options, num_clients):
    columns = columns_of(rows, num_clients)
    if (np.bincount(columns.sessions[np.diff(columns.parent_offsets) == 0]) > 1).any():
        with pytest.raises(ValueError, match=r"a client sends a session's first turn, and session \d has several"):
            serve(columns, **options)
        return
    found = serve(columns, **options)
    sessions = [columns.sessions == session for session in range(columns.sessions.max() + 1)]
    begun = np.array([found.arrival_ns[own].min() for own in sessions])
    ended = np.array([found.finish_ns[own].max() for own in sessions])
    for number in range(len(rows)):
        if columns.parent_offsets[number] < columns.parent_offsets[number + 1]:
            assert found.arrival_ns[number] == begins(columns, found.finish_ns, number)
    for moment in begun:
        assert ((begun <= moment) & (ended > moment)).sum() <= num_clients


def test_a_request_that_follows_a_later_one_is_refused():
    columns = columns_of([(0, 1, 1, 0, set()), (0, 1, 1, 0, set())])
    wrong = replace(columns, parents=np.array([1]), parent_offsets=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="request 0 follows request 1; whom it follows stands before it"):
        serve(wrong)
