"""Tiers below the device: by hand, against an imitation, and what the ledger refuses."""

from dataclasses import replace

import numpy as np
import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.counted import CountedBackend
from kvbench.backend.modelled import Modelled
from kvbench.engine.tiers import DRAWS, drawn, is_worth, latencies_ps
from kvbench.results.summary import sessions_frame
from kvbench.runner.frames import requests_frame, results_of, steps_frame
from kvbench.runner.run import run
from kvbench.strategy.paged import Paged
from kvbench.workload.contents import Keys
from kvbench.workload.request import Request, Session
from tests.support.imitated import Asked, contents_of
from tests.support.imitated_tiers import TieredEngine
from tests.support.machines import GEOMETRY, WEIGHTS, machine
from tests.test_fleet_prefix import texts_of
from tests.test_prefix_operations import texts
from tests.test_runner_prefixes import STEP_NS, VLLM

SIZE = 4
BLOCK_BYTES = 256
"""Of 4 slots of 64 bytes."""
# A block takes 100 microseconds from the host, 200 from the disk, 256 from the store; an iteration computes for 50.
SLOW = machine(host_bytes_per_s=2.56e6, disk_bytes_per_s=1.28e6, disk_s=7e-9, remote_bytes_per_s=1e6, remote_s=9e-9)


def modelled(rules=VLLM, hardware=SLOW, seed=0, geometry=GEOMETRY):
    conditions = Conditions(geometry=geometry, hardware=hardware, weights=WEIGHTS, seed=seed)
    backend = Modelled(memory_fraction=0.5).made(conditions)
    backend.scheduling = rules
    return backend


def served(sessions, backend, num_blocks=4, size=SIZE, **options):
    recorder = run(
        {"it": Paged(block_size=size, pool_tokens=num_blocks * size, **{"prefix_caching": True} | options)},
        sessions,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=backend.scheduling.sequences or 8,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    return recorder, steps, requests_frame(recorder, steps, sessions)


def in_a_row(*lines, num_output=1):
    """Requests of these words, each long after the one before."""
    return [
        replace(each, turns=(Request(each.turns[0].num_append_tokens, num_output),), arrival_ns=number * 10_000_000)
        for number, each in enumerate(texts(*lines))
    ]


AGAIN = in_a_row([("a", 13)], [("b", 13)], [("a", 13)])


def test_what_was_evicted_is_loaded_again_by_hand():
    # A fills 3 blocks and part of a fourth, and lets go: a2, a1, a0 are stored. B needs all 4 blocks, so that A's go.
    # C, which is A again, finds none, and loads 3 blocks of 100 microseconds each, 5 ns of latency behind; it computes
    # one token. Its own blocks become the newest, which writes nothing.
    backend = modelled()
    backend.load_times.token_ps = 16_000  # so that computing what is loaded would take 12 times 16 ns
    recorder, steps, frame = served(AGAIN, backend, host_bytes=6 * BLOCK_BYTES + 100)
    assert frame["hit_tokens"].tolist() == [0, 0, 0]
    assert frame["host_tokens"].tolist() == [0, 0, 12]
    assert frame["load_wait_s"].tolist() == [0, 0, pytest.approx(300.005e-6)]
    assert steps.loc[steps["phase"] == "prefill", "num_tokens"].tolist() == [13, 13, 1]
    own = steps[steps["session"] == 2]
    assert own["phase"].tolist() == ["admit", "prefill", "finish", "load"]
    assert own["moved_bytes"].tolist() == [3 * BLOCK_BYTES, 0, 0, 0]
    assert own["step_us"].sum() == pytest.approx(300.005)
    assert frame["latency_s"][2] == pytest.approx(300.005e-6)
    assert steps["host_bytes"].max() == 6 * BLOCK_BYTES
    (row,) = recorder.tiers
    assert row == {
        **{"repetition": 0, "strategy": 0, "tier": "host"},
        **{"loaded_bytes": 3 * BLOCK_BYTES, "written_bytes": 6 * BLOCK_BYTES, "prefetched_bytes": 0},
        **{"load_s": pytest.approx(3e-4), "write_s": pytest.approx(6e-4)},
        "saved_s": pytest.approx(192e-9),
    }
    found = results_of(recorder, AGAIN, backend, "it").summary.iloc[0]
    assert (found["host_hit_share"], found["host_loaded_bytes"]) == (12 / 39, 3 * BLOCK_BYTES)
    assert (found["host_load_s"], found["host_saved_s"]) == (pytest.approx(3e-4), pytest.approx(192e-9))
    assert found["host_load_share"] == pytest.approx(3e-4 / found["makespan_s"])
    assert found["host_write_share"] == pytest.approx(6e-4 / found["makespan_s"])
    assert np.isnan(found["hit_share"])
    assert np.isnan(found["disk_hit_share"])
    assert found["peak_host_bytes"] == 6 * BLOCK_BYTES
    assert sessions_frame(frame)["host_tokens"].tolist() == [0, 0, 12]


def test_what_leaves_the_host_goes_down_and_out_by_hand():
    # Of 3 blocks on the host and 2 on the disk: after B the host has b2, b1, b0; a2, a1 and a0 came to the disk, and a2
    # left it. C loads a0 and a1 from there, 200 microseconds each, and computes 5 tokens. As it lets go, a2, a1 and a0
    # push B's down, of which b1 and b0 stay.
    recorder, steps, frame = served(AGAIN, modelled(), host_bytes=3 * BLOCK_BYTES, disk_bytes=2 * BLOCK_BYTES)
    assert frame[["host_tokens", "disk_tokens", "remote_tokens"]].to_numpy().tolist() == [[0, 0, 0]] * 2 + [[0, 8, 0]]
    assert steps.loc[steps["phase"] == "prefill", "num_tokens"].tolist() == [13, 13, 5]
    assert steps.loc[steps["session"] == 2, "step_us"].sum() == pytest.approx(400.012)
    host, disk = recorder.tiers
    assert (host["written_bytes"], host["loaded_bytes"]) == (9 * BLOCK_BYTES, 0)
    assert (disk["written_bytes"], disk["loaded_bytes"]) == (6 * BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert (steps["host_bytes"].iloc[-1], steps["disk_bytes"].iloc[-1]) == (3 * BLOCK_BYTES, 2 * BLOCK_BYTES)


def test_by_eviction_only_what_the_device_drops_is_stored():
    # B's 4 blocks drop A's 3; C loads them into the one that is free and two of B's, and computes into the last.
    recorder, _, frame = served(AGAIN, modelled(), host_bytes=3 * BLOCK_BYTES, tier_writes="eviction")
    assert frame["host_tokens"].tolist() == [0, 0, 12]
    (row,) = recorder.tiers
    assert row["written_bytes"] == 6 * BLOCK_BYTES  # the room for the loads pushed out what is loaded all the same


def test_loads_of_one_iteration_queue_and_all_wait_for_the_last():
    # A and B again, come together: 3 blocks and 3 behind them.
    sessions = [*in_a_row([("a", 13)], [("b", 13)], [("c", 29)], [("a", 13)], [("b", 13)])]
    sessions[4] = replace(sessions[4], arrival_ns=sessions[3].arrival_ns)
    _, steps, frame = served(sessions, modelled(), num_blocks=8, host_bytes=40 * BLOCK_BYTES)
    assert frame["load_wait_s"].tolist()[3:] == [pytest.approx(300.005e-6), pytest.approx(600.005e-6)]
    assert frame["latency_s"].tolist()[3:] == [pytest.approx(600.005e-6)] * 2
    last = steps[steps["iteration"] == steps["iteration"].max()]
    assert last["step_us"].sum() == pytest.approx(600.005)


def test_who_has_no_room_for_its_loads_waits_with_nothing_taken():
    # Whole prompts need not fit. A again comes with C, which takes 2 of the 4 blocks for 3 steps; A is to load 3.
    sessions = in_a_row([("a", 13)], [("b", 13)], [("c", 5)], [("a", 13)])
    sessions[2] = replace(sessions[2], turns=(Request(5, 3),))
    sessions[3] = replace(sessions[3], arrival_ns=sessions[2].arrival_ns)
    _, steps, frame = served(sessions, modelled(VLLM._replace(fits_prompts=False)), host_bytes=40 * BLOCK_BYTES)
    assert frame["host_tokens"].tolist() == [0, 0, 0, 12]
    assert frame["num_preemptions"].tolist() == [0] * 4
    assert steps.loc[steps["session"] == 3, "phase"].tolist() == ["admit", "prefill", "finish", "load"]
    assert frame["latency_s"][3] == pytest.approx(frame["latency_s"][2] + 300.005e-6)


def test_who_gave_way_comes_back_from_the_tier():
    # Two prompts of 8 in a pool of 6 blocks: the youngest gives way, and loads what was evicted.
    a, b = (replace(each, turns=(Request(8, 12),)) for each in texts([("a", 19)], [("b", 19)]))
    recorder, steps, frame = served([a, b], modelled(), num_blocks=6, host_bytes=20 * BLOCK_BYTES)
    assert frame["num_preemptions"].tolist() == [0, 1]
    assert frame["host_tokens"].tolist() == [0, 0]  # as it was first admitted
    assert frame["load_wait_s"][1] > 0
    assert recorder.tiers[0]["loaded_bytes"] > 0
    again = steps[steps["phase"] == "recompute"]
    without = served([a, b], modelled(), num_blocks=6)[1]
    assert again["num_tokens"].sum() < without.loc[without["phase"] == "recompute", "num_tokens"].sum()
    assert steps.groupby("session")["output_tokens"].sum().tolist() == [12, 12]


@pytest.mark.parametrize(("slower", "loaded"), [(1.0, 12), (2.0, 0)])
def test_by_cost_a_stretch_is_loaded_if_that_takes_no_longer_than_computing_it(slower, loaded):
    backend = modelled()
    each_ps = SIZE * backend.load_times.token_ps
    # 3 blocks and the latency of 5 ns in the time that 12 tokens are computed in, or twice it.
    seconds = (3 * each_ps * slower - 5_000) / 3 / 1e12
    backend = modelled(hardware=machine(host_bytes_per_s=BLOCK_BYTES / seconds * (1 + 1e-6)))
    _, _, frame = served(AGAIN, backend, host_bytes=6 * BLOCK_BYTES, tier_loads="cost")
    assert frame["host_tokens"].tolist() == [0, 0, loaded]


def test_the_cost_of_a_load_has_the_queue_in_it():
    assert is_worth(0, 5, 2, 10, 4, 4)
    assert is_worth(7, 5, 2, 10, 4, 4)
    assert not is_worth(8, 5, 2, 10, 4, 4)


def test_latencies_vary_about_their_median_and_are_the_same_for_a_seed():
    table = latencies_ps(100, 1_000, 0.5)
    assert sorted(table) == list(table)
    assert pytest.approx(np.median(table), abs=2) == 100 + 1_000
    assert np.log(np.array(table) / 1_000 - 0.1).std() == pytest.approx(0.5, abs=0.01)
    assert set(latencies_ps(100, 1_000, 0.0)) == {1_100}
    places = [drawn(7, 0, number) for number in range(100_000)]
    assert np.histogram(places, bins=8, range=(0, DRAWS))[0] == pytest.approx(100_000 / 8, rel=0.03)
    assert np.corrcoef(places[1:], places[:-1])[0, 1] == pytest.approx(0, abs=0.02)
    assert places[:50] != [drawn(8, 0, number) for number in range(50)]
    assert places[:50] != [drawn(7, 1, number) for number in range(50)]


def test_a_transfer_from_the_store_draws_its_latency():
    hardware = replace(SLOW, remote_spread=0.5)
    sessions = in_a_row([("a", 13)], [("b", 13)], [("a", 13)], [("b", 13)])
    _, _, frame = served(sessions, modelled(hardware=hardware, seed=3), remote_bytes=6 * BLOCK_BYTES)
    table = latencies_ps(5_000, 9_000, 0.5)
    expected = [(3 * 256_000_000 + table[drawn(3, 0, number)]) / 1e12 for number in range(2)]
    assert frame["load_wait_s"].tolist()[2:] == pytest.approx(expected)
    assert len(set(expected)) == 2


def drawn_texts(rng):
    """Thirty requests that go on with what others said before them, in the form that `texts_of` takes."""
    return [
        (
            int(rng.integers(0, 120)),
            int(rng.integers(0, 30)),
            int(rng.integers(0, 60)),
            rng.integers(0, 2, rng.integers(1, 15)).tolist(),
            rng.integers(0, 2, rng.integers(1, 15)).tolist(),
        )
        for _ in range(30)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_imitation_block_by_block(seed):
    rng = np.random.default_rng(seed)
    size, spare, max_live, budget = (
        int(each) for each in (2 ** rng.integers(3), *rng.integers((0, 1, 5), (13, 6, 21)))
    )
    tiers, writes = rng.integers(0, 40, 3).tolist(), ["through", "eviction"][seed % 2]
    made = texts_of(drawn_texts(rng))
    contents = contents_of([(prompt, answer) for _, prompt, answer in made])
    num_blocks = max(-(-(len(prompt) + len(answer)) // size) for _, prompt, answer in made) + spare
    sessions = [
        Session(arrival * STEP_NS, (Request(len(prompt), len(answer)),), keys=Keys(contents, number))
        for number, (arrival, prompt, answer) in enumerate(made)
    ]
    asked = [
        Asked(number, arrival, len(prompt), len(answer), contents.block_keys(number, size))
        for number, (arrival, prompt, answer) in enumerate(made)
    ]
    there = [(tier, count) for tier, count in zip(("host", "disk", "remote"), tiers, strict=True) if count]
    engine = TieredEngine(asked, num_blocks, size, max_live, budget, there, writes)
    engine.run()
    rules = VLLM._replace(tokens=budget, sequences=max_live)
    sizes = {f"{tier}_bytes": count * size * 64 for tier, count in there}
    backend = CountedBackend(GEOMETRY, STEP_NS, rules)
    recorder, _, frame = served(sessions, backend, num_blocks, size, tier_writes=writes, **sizes)
    assert [row.hit_tokens for row in sorted(recorder.requests, key=lambda row: row.session)] == [
        request.hits for request in asked
    ]
    assert [dict(row.loaded_tokens) for row in sorted(recorder.requests, key=lambda row: row.session)] == [
        engine.loads[request.number] for request in asked
    ]
    assert [(row["written_bytes"], row["loaded_bytes"]) for row in recorder.tiers] == [
        (written * size * 64, loaded * size * 64)
        for written, loaded in zip(engine.pool.written, engine.pool.loaded, strict=True)
    ]
    assert frame["num_preemptions"].tolist() == [request.num_preemptions for request in asked]
    assert [row.session for row in recorder.requests] == engine.finished
