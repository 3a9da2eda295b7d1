"""The fleet's prefix cache: block by block as an engine's, by segments of runs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.eviction import EVICTIONS
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.fleet.routing import drawn, prefix_cost
from kvbench.fleet.state import ROUTINGS
from kvbench.fleet.steps import STEP_NS, steady_prices
from kvbench.strategy.paged import Paged
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns
from tests.support.fleet_models import SLOT_BYTES, results
from tests.support.imitated import Asked, Engine, contents_of
from tests.support.machines import GEOMETRY
from tests.test_fleet_groups import GEOMETRIES

STAGING = 1024 // 2
RULES = {"chunks": True, "counts_decode": True, "waits_for_end": False, "fits_prompts": True, "plans_steps": True}
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=14)
# Of each request: when it arrives, how much of which text before it begins with, more of a prompt, and an answer.
REQUESTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(0, 30), TOKENS, TOKENS), max_size=16)


def texts_of(drawn):
    """Prompts and answers, many of which begin with parts of others."""
    made = [(0, (0, 1, 0), (1, 1))]
    for arrival, which, cut, more, answer in drawn:
        prompt = (*(made[which % len(made)][1] + made[which % len(made)][2])[:cut], *more)
        made.append((arrival, prompt, tuple(answer)))
    return sorted(made)


def columns_of(texts):
    return TraceColumns(
        arrival_ns=np.array([arrival * STEP_NS for arrival, _, _ in texts]),
        num_prompt_tokens=np.array([len(prompt) for _, prompt, _ in texts]),
        num_output_tokens=np.array([len(answer) for _, _, answer in texts]),
        contents=contents_of([(prompt, answer) for _, prompt, answer in texts]),
    )


def served(columns, num_blocks, size, max_live, budget, prefix_caching=True, eviction="lru", **options):
    made = Paged(
        block_size=size,
        pool_tokens=num_blocks * size,
        window_blocks="keep",
        prefix_caching=prefix_caching,
        eviction=eviction,
    )
    chosen = {
        "geometry": GEOMETRY,
        "budget_bytes": (num_blocks * size + STAGING) * SLOT_BYTES,
        "max_batch": max_live,
        "scheduling": Scheduling(tokens=budget, sequences=max_live, **RULES),
    }
    return simulate(columns, made, steady_prices(SLOT_BYTES), **chosen | options)


def rank_of(columns, asked, size, eviction):
    """What a pool ranks blocks by, so that the least goes first."""
    sessions = columns.sessions.tolist()
    prompts = [each.keys[: each.prompt // size] for each in asked]

    def next_use(pool, block):
        users = [number for number, keys in enumerate(prompts) if pool.names[block] in keys]
        return min((number for number in users if number > pool.latest[block]), default=len(prompts))

    return {
        "lru": None,
        "fifo": lambda pool, block: pool.makers[block],
        "lfu": lambda pool, block: pool.num_found[block],
        "session": lambda pool, block: sessions[pool.latest[block]] in sessions[pool.latest[block] + 1 :],
        "optimal": lambda pool, block: -next_use(pool, block),
    }[eviction]


@settings(max_examples=400, deadline=None)
@given(
    drawn=REQUESTS,
    size=st.sampled_from([1, 2, 4]),
    spare=st.integers(0, 12),
    max_live=st.integers(1, 5),
    budget=st.integers(5, 20),
    is_stepped=st.booleans(),
    is_kept=st.booleans(),
    eviction=st.sampled_from(EVICTIONS),
    num_sessions=st.integers(1, 9),
)
def test_it_is_an_engines_block_by_block(
    drawn, size, spare, max_live, budget, is_stepped, is_kept, eviction, num_sessions
):
    texts = texts_of(drawn)
    columns = replace(columns_of(texts), sessions=np.arange(len(texts)) ** 2 % num_sessions)
    num_blocks = max(-(-(len(prompt) + len(answer)) // size) for _, prompt, answer in texts) + spare
    asked = [
        Asked(number, arrival, len(prompt), len(answer), columns.contents.block_keys(number, size) if is_kept else ())
        for number, (arrival, prompt, answer) in enumerate(texts)
    ]
    engine = Engine(asked, num_blocks, size, max_live, budget, rank=rank_of(columns, asked, size, eviction))
    engine.run()
    chosen = {"prefix_caching": is_kept, "eviction": eviction if is_kept else "lru"}
    found = served(columns, num_blocks, size, max_live, budget, step_by_step=is_stepped, **chosen)
    assert found.finish_ns.tolist() == [(request.finished + 1) * STEP_NS for request in asked]
    assert found.hit_tokens.tolist() == [request.hits for request in asked]
    assert found.admitted_ns.tolist() == [request.admitted * STEP_NS for request in asked]
    assert found.num_preemptions.tolist() == [request.num_preemptions for request in asked]
    assert np.argsort(found.finish_order).tolist() == engine.finished
    assert found.totals.num_evicted_blocks == engine.pool.num_evicted
    assert found.totals.num_queried_tokens == engine.num_queried * is_kept


ROUTED = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, 3),
        "routing": st.sampled_from(ROUTINGS),
        "routing_seed": st.integers(0, 3),
        "repeats": st.integers(1, 3),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    drawn=REQUESTS,
    spare=st.integers(0, 12),
    follows=st.booleans(),
    options=ROUTED,
    delay_ns=st.integers(0, 9 * STEP_NS),
    block=st.integers(1, 9),
)
def test_routed_in_jumps_step_by_step_and_in_blocks_it_is_the_same(drawn, spare, follows, options, delay_ns, block):
    if options["routing"] == "prefix":
        options = options | {"routing_delay_s": delay_ns / NS_PER_S}
    texts, pieces = texts_of(drawn), []
    columns = columns_of(texts)
    if follows:  # each the one before it, as turns of one session
        number = np.arange(len(texts))
        chain = {
            "parents": number[:-1],
            "parent_offsets": np.append(0, number),
            "sessions": number * 0,
            "turns": number,
        }
        columns = replace(columns, think_ns=columns.arrival_ns % 7, **chain)
    num_blocks = max(-(-(len(prompt) + len(answer)) // 2) for _, prompt, answer in texts) + spare
    chosen = (columns, num_blocks, 2, 3, 8)
    jumped = served(*chosen, **options)
    stepped = served(*chosen, step_by_step=True, **options)
    assert results(jumped) == results(stepped)
    assert (jumped.replica.tolist(), jumped.hit_tokens.tolist()) == (
        stepped.replica.tolist(),
        stepped.hit_tokens.tolist(),
    )
    assert jumped.totals == stepped.totals
    folded = served(*chosen, fold=pieces.append, block=block, **options)
    assert folded.totals == jumped.totals
    assert (jumped.outcome == 0).all()
    assert (
        sum(int(piece.hit_tokens.sum()) for piece in pieces) == jumped.hit_tokens.sum() == jumped.totals.num_hit_tokens
    )


def test_sessions_stay_where_they_began_and_choices_of_two_are_drawn_by_number():
    texts = [(i // 2, (i % 2, 1, 1, 0), (1,)) for i in range(40)]
    columns = replace(columns_of(texts), sessions=np.arange(40) % 5)
    homes = served(columns, 64, 2, 3, 8, replicas=3, routing="session").replica
    assert all((homes[columns.sessions == session] == homes[session]).all() for session in range(5))
    first, again, other = (
        served(columns, 64, 2, 3, 8, replicas=4, routing="power_of_two", routing_seed=seed).replica
        for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    assert set(first) == {0, 1, 2, 3}


def test_a_prompt_goes_where_its_blocks_are():
    # Two texts of 8 tokens, far apart: after the first two each one's blocks are on one replica.
    texts = [(20 * i, (which,) * 8, (0,)) for i, which in enumerate((0, 1, 1, 0, 0, 1))]
    found = served(columns_of(texts), 64, 2, 3, 16, replicas=2, routing="prefix")
    assert found.replica.tolist() == [0, 1, 1, 0, 0, 1]
    assert found.hit_tokens.tolist() == [0, 0, 6, 6, 6, 6]
    in_turn = served(columns_of(texts), 64, 2, 3, 16, replicas=2, routing="round_robin")
    assert in_turn.hit_tokens.tolist() == [0, 0, 0, 0, 6, 6]


def test_choices_are_plain_functions_of_integers():
    counts = np.bincount([drawn(number, 7, 5) for number in range(5_000)], minlength=5)
    assert counts.min() > 900
    assert (prefix_cost(3, 10, 2, 8, 1_000), prefix_cost(0, 10, 0, 8, 500)) == (29_000, 5_000)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"preemption": "swap"},
            "others may find are computed again after a preemption; got preemption=swap",
        ),
        (
            {"geometry": GEOMETRIES["states"]},
            r"states has 1 full layer, 1 state layer: fit the strategy to it first \(Strategy.fitted\)",
        ),
    ],
)
def test_what_is_not_shared_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        served(columns_of(texts_of([])), 64, 2, 3, 8, **changed)
