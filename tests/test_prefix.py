"""Prefix reuse: by hand, and what each result says."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kvbench.fleet.prefix.simulate import replay, simulate, unlimited
from kvbench.fleet.prefix.sweep import ceiling, sweep
from kvbench.fleet.prefix.tiers import Tier
from kvbench.fleet.prefix.tree import plant
from kvbench.workload.interning import Interning
from kvbench.workload.trace import read_trace
from tests.support.prefix_models import columns_of, numbered

DEVICE = Tier(name="device", num_blocks=2, bytes_per_s=100.0)
HOST = Tier(name="host", num_blocks=2, bytes_per_s=20.0)
DISK = Tier(name="disk", num_blocks=4, bytes_per_s=5.0)
PUBLISHED = "mooncake_synthetic.jsonl"


@pytest.fixture
def published(traces):
    path = traces / PUBLISHED
    if not path.exists():
        pytest.skip(f"no {PUBLISHED} in the folder that KVBENCH_TRACES names")
    return plant(read_trace(path, "mooncake"))


def hits(prompts, size, policy, reuse="block_hash"):
    return replay(plant(columns_of(prompts)), sizes=[size], policy=policy, reuse=reuse).hit_blocks[0].tolist()


# By hand: letters are blocks, three of which fit.
#
# lru      AB|  held A B          CD| over by 1: B, the last of the oldest, leaves; held A, C D
#          AB| A reused; B comes, D leaves; held C, A B          CD| C reused
# fifo     AB, CD: A left first. AB: nothing (B is held, but what lies before it is not); A comes, B leaves; B comes,
#          C leaves; held D A B. CD: nothing; C comes, D leaves; D comes, A leaves; held B C D. CD: both.
# optimal  CD: of A B (next used by the 3rd) and C D (by the 4th), D leaves. AB: both. CD: C. CD: both.
TURNS = ["AB", "CD", "AB", "CD", "CD"]


@pytest.mark.parametrize(
    ("policy", "wanted"), [("lru", [0, 0, 1, 1, 2]), ("fifo", [0, 0, 0, 0, 2]), ("optimal", [0, 0, 2, 1, 2])]
)
def test_policies_by_hand(policy, wanted):
    assert hits(TURNS, 3, policy) == wanted


def test_the_last_block_of_a_sequence_leaves_first():
    # ABCD fills the cache; E pushes D out, F pushes C out.
    assert hits(["ABCD", "E", "F", "ABCD"], 4, "lru") == [0, 0, 0, 2]


def test_ids_in_another_place_are_other_blocks():
    assert hits(["AB", "BA", "CAB", "AB"], 100, "lru") == [0, 0, 0, 2]


def test_a_leaf_of_the_radix_tree_leaves_whole():
    # E needs one slot and takes all four of ABCD; blocks by themselves lose D alone.
    assert hits(["ABCD", "E", "ABCD"], 4, "lru", "radix") == [0, 0, 0]
    assert hits(["ABCD", "E", "ABCD"], 4, "lru", "radix_trimmed") == [0, 0, 3]
    assert hits(["ABCD", "E", "ABCD"], 4, "lru", "block_hash") == [0, 0, 3]


def test_a_split_run_is_refreshed_whole_by_the_radix_tree():
    # ABX uses AB of ABCD, and splits it. F then needs a slot: the tree takes E, since CD counts as used by ABX; blocks
    # by themselves take D, which nobody used since ABCD.
    prompts = ["ABCD", "E", "ABX", "F", "E"]
    assert hits(prompts, 6, "lru", "radix") == [0, 0, 2, 0, 0]
    assert hits(prompts, 6, "lru", "radix_trimmed") == [0, 0, 2, 0, 1]


def test_a_parent_does_not_leave_before_its_child_in_the_radix_tree():
    # AB came first, then C below it, then D. fifo of blocks takes A, fifo of leaves takes C.
    prompts = ["AB", "ABC", "D", "E", "ABC"]
    assert hits(prompts, 4, "fifo", "block_hash") == [0, 2, 0, 0, 0]
    assert hits(prompts, 4, "fifo", "radix") == [0, 2, 0, 0, 2]


def test_tiers_by_hand():
    # Blocks of 4 tokens; the last of AB has 1. Device 2, host 2, disk 4.
    # AB  device A B
    # CD  device C D; A B stored in host
    # AB  both reused from host: 2 loaded, 4 + 1 tokens; C D stored in host
    # E   device E A; B stored in host, D in disk (of AB's turn and CD's, CD's is the older, D its last)
    # AB  A from device, B from host: 1 loaded; device A B; E stored in host
    # CD  C from host, D from disk; device C D; A B stored in host, E and nothing else in disk
    tree = plant(columns_of(["AB", "CD", "AB", "E", "AB", "CD"], 4, [1, 4, 1, 4, 1, 4]))
    result = simulate(
        tree, tiers=(DEVICE, HOST, DISK), policy="lru", reuse="block_hash", block_bytes=10, warmup_share=0
    )
    device, host, disk = result.tiers
    assert (device.hit_blocks, device.hit_tokens, device.loaded_bytes, device.stored_bytes) == (1, 4, 0, 0)
    assert (host.hit_blocks, host.hit_tokens, host.loaded_bytes) == (4, 5 + 1 + 4, 40)
    assert (disk.hit_blocks, disk.hit_tokens, disk.loaded_bytes) == (1, 4, 10)
    assert (host.stored_bytes, disk.stored_bytes) == (10 * (2 + 2 + 1 + 1 + 2), 10 * (1 + 1))
    assert (device.load_s, host.load_s, disk.load_s) == (0, 40 / 20, 10 / 5)
    assert result.load_s == 4
    assert (result.hit_blocks, result.blocks, result.block_hit_rate) == (6, 11, 6 / 11)
    assert (result.hit_tokens, result.prompt_tokens) == (18, 5 + 8 + 5 + 4 + 5 + 8)
    assert result.token_hit_rate == 18 / 35
    # Five blocks in all, and room for eight.
    assert result.full_at is None
    assert not result.filled_first


def test_a_load_runs_at_the_slowest_rate_on_its_way():
    slow = Tier(name="device", num_blocks=2, bytes_per_s=2.0)
    tree = plant(columns_of(["AB", "CD", "AB"]))
    result = simulate(tree, tiers=(slow, HOST), policy="lru", reuse="block_hash", block_bytes=1, warmup_share=0)
    assert result.load_s == 1.0


def test_only_requests_after_the_warm_up_count():
    tree = plant(columns_of(["AB", "AB", "ABC", "D", "AB"]))
    result = simulate(tree, tiers=(DEVICE,), policy="lru", reuse="block_hash", block_bytes=1, warmup_share=0.5)
    # From the third of five on: ABC reuses AB and keeps AB; D pushes B out; AB reuses A.
    assert (result.first_request, result.num_requests, result.hit_blocks, result.blocks) == (2, 3, 3, 6)
    assert (result.full_at, result.filled_first) == (0, True)


def test_a_cache_without_bounds():
    tree = plant(columns_of(["AB", "AB", "ABC", "BC"], 4, [4, 4, 2, 4]))
    result = unlimited(tree, warmup_share=0)
    assert (result.hit_blocks, result.blocks, result.hit_tokens, result.prompt_tokens) == (4, 9, 16, 34)
    assert ceiling(tree, warmup_share=0)["token_hit_rate"] == 16 / 34


def test_larger_blocks_share_less():
    # Tokens: 5 are shared by the first two, of which one block of 4.
    columns = columns_of(["AAAABBBB", "AAAABCC", "AAAABBBB", "AAAABBBBB"])
    assert unlimited(plant(columns), warmup_share=0).hit_tokens == 5 + 8 + 8
    larger = plant(columns, 4)
    assert larger.num_blocks.tolist() == [2, 2, 2, 3]
    assert unlimited(larger, warmup_share=0).hit_tokens == 4 + 8 + 8


# Published: by KVCache.AI's definition, the last half of the requests; in percent of their prompt tokens.
KVCACHE_AI = {
    2048: {"fifo": 22.5, "lru": 22.8, "optimal": 50.2},
    8192: {"fifo": 50.7, "lru": 54.8, "optimal": 79.3},
    32768: {"fifo": 80.1, "lru": 84.5, "optimal": 86.3},
}


def test_published_hit_rates(published):
    policies = ["fifo", "lru", "optimal"]
    rows = sweep(published, sizes=list(KVCACHE_AI), policies=policies, reuse="block_hash", warmup_share=0.5)
    got = {size: {} for size in KVCACHE_AI}
    for row in rows:
        got[row["num_blocks"]][row["policy"]] = round(100 * row["token_hit_rate"], 1)
    assert got == KVCACHE_AI
    assert all(row["filled_first"] for row in rows)


def test_published_hit_rate_without_bounds(published):
    assert round(100 * ceiling(published, warmup_share=0)["block_hit_rate"], 1) == 64.0


# Bad input.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "lri"}, "unknown policy 'lri'. Did you mean 'lru'"),
        ({"reuse": "radixes"}, "unknown kind of reuse 'radixes'. Did you mean 'radix'"),
        ({"tiers": ()}, r"tiers are device, then host, then disk.*got \[\]"),
        ({"tiers": (HOST,)}, r"the device always; got \['host'\]"),
        ({"tiers": (DEVICE, DISK, HOST)}, r"got \['device', 'disk', 'host'\]"),
        ({"tiers": (DEVICE, DEVICE)}, "at most once"),
        ({"block_bytes": 0}, "block_bytes is a positive integer, got 0"),
        ({"warmup_share": 1}, "warmup_share is a number of at least 0 and below 1, got 1"),
        ({"warmup_share": float("nan")}, "warmup_share is a number of at least 0 and below 1, got nan"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    arguments = {
        "tiers": (DEVICE,),
        "policy": "lru",
        "reuse": "block_hash",
        "block_bytes": 1,
        "warmup_share": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        simulate(plant(columns_of(["AB"])), **(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "hots"}, "unknown tier 'hots'. Did you mean 'host'"),
        ({"num_blocks": 0}, "num_blocks of tier host is a positive integer, got 0"),
        ({"num_blocks": 1.5}, "a positive integer, got 1.5"),
        ({"bytes_per_s": 0}, "bytes_per_s of tier host is a number above 0, got 0"),
        ({"bytes_per_s": float("nan")}, "above 0, got nan"),
    ],
)
def test_bad_tiers_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Tier(**({"name": "host", "num_blocks": 1, "bytes_per_s": 1.0} | changes))


def test_bad_sizes_are_refused():
    tree = plant(columns_of(["AB"]))
    for sizes, message in (([], "got none"), ([3, 0], "a tier's size in blocks is a positive integer, got 0")):
        with pytest.raises(ValueError, match=message):
            replay(tree, sizes=sizes, policy="lru", reuse="block_hash")


def test_a_trace_without_blocks_is_refused():
    columns = columns_of(["AB", "ABC"])
    for name in ("block_ids", "block_offsets", "block_tokens"):
        with pytest.raises(ValueError, match="needs a trace whose prompts share something"):
            plant(type(columns)(**(vars(columns) | {name: None})))
    wrong = type(columns)(**(vars(columns) | {"num_prompt_tokens": np.array([2, 5])}))
    with pytest.raises(ValueError, match="request 1 has 3 block ids; allowed is one for each 1 tokens: 5 for 5"):
        plant(wrong)
    with pytest.raises(ValueError, match="without requests"):
        plant(columns_of([]))


def test_without_numba_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "kvbench.compiled")
    with pytest.raises(ImportError, match=r"(?s)need Numba.*python -m pip install numba"):
        importlib.import_module("kvbench.compiled")


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(1, 3),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_contents_say_the_same_as_ids(prompts, block_tokens, data):
    """A trace's tree is the same from its blocks' ids and from the contents that they were made."""
    last = [data.draw(st.integers(1, block_tokens)) for _ in prompts]
    last = [last[prompts.index(prompt)] for prompt in prompts]  # equal ids are equally long
    columns = columns_of(prompts, block_tokens, last)
    parted = {tuple(prompt[: depth + 1]) for prompt in prompts for depth in range(len(prompt) - 1)}
    assume(not any(tuple(prompt) in parted and part < block_tokens for prompt, part in zip(prompts, last, strict=True)))
    texts = Interning()
    ids = np.split(columns.block_ids, columns.block_offsets[1:-1])
    texts.add(ids, block_tokens, columns.num_prompt_tokens.tolist(), columns.num_output_tokens.tolist())
    named = plant(replace(columns, block_ids=None, block_offsets=None, contents=texts.contents()))
    tree = plant(columns)
    for name in ("offsets", "num_known"):
        assert getattr(named, name).tolist() == getattr(tree, name).tolist()
    assert numbered(named.nodes) == numbered(tree.nodes)
