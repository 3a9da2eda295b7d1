"""Blocks fetched ahead between tiers: by hand, and against an engine that passes them over its links one by one."""

from dataclasses import replace

import numpy as np
import pytest

from kvbench.backend.counted import CountedBackend
from kvbench.engine.eviction import EVICTIONS
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.tiers import BELOW, TIER_LOADS, TIER_WRITES, free_again_ns, num_come
from kvbench.fleet.frames import FleetRun, fleet_frames
from kvbench.fleet.steps import STEP_NS
from kvbench.timing.prices import PS_PER_NS
from kvbench.workload.request import Request
from tests.support.fleet_columns import OBJECTIVE
from tests.support.fleet_models import SLOT_BYTES, results
from tests.support.imitated import Asked
from tests.support.imitated_fetches import FetchingEngine
from tests.support.imitated_links import PlainTier
from tests.support.machines import GEOMETRY, machine
from tests.test_fleet_prefix import columns_of
from tests.test_fleet_tiers import TOKEN_NS
from tests.test_fleet_tiers import served as by_fleet
from tests.test_parity import bounded, equals
from tests.test_tiers import BLOCK_BYTES, SIZE, VLLM, in_a_row, modelled, served

LATE = (10**6, 5, 1, 1)
"""Who comes so late that a bin of the timeline, which no jump goes beyond, has room for many steps."""
ONE = VLLM._replace(sequences=1)


def waiting():
    """A and B, of 3 blocks and a token, and C, of one and eight steps more, behind which A waits that comes again."""
    sessions = in_a_row([("a", 13)], [("b", 13)], [("c", 5)], [("a", 13)])
    sessions[2] = replace(sessions[2], turns=(Request(5, 9),))
    sessions[3] = replace(sessions[3], arrival_ns=sessions[2].arrival_ns)
    return sessions


@pytest.mark.parametrize(("prefetch", "num_come", "load_us"), [(False, 0, 600.012), (True, 2, 200.012)])
def test_what_comes_while_a_request_waits_is_loaded_from_the_first_tier_by_hand(prefetch, num_come, load_us):
    # When A comes again the host of 3 blocks has B's, the disk A's: 200 microseconds each, and 12 ns of latency. C
    # takes between 400 and 600: two have come, which are loaded from the host, while the third is from the disk. The
    # host gets 3 blocks of A, 3 of B and C's; then a1 and a0, which push b1 and b0 down, and at A's end a2.
    sizes = {"host_bytes": 3 * BLOCK_BYTES, "disk_bytes": 8 * BLOCK_BYTES}
    recorder, steps, frame = served(waiting(), modelled(ONE), **sizes, prefetch=prefetch)
    assert 400 < frame["latency_s"][2] * 1e6 < 600
    assert frame["host_tokens"].tolist() == [0, 0, 0, num_come * SIZE]
    assert frame["disk_tokens"].tolist() == [0, 0, 0, (3 - num_come) * SIZE]
    assert frame["load_wait_s"][3] * 1e6 == pytest.approx(load_us)
    assert steps.loc[steps["session"] == 3, "step_us"].sum() == pytest.approx(load_us)
    host, disk = recorder.tiers
    assert (host["prefetched_bytes"], disk["prefetched_bytes"]) == (0, num_come * BLOCK_BYTES)
    assert (host["written_bytes"], disk["written_bytes"]) == (10 * BLOCK_BYTES, 7 * BLOCK_BYTES)
    assert host["write_s"] == pytest.approx((10 - num_come) * 1e-4)  # what comes from the disk takes another way


def test_without_times_all_has_come():
    backend = CountedBackend(GEOMETRY, 1_000, ONE)
    frame = served(waiting(), backend, host_bytes=3 * BLOCK_BYTES, disk_bytes=8 * BLOCK_BYTES, prefetch=True)[2]
    assert (frame["host_tokens"][3], frame["disk_tokens"][3]) == (12, 0)


def test_who_waits_second_has_its_blocks_behind_the_first_ones_and_behind_loads_by_hand():
    # Steps of 1,000 ns. The device has 5 blocks, all of which the third request takes, so that the disk has those of
    # the first two, 3 each, of 3,500 ns, with 40 ns of latency. At 40,000 one begins that takes nine steps; two come.
    # At 49,000 two blocks of the first of these have come: (9,000 - 40) / 3,500. It loads them from the host, and the
    # third one, in 3,540, and goes on for four steps, to 56,540. The link has been the second one's since 49,000, but
    # for the load's 3,500: one block, of (7,540 - 3,500 - 40) / 3,500. The other two take it 7,040.
    words = [(0, (2,) * 13, 1), (10, (1,) * 13, 1), (20, (3,) * 17, 1), (40, (0,) * 5, 9), (40, (1,) * 13, 5)]
    texts = [(step, prompt, prompt[:1] * count) for step, prompt, count in [*words, (40, (2,) * 13, 1)]]
    tiers, options = [("host", 3, 100, 5), ("disk", 20, 3_500, 40)], {"max_live": 1, "budget": 32, "prefetch": True}
    found = by_fleet(columns_of(texts), 5, 4, tiers, **options)
    assert found.finish_ns.tolist() == [1_000, 11_000, 21_000, 49_000, 56_540, 63_580]
    assert found.host_tokens.tolist() == [0, 0, 0, 0, 8, 4]
    assert found.disk_tokens.tolist() == [0, 0, 0, 0, 4, 8]
    # The host gets 3, 3, 4 and 3 blocks as requests end; two that have come and four at the end, since the last of a
    # text push its first ones down before these are stored again; one, and two.
    assert [used[2:] for used in found.tiers] == [(22, 12, 0), (found.tiers[1].num_written_blocks, 12, 3)]
    row = fleet_frames({"it": FleetRun(found, {})}, "again", OBJECTIVE).summary.iloc[0]
    assert (row["host_prefetched_bytes"], row["disk_prefetched_bytes"]) == (0, 3 * 4 * SLOT_BYTES)
    assert row["host_write_share"] == pytest.approx((22 - 3) * 100 / 63_580)
    assert by_fleet(columns_of(texts), 5, 4, tiers, **options | {"prefetch": False}).finish_ns[-1] == 74_080


@pytest.mark.parametrize(
    ("tiers", "ends_ns", "found"),
    [
        ([("disk", 20, 3_500, 40)], 57_040, [4, 8, 0]),
        ([("disk", 6, 3_500, 40), ("remote", 20, 100, 60)], 51_000, [4, 0, 8]),
    ],
)
def test_who_comes_while_others_only_decode_is_fetched_for_from_the_next_step_on_by_hand(tiers, ends_ns, found):
    # As above, but nothing is known of who waits from 40,000 on: it has a step at 49,000. Who comes at 42,500 joins the
    # queue at 43,000, and is admitted at 50,000: one block, of (7,000 - 40) / 3,500; the others take 7,040. Where the
    # disk has 6 blocks, the third one is in the store by then: that has come long ago, and the second one before it has
    # not. Meanwhile the first two were pushed there, too, so that two are loaded from it within a step.
    words = [(0, 2, 13, 1), (10, 1, 13, 1), (20, 3, 17, 1), (40, 0, 5, 9), (40, 4, 13, 1), (42, 2, 13, 1), LATE]
    columns = columns_of([(step, (word,) * count, (word,) * more) for step, word, count, more in words])
    columns.arrival_ns[-2] += 500
    options = {"max_live": 1, "budget": 32, "prefetch": True}
    served_so = by_fleet(columns, 5, 4, [("host", 3, 100, 5), *tiers], **options)
    assert served_so.finish_ns.tolist()[3:6] == [49_000, 50_000, ends_ns]
    assert [getattr(served_so, f"{tier}_tokens")[-2] for tier in BELOW] == found


def test_what_has_come_counts_whole_blocks_after_the_latency():
    assert [num_come(1_000, now_ns, 40_500, 700_000, 3) for now_ns in (1_000, 1_740, 1_741, 3_140, 3_141, 9_999)] == [
        *(0, 0, 1, 2, 3, 3)
    ]
    assert [free_again_ns(1_000, now_ns, 700_500, 3) for now_ns in (1_000, 3_101, 3_102, 4_000)] == [
        *(1_000, 3_101, 3_102, 3_102)
    ]


def drawn_texts(rng):
    """Long texts, and when these are served, requests that come at once and go on with them."""
    firsts = [tuple(rng.integers(0, 2, rng.integers(8, 30)).tolist()) for _ in range(rng.integers(3, 7))]
    texts, longest = [], rng.choice([3, 8, 20])
    for number in range(rng.integers(10, 24)):
        whole = firsts[number % len(firsts)] if number < len(firsts) else texts[rng.integers(number)][1]
        more = rng.integers(0, 2, rng.integers(1, 4)).tolist()
        answer = rng.integers(0, 2, rng.integers(1, longest)).tolist()
        arrival = number if number < len(firsts) else rng.integers(70, 110)
        texts.append((int(arrival), (*whole[: rng.integers(6, 60)], *more), tuple(answer)))
    return [*sorted(texts), (LATE[0], (2,), (2,))]


@pytest.mark.parametrize("seed", range(100))
def test_a_run_fetches_as_a_fleet_does(seed):
    rng = np.random.default_rng(seed)
    columns, rules = columns_of(drawn_texts(rng)), rng.integers(0, 2, len(Scheduling._fields) - 2).astype(bool).tolist()
    tiers = {
        "blocks": [int(rng.choice(counts)) for counts in ([0, 1, 2, 4, 8], [8, 20, 40], [3, 20, 40])],
        **{"tier_writes": str(rng.choice(TIER_WRITES)), "tier_loads": str(rng.choice(TIER_LOADS)), "prefetch": True},
    }
    chosen = {
        "eviction": str(rng.choice(EVICTIONS)),
        "tiers": tiers,
        "size": int(rng.choice([1, 2, 4])),
        "spare": int(rng.integers(6)),
        "max_batch": int(rng.integers(1, 4)),
        "rules": Scheduling(int(rng.choice([4, 9, 20])), None, *rules),
        "is_kept": True,
    }
    rates = {f"{tier}_bytes_per_s": float(rng.choice([1e7, 1e8, 1e9])) for tier in BELOW}
    hardware = machine(disk_s=7e-6, remote_s=2e-6, **rates)
    equals(replace(columns, arrival_ns=columns.arrival_ns * 12), bounded(chosen), hardware)


@pytest.mark.parametrize("seed", range(150))
def test_it_is_blocks_that_pass_links_one_by_one(seed):
    rng = np.random.default_rng(seed)
    texts, size = drawn_texts(rng), int(rng.choice([1, 2, 4]))
    columns = columns_of(texts)
    num_blocks = max(-(-(len(prompt) + len(answer)) // size) for _, prompt, answer in texts) + int(rng.integers(6))
    counts = rng.choice([1, 2, 4, 8]), rng.choice([8, 20, 40]), rng.choice([0, 3, 20, 40])
    tiers = [
        (name, int(count), int(rng.choice([30, 700, 3_000])), int(rng.choice([0, 200, 2_000])))
        for name, count in zip(("host", "disk", "remote"), counts, strict=True)
        if count
    ]
    chosen = {"writes": str(rng.choice(["through", "eviction"])), "loads": str(rng.choice(["always", "cost"]))}
    max_live, budget = int(rng.integers(1, 3)), int(rng.integers(5, 21))
    asked = [
        Asked(number, arrival * STEP_NS, len(prompt), len(answer), columns.contents.block_keys(number, size))
        for number, (arrival, prompt, answer) in enumerate(texts)
    ]
    plain = [PlainTier(*tier[1:]) for tier in tiers]
    token_ns = TOKEN_NS if chosen["loads"] == "cost" else None
    engine = FetchingEngine(asked, num_blocks, size, max_live, budget, plain, chosen["writes"], token_ns, STEP_NS)
    engine.run()
    found, pieces = by_fleet(columns, num_blocks, size, tiers, max_live, budget, prefetch=True, **chosen), []
    assert found.finish_ns.tolist() == [engine.ends[number] for number in range(len(asked))]
    assert found.hit_tokens.tolist() == [request.hits for request in asked]
    assert found.load_ps.tolist() == [engine.waits[number] * PS_PER_NS for number in range(len(asked))]
    for what in ("written", "loaded", "fetched"):
        counted = [getattr(used, f"num_{what.replace('fet', 'prefet')}_blocks") for used in found.tiers]
        assert counted == getattr(engine.below, what)
    options = {"prefetch": True, "replicas": 1 + seed % 3} | chosen
    jumped, stepped = (by_fleet(columns, num_blocks, size, tiers, **options, step_by_step=each) for each in (0, 1))
    folded = by_fleet(columns, num_blocks, size, tiers, **options, fold=pieces.append, block=3)
    assert results(jumped) == results(stepped)
    assert jumped.totals == stepped.totals == folded.totals
    assert jumped.tiers == stepped.tiers == folded.tiers
