"""Tiers below the device, by runner and by fleet: the same in every count and nanosecond."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.tiers import BELOW, TIER_LOADS, TIER_WRITES
from kvbench.fleet import simulate
from kvbench.strategy.paged import Paged
from kvbench.timing.links import link_of
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.contents import Keys
from kvbench.workload.request import Request, Session
from kvbench.workload.trace_columns import TraceColumns
from tests.support.imitated import contents_of
from tests.support.machines import GEOMETRY, WEIGHTS, WINDOWED, machine
from tests.test_fleet_prefix import REQUESTS, RULES, STAGING, texts_of
from tests.test_tiers import VLLM, modelled, served

ARRIVAL_NS = 30_000
"""Between moments: an iteration computes for 50 microseconds."""
RATES = st.sampled_from([1e6, 4e6, 3e7, 1e9])


@settings(max_examples=40, deadline=None)
@given(
    drawn_texts=REQUESTS,
    geometry=st.sampled_from([GEOMETRY, WINDOWED]),
    size=st.sampled_from([1, 2, 4]),
    spare=st.integers(0, 10),
    max_live=st.integers(1, 4),
    budget=st.integers(5, 20),
    tiers=st.lists(st.integers(0, 8), min_size=3, max_size=3),
    rates=st.tuples(RATES, RATES, RATES),
    spread=st.sampled_from([None, 1.0]),
    writes=st.sampled_from(TIER_WRITES),
    loads=st.sampled_from(TIER_LOADS),
    is_stepped=st.booleans(),
)
def test_runner_and_fleet_are_equal(
    drawn_texts, geometry, size, spare, max_live, budget, tiers, rates, spread, writes, loads, is_stepped
):
    made, slot_bytes = texts_of(drawn_texts), geometry.bytes_per_token
    contents = contents_of([(prompt, answer) for _, prompt, answer in made])
    prompts, answers = ([len(each[place]) for each in made] for place in (1, 2))
    arrivals = [arrival * ARRIVAL_NS for arrival, *_ in made]
    num_blocks = max(-(-(prompt + answer) // size) for prompt, answer in zip(prompts, answers, strict=True)) + spare
    there = {tier: count for tier, count in zip(BELOW, tiers, strict=True) if count}
    host, disk, remote = rates
    hardware = machine(
        **{"host_bytes_per_s": host, "disk_bytes_per_s": disk, "disk_s": 7e-6, "transfer_s": 5.4321e-6},
        **{"remote_bytes_per_s": remote, "remote_s": 2e-5, "remote_spread": spread},
    )
    options = {
        **{"tier_writes": writes, "tier_loads": loads, "window_blocks": "keep"},
        **{f"{tier}_bytes": count * size * slot_bytes for tier, count in there.items()},
    }
    sessions = [
        Session(arrival, (Request(prompt, answer),), keys=Keys(contents, number))
        for number, (arrival, prompt, answer) in enumerate(zip(arrivals, prompts, answers, strict=True))
    ]
    backend = modelled(VLLM._replace(tokens=budget, sequences=max_live), hardware, seed=5, geometry=geometry)
    recorder, _, frame = served(sessions, backend, num_blocks, size, **options)

    columns = TraceColumns(
        arrival_ns=np.array(arrivals),
        num_prompt_tokens=np.array(prompts),
        num_output_tokens=np.array(answers),
        contents=contents,
    )
    found = simulate(
        columns,
        Paged(block_size=size, pool_tokens=num_blocks * size, prefix_caching=True, **options),
        prices_of(hardware, work_of_parameters(geometry, WEIGHTS)),
        geometry=geometry,
        budget_bytes=(num_blocks * size + STAGING) * slot_bytes,
        max_batch=max_live,
        scheduling=VLLM._replace(tokens=budget, sequences=max_live, **RULES),
        links={tier: link_of(hardware, tier, size * slot_bytes) for tier in there},
        seed=5,
        step_by_step=is_stepped,
    )
    by_session = sorted(recorder.requests, key=lambda row: row.session)
    assert found.hit_tokens.tolist() == [row.hit_tokens for row in by_session]
    for tier in BELOW:
        ours = [row.loaded_tokens.get(tier, 0) for row in by_session]
        assert getattr(found, f"{tier}_tokens").tolist() == ours
    assert found.num_preemptions.tolist() == [row.num_preemptions for row in by_session]
    finished = np.rint((frame["arrival_s"] + frame["latency_s"]).to_numpy() * 1e9).astype(np.int64)
    assert found.finish_ns.tolist() == finished.tolist()
    assert found.load_ps.tolist() == [row.load_wait_ps for row in by_session]
    block_bytes = size * slot_bytes
    moved = [(num_loaded * block_bytes, num_written * block_bytes) for _, num_loaded, num_written, *_ in found.tiers]
    assert moved == [(row["loaded_bytes"], row["written_bytes"]) for row in recorder.tiers]
