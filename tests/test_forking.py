"""Samples of one prompt, drawn in parallel: forks, shared blocks, and what preemption does to them."""

from dataclasses import replace

import pytest

from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.chain import Chain
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.paged import Paged
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.fake import MS, Fake
from tests.support.watched import Watched

TOKEN = TINY.bytes_per_token


def samples(*num_decoded, prompt=10):
    """Requests of one group, that decode so much each."""
    return [Session(0, (Request(prompt, count),), 0) for count in num_decoded]


def result(requests, strategy=None, backend=None, max_concurrency=8, pool_tokens=400):
    recorder = run(
        {"it": strategy or Paged(block_size=4, pool_tokens=pool_tokens)},
        requests,
        backend or Fake(),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=max_concurrency,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    return steps, requests_frame(recorder, steps, requests)


def first_steps(steps):
    """Each request's first step with tokens."""
    first = steps[steps["num_tokens"] > 0].groupby("session").first()
    return [f"{row.phase} {row.num_tokens}" for row in first.itertuples()]


@pytest.mark.parametrize("backend", [Fake, Watched])
def test_all_but_the_first_fork_and_share_the_prompts_blocks(backend):
    steps, frame = result(samples(5, 5, 5, 5), backend=backend())
    assert first_steps(steps) == ["prefill 10", "fork 10", "fork 10", "fork 10"]
    assert frame["outcome"].tolist() == ["completed"] * 4
    assert frame["held_tokens"].tolist() == [14] * 4
    own = steps[steps["num_tokens"] > 0]
    # Three blocks of 4 hold 10 tokens, however many share them.
    prompt = own[own["iteration"] == 0]
    assert prompt["used_bytes"].tolist() == [10 * TOKEN] * 4
    assert prompt["allocated_bytes"].tolist() == [12 * TOKEN] * 4
    assert prompt["kept_tokens"].tolist() == prompt["seen_tokens"].tolist() == [10] * 4
    # The third block has two tokens: three of four samples copy them before they write the next.
    decoded = own[own["iteration"] == 1]
    assert decoded["copied_bytes"].tolist() == [2 * TOKEN] * 3 + [0]
    assert decoded["used_bytes"].iloc[-1] == (8 + 4 * 3) * TOKEN
    assert decoded["allocated_bytes"].iloc[-1] == (8 + 4 * 4) * TOKEN
    # Each brings five tokens: one with its prompt, four with the next steps.
    assert own.groupby("session")["output_tokens"].sum().tolist() == [5] * 4
    assert steps["allocated_bytes"].iloc[-1] == 0


def test_a_fork_takes_no_time_and_brings_the_first_token():
    # 50 ms of prefill and no more in the first iteration; then iterations of 4 x 10 ms.
    _, frame = result(samples(5, 5, 5, 5))
    assert frame["ttft_s"].tolist() == pytest.approx([0.05] * 4, abs=0.004)
    assert frame["tpot_s"].tolist() == pytest.approx([0.04] * 4, abs=0.004)


@pytest.mark.parametrize("backend", [Fake, Watched])
def test_a_later_sample_forks_from_one_that_has_decoded_further(backend):
    # Two at once: the second ends after two steps, the third then forks from the first, whose third block is full.
    steps, frame = result(samples(20, 3, 3, 3), backend=backend(), max_concurrency=2)
    assert first_steps(steps) == ["prefill 10", "fork 10", "fork 10", "fork 10"]
    forks = steps[steps["phase"] == "fork"]
    assert forks["copied_bytes"].tolist() == [0, 2 * TOKEN, 2 * TOKEN]
    assert forks["iteration"].tolist() == [0, 3, 6]
    assert frame["held_tokens"].tolist() == [29, 12, 12, 12]
    assert steps.groupby("session")["output_tokens"].sum().tolist() == [20, 3, 3, 3]


def test_a_prompt_that_is_appended_in_parts_is_taken_over_at_once():
    # A fast tier of 64 tokens takes 48 at once; when the second arrives, the first has all 60 in it.
    chain = Chain(parts=[Paged(block_size=16, pool_tokens=640), strategy("hierarchical", fast_capacity=64)])
    first, second = samples(4, 4, prompt=60)
    steps, frame = result([first, replace(second, arrival_ns=105 * MS)], chain)
    assert first_steps(steps) == ["prefill 48", "fork 60"]
    assert frame["held_tokens"].tolist() == [63] * 2
    assert steps.groupby("session")["seen_tokens"].max().tolist() == [63] * 2


def test_where_all_others_have_ended_the_prompt_is_computed_again():
    steps, _ = result(samples(3, 3), max_concurrency=1)
    assert first_steps(steps) == ["prefill 10", "prefill 10"]


@pytest.mark.parametrize("backend", [Fake, Watched])
def test_a_forked_sample_is_preempted_and_computed_again_in_blocks_of_its_own(backend):
    # Two samples of 8 + 11 tokens: 2 shared blocks and 3 each, of a pool of 7. At 16 tokens each all but one are
    # taken; the first gets it, and for the second the youngest, itself, gives way.
    steps, frame = result(samples(12, 12, prompt=8), backend=backend(), pool_tokens=28)
    assert first_steps(steps) == ["prefill 8", "fork 8"]
    assert frame["outcome"].tolist() == ["completed"] * 2
    assert frame["num_preemptions"].tolist() == [0, 1]
    assert frame["held_tokens"].tolist() == [19, 19]
    again = steps[steps["phase"] == "recompute"]
    assert again[["session", "num_tokens"]].to_numpy().tolist() == [[1, 16]]
    assert again["allocated_bytes"].tolist() == [16 * TOKEN]
    assert steps.groupby("session")["output_tokens"].sum().tolist() == [12, 12]
    assert steps["allocated_bytes"].max() == 28 * TOKEN
    assert steps["allocated_bytes"].iloc[-1] == 0


def test_a_fork_waits_where_the_pool_has_no_block_for_its_copy():
    # The first holds all 5 blocks of the pool at 18 tokens; the second's fork needs one for the copy of 2 tokens, is
    # the youngest, and waits until the first has ended.
    requests = [Session(0, (Request(10, 9),), 0), Session(90_000_000, (Request(10, 1),), 0)]
    steps, frame = result(requests, pool_tokens=20)
    assert frame["outcome"].tolist() == ["completed"] * 2
    assert first_steps(steps)[1] in ("fork 10", "prefill 10")
    assert frame["num_preemptions"].tolist() == [0, 0]


def test_a_prompt_that_the_pool_cannot_hold_is_out_of_memory():
    steps, frame = result(
        [Session(0, (Request(30, 2),)), Session(0, (Request(5, 2),))], backend=Watched(), pool_tokens=20
    )
    assert frame["outcome"].tolist() == ["out_of_memory", "completed"]
    assert steps["allocated_bytes"].iloc[-1] == 0


def test_who_does_not_share_computes_each_prompt():
    steps, _ = result(samples(3, 3), strategy=Chunked(chunk_tokens=16))
    assert first_steps(steps) == ["prefill 10", "prefill 10"]
