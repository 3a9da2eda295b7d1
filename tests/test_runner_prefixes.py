"""Requests that are turns of their own: they follow others, and find in the pool what these left there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kvbench.backend.counted import CountedBackend
from kvbench.configuration.composed import composed
from kvbench.configuration.parts import parts_of
from kvbench.engine.scheduling import Scheduling
from kvbench.integrations.fitting import check_fits
from kvbench.plan.ops import MAIN
from kvbench.results.summary import sessions_frame
from kvbench.runner.frames import requests_frame, results_of, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.paged import Paged
from kvbench.workload.columns import requests_by_turn
from kvbench.workload.request import Request, Session
from kvbench.workload.trace_columns import TraceColumns
from tests.support.catalogue import TINY
from tests.support.driven import Cache, tokens
from tests.support.watched import Watched
from tests.test_prefix_operations import BLOCK, texts

STEP_NS = 1_000_000
VLLM = Scheduling(tokens=32, sequences=8, counts_decode=True, waits_for_end=False, fits_prompts=True, plans_steps=True)


def served(sessions, rules=VLLM, num_blocks=20, backend=None, **options):
    backend = backend or CountedBackend(TINY, STEP_NS, rules)
    recorder = run(
        {"it": Paged(block_size=BLOCK, pool_tokens=num_blocks * BLOCK, **{"prefix_caching": True} | options)},
        sessions,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=8,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    return recorder, steps, requests_frame(recorder, steps, sessions)


def after(session, parents, think_ns=0, num_output=3, **more):
    """A request that follows others, and answers with so many tokens."""
    (turn,) = session.turns
    asked = Request(turn.num_append_tokens, num_output, think_ns)
    return replace(session, turns=(asked,), parents=parents, **more)


def test_a_request_comes_when_all_that_it_follows_have_ended_and_its_think_time_is_over():
    # The first takes 3 steps, the second 5; who follows both comes 2 ms after the later one, and ends 3 steps on.
    alone = [Session(0, (Request(4, 3),)), Session(0, (Request(4, 5),))]
    joined = Session(0, (Request(4, 3, 2 * STEP_NS),), parents=(0, 1))
    late = Session(30 * STEP_NS, (Request(4, 1),), parents=(0,))
    _, _, frame = served([*alone, joined, late])
    assert frame["arrival_s"].tolist() == [0, 0, 0.007, 0.030]
    assert frame["latency_s"].tolist() == pytest.approx([0.003, 0.005, 0.003, 0.001])


def test_who_follows_a_request_that_does_not_fit_is_not_reached():
    sessions = [
        Session(0, (Request(100, 2),)),
        Session(0, (Request(4, 2),), parents=(0,)),
        Session(0, (Request(4, 2),), parents=(1,)),
        Session(0, (Request(4, 2),)),
    ]
    _, _, frame = served(sessions, num_blocks=10)
    assert frame["outcome"].tolist() == ["out_of_memory", "unreached", "unreached", "completed"]


@pytest.mark.parametrize("rules", [VLLM, Scheduling()])
def test_a_later_turn_finds_what_the_one_before_left(rules):
    # A prompt of 10 and its answer of 3 fill 3 blocks of 4; the next turn has 20 tokens, which go through them.
    (first, second) = texts([("a", 10), ("answer", 2)], [("a", 10), ("answer", 2), ("b", 8)])
    first = replace(first, turns=(Request(10, 3),), place=(0, 0))
    recorder, steps, frame = served([first, after(second, (0,), place=(0, 1))], rules)
    assert [row.hit_tokens for row in recorder.requests] == [0, 12]
    assert frame[["session", "turn", "outcome"]].to_numpy().tolist() == [[0, 0, "completed"], [0, 1, "completed"]]
    own = steps[(steps["turn"] == 1) & (steps["num_tokens"] > 0)]
    assert own["num_tokens"].tolist() == [8, 1, 1]
    assert own["seen_tokens"].tolist() == [20, 21, 22]
    assert frame["hit_tokens"].tolist() == [0, 12]
    assert sessions_frame(frame)["hit_tokens"].tolist() == [12]
    results = results_of(recorder, [first, second], CountedBackend(TINY), "it")
    assert results.summary["hit_share"].tolist() == [12 / 30]


def test_requests_of_one_step_find_each_others_blocks_where_steps_are_planned():
    a, b = texts([("a", 12), ("b", 1)], [("a", 12), ("c", 1)])
    recorder, _, _ = served([a, b])
    assert [row.hit_tokens for row in recorder.requests] == [0, 12]


def test_who_gave_way_finds_its_own_blocks_again_and_they_count_once():
    # Two prompts of 8 in a pool of 6 blocks of 4: the youngest gives way, and comes back to its first blocks.
    a, b = (replace(each, turns=(Request(8, 12),)) for each in texts([("a", 19)], [("b", 19)]))
    recorder, steps, frame = served([a, b], num_blocks=6)
    assert frame["outcome"].tolist() == ["completed"] * 2
    assert frame["num_preemptions"].tolist() == [0, 1]
    assert [row.hit_tokens for row in recorder.requests] == [0, 0]
    again = steps[steps["phase"] == "recompute"]
    assert again["output_tokens"].tolist() == [1]  # with the token that it was about to compute
    assert steps.groupby("session")["output_tokens"].sum().tolist() == [12, 12]


def test_nobody_is_admitted_whose_whole_prompt_does_not_fit():
    # Of 10 blocks the first holds 4; a prompt of 28 tokens needs 7 and waits, though its first chunk would fit.
    sessions = [Session(0, (Request(13, 4),)), Session(0, (Request(28, 1),))]
    _, steps, _ = served(sessions, num_blocks=10)
    assert steps[steps["session"] == 1]["iteration"].min() == 4
    _, steps, _ = served(sessions, VLLM._replace(fits_prompts=False), num_blocks=10)
    assert steps[steps["session"] == 1]["iteration"].min() == 0


def test_columns_become_requests_with_parents_and_names():
    columns = TraceColumns(
        arrival_ns=np.array([0, 0, 5]),
        num_prompt_tokens=np.array([4, 9, 12]),
        num_output_tokens=np.array([2, 1, 1]),
        sessions=np.array([0, 0, 1]),
        turns=np.array([0, 1, 0]),
        parents=np.array([0]),
        parent_offsets=np.array([0, 0, 1, 1]),
        think_ns=np.array([0, 7, 0]),
        tenants=np.array([3, 3, 4]),
    )
    found = requests_by_turn(columns)
    assert [each.parents for each in found] == [(), (0,), ()]
    assert [each.place for each in found] == [(0, 0), (0, 1), (1, 0)]
    assert [each.tenant for each in found] == [3, 3, 4]
    assert found[1].turns == (Request(9, 1, 7),)
    assert found[0].keys is None


def config(**settings):
    chosen = {"scenario": "multi_turn_chat", "backend": "counted", "strategy": "paged", "model": "llama3_8b"}
    return composed(chosen | settings, None, {"scenario.max_requests": 4})


def test_turns_are_requests_of_their_own_where_the_engine_keeps_prefixes():
    parts = parts_of(config(engine="vllm"))
    assert parts.workload.num_sessions == 4 < len(parts.workload.sessions)
    assert all(len(each.turns) == 1 for each in parts.workload.sessions)
    assert parts.strategies["paged"].prefix_caching is True
    plain = parts_of(config())
    assert plain.workload.num_sessions == len(plain.workload.sessions) == 4
    assert plain.strategies["paged"].prefix_caching is False


def test_tensors_that_are_found_give_the_same_attention():
    (first, second) = texts([("a", 12), ("b", 3)], [("a", 12), ("c", 5)])
    generator = torch.Generator().manual_seed(0)
    shared = tokens(generator, 1, 12), tokens(generator, 1, 12)
    own = tokens(generator, 1, 5), tokens(generator, 1, 5)
    queries = [torch.randn(1, TINY.plain.num_heads, 5, TINY.plain.head_dim, generator=generator)] * TINY.num_layers
    outputs = []
    for caching in (True, False):
        cache = Cache(Paged(block_size=BLOCK, pool_tokens=80, prefix_caching=caching), attend=True)
        cache.admit(first)
        cache.append(*shared)
        cache.carry_out(cache.strategy.on_finish(0, cache.view))
        cache.admit(second, 1)
        cache.carry_out(cache.strategy.on_reuse(1, 17, cache.view))
        assert cache.view.num_used(1, MAIN) == 12 * caching
        if not caching:
            cache.append(*shared, 1)
        cache.step(*own, seq=1, queries=queries)
        outputs.append(cache.outputs)
    for with_, without in zip(*outputs, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(with_, without, strict=True))


def test_a_measured_run_finds_what_a_counted_one_does_and_leaves_nothing():
    (first, second) = texts([("a", 10), ("b", 2)], [("a", 10), ("b", 2), ("c", 8)])
    sessions = [after(first, ()), after(second, (0,))]
    measured, _, _ = served(sessions, backend=Watched())
    assert [row.hit_tokens for row in measured.requests] == [0, 12]


def test_a_models_cache_refuses_to_keep_blocks_of_tokens_that_it_does_not_see():
    with pytest.raises(ValueError, match=r"Paged keeps blocks for later requests, .* set prefix_caching to false"):
        check_fits(Paged(prefix_caching=True), TINY, None, 64)
    check_fits(Paged(), TINY, None, 64)
