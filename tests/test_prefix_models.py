"""Prefix reuse: compiled kernels against plain Python, against each other, and against the KVCache.AI simulator."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.fleet.prefix.curve import lru_curve
from kvbench.fleet.prefix.kinds import REUSES
from kvbench.fleet.prefix.simulate import replay
from kvbench.fleet.prefix.sweep import ceiling
from kvbench.fleet.prefix.tree import plant
from kvbench.workload.trace import read_trace
from tests.support.imitated import contents_of
from tests.support.prefix_models import columns_of, least_found, most_hits, numbered, prefixes, radix, single_blocks

BLOCK_TOKENS = 3
POLICIES = ("lru", "fifo", "optimal")
"""Of several tiers and all kinds of reuse."""
PUBLISHED = "mooncake_synthetic.jsonl"

# Two ids: so that many prompts share a prefix, and some hold a block in another place.
prompts_of = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=25)
sizes_of = st.lists(st.integers(1, 7), min_size=1, max_size=3)
checked = settings(max_examples=150, deadline=None)


def modelled(prompts, sizes, policy, reuse):
    if policy == "optimal" or reuse == "block_hash":
        return single_blocks(prompts, sizes, policy)
    return radix(prompts, sizes, policy, whole=reuse == "radix")


@pytest.mark.parametrize("reuse", REUSES)
@pytest.mark.parametrize("policy", POLICIES)
@checked
@given(prompts=prompts_of, sizes=sizes_of, data=st.data())
def test_compiled_equals_plain(policy, reuse, prompts, sizes, data):
    parts = st.lists(st.integers(1, BLOCK_TOKENS), min_size=len(prompts), max_size=len(prompts))
    last_tokens = data.draw(parts)
    tree = plant(columns_of(prompts, BLOCK_TOKENS, last_tokens))
    got = replay(tree, sizes=sizes, policy=policy, reuse=reuse)
    hits, loads, stores, last = zip(*modelled(prompts, sizes, policy, reuse), strict=True)
    assert got.hit_blocks.T.tolist() == list(hits)
    assert got.loaded_blocks.T.tolist() == list(loads)
    assert got.stored_blocks.T.tolist() == list(stores)
    tokens = BLOCK_TOKENS * np.array(hits)
    for request, tier in enumerate(last):
        if tier is not None:
            tokens[request, tier] -= BLOCK_TOKENS - last_tokens[request]
    assert got.hit_tokens.T.tolist() == tokens.tolist()


@checked
@given(prompts=prompts_of)
def test_the_tree(prompts):
    tree = plant(columns_of(prompts))
    blocks = [block for prompt in prompts for block in prefixes(prompt)]
    assert numbered(tree.nodes) == numbered(blocks)
    node_of = dict(zip(blocks, tree.nodes.tolist(), strict=True))
    assert len(node_of) == tree.num_nodes == tree.parents.size
    assert all(tree.parents[node] == node_of.get(block[:-1], -1) for block, node in node_of.items())
    seen = set()
    for prompt, known in zip(prompts, tree.num_known, strict=True):
        assert known == sum(block in seen for block in prefixes(prompt))
        seen.update(prefixes(prompt))


@checked
@given(prompts=prompts_of, sizes=sizes_of, policy=st.sampled_from(POLICIES), reuse=st.sampled_from(REUSES))
def test_no_policy_reuses_more_than_the_optimum(prompts, sizes, policy, reuse):
    tree = plant(columns_of(prompts))
    got, best = (
        replay(tree, sizes=sizes, policy=name, reuse=reuse).hit_blocks.cumsum(axis=0).sum(axis=1)
        for name in (policy, "optimal")
    )
    # Of every tier with those above it.
    assert (got <= best).all()


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3), min_size=1, max_size=6),
    size=st.integers(1, 3),
)
def test_the_optimum_is_what_trying_everything_finds(prompts, size):
    best = replay(plant(columns_of(prompts)), sizes=[size], policy="optimal", reuse="block_hash")
    assert best.hit_blocks.sum() == most_hits(prompts, size)


@checked
@given(prompts=prompts_of, size=st.integers(1, 12), more=st.integers(0, 12), policy=st.sampled_from(["lru", "optimal"]))
def test_a_larger_cache_reuses_no_less(prompts, size, more, policy):
    tree = plant(columns_of(prompts))
    small, large = (
        replay(tree, sizes=[blocks], policy=policy, reuse="block_hash").hit_blocks for blocks in (size, size + more)
    )
    assert (small <= large).all() if policy == "lru" else small.sum() <= large.sum()
    assert (large[0] <= tree.num_known).all()


@checked
@given(prompts=prompts_of, share=st.floats(0, 0.99))
def test_the_curve_is_a_replay_at_every_size(prompts, share):
    tree = plant(columns_of(prompts, BLOCK_TOKENS, [1 + len(prompt) % BLOCK_TOKENS for prompt in prompts]))
    first = int(share * tree.num_requests)
    replays = [replay(tree, sizes=[size], policy="lru", reuse="block_hash") for size in range(1, tree.num_nodes + 1)]
    curve = lru_curve(tree, first)
    assert curve.blocks.tolist() == [0, *(int(done.hit_blocks[:, first:].sum()) for done in replays)]
    assert curve.tokens.tolist() == [0, *(int(done.hit_tokens[:, first:].sum()) for done in replays)]


@checked
@given(prompts=prompts_of, size=st.integers(1, 7))
def test_the_least_frequently_found_go_first(prompts, size):
    got = replay(plant(columns_of(prompts)), sizes=[size], policy="lfu", reuse="block_hash")
    assert got.hit_blocks[0].tolist() == least_found(prompts, size)


@checked
@given(prompts=prompts_of, sizes=sizes_of)
def test_trimmed_leaves_are_single_blocks_last_first(prompts, sizes):
    # A leaf is then the end of the sequence that was used longest ago, and loses as much as is needed: the same blocks
    # leave as when each is by itself and a prompt's are touched last to first.
    tree = plant(columns_of(prompts))
    blocks, runs = (replay(tree, sizes=sizes, policy="lru", reuse=reuse) for reuse in ("block_hash", "radix_trimmed"))
    for name in vars(blocks):
        assert (getattr(blocks, name) == getattr(runs, name)).all()


@checked
@given(prompts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=1), min_size=1, max_size=25), sizes=sizes_of)
def test_whole_runs_of_one_block_are_single_blocks(prompts, sizes):
    tree = plant(columns_of(prompts))
    for policy in POLICIES:
        blocks, runs = (replay(tree, sizes=sizes, policy=policy, reuse=reuse) for reuse in ("block_hash", "radix"))
        for name in vars(blocks):
            assert (getattr(blocks, name) == getattr(runs, name)).all()


@checked
@given(prompts=prompts_of, sizes=sizes_of, policy=st.sampled_from(POLICIES), reuse=st.sampled_from(REUSES))
def test_a_radix_tree_and_blocks_agree_while_nothing_leaves(prompts, sizes, policy, reuse):
    tree = plant(columns_of(prompts))
    done = replay(tree, sizes=[tree.num_nodes, *sizes], policy=policy, reuse=reuse)
    assert (done.hit_blocks[0] == tree.num_known).all()
    assert not done.hit_blocks[1:].any()
    assert not done.stored_blocks.any()


@checked
@given(prompts=prompts_of, per_block=st.integers(1, 4))
def test_larger_blocks_by_their_tokens(prompts, per_block):
    larger = plant(columns_of(prompts), per_block)
    cut = [
        [tuple(prompt[: end + per_block]) for end in range(0, len(prompt), per_block)] for prompt in map(tuple, prompts)
    ]
    assert numbered(larger.nodes) == numbered(block for blocks in cut for block in blocks)
    assert larger.num_blocks.tolist() == [len(blocks) for blocks in cut]


@checked
@given(prompts=prompts_of, per_block=st.integers(1, 3), data=st.data())
def test_a_last_block_is_the_same_by_its_id_however_full_it_is(prompts, per_block, data):
    parts = st.lists(st.integers(1, per_block), min_size=len(prompts), max_size=len(prompts))
    columns = columns_of(prompts, per_block, data.draw(parts))
    assert numbered(plant(columns).nodes) == numbered(block for prompt in prompts for block in prefixes(prompt))


@checked
@given(prompts=prompts_of, per_block=st.integers(1, 3), copies=st.integers(2, 3))
def test_copies_of_texts_share_nothing(prompts, per_block, copies):
    """Copies of a trace that says in its contents what is shared, or is made so."""
    columns = replace(columns_of(prompts), contents=contents_of([(prompt, ()) for prompt in prompts]))
    tree, tiled = plant(columns, per_block), plant(columns.repeated(copies), per_block)
    own = np.array(numbered(tree.nodes))
    assert numbered(tiled.nodes) == np.concatenate([own + copy * tree.num_nodes for copy in range(copies)]).tolist()
    assert tiled.num_known.tolist() == tree.num_known.tolist() * copies


# The simulator that the published figures come from.


def peer():
    """The KVCache.AI simulator, in plain Python."""
    reason = "kvcache-simulator is not installed; the extra peers brings it"
    return [pytest.importorskip(f"kvcache_sim.{module}", reason=reason) for module in ("trace", "plan", "policies")]


def planned(columns):
    """A trace as it takes it."""
    trace, plan, _ = peer()
    ids = np.split(columns.block_ids, columns.block_offsets[1:-1])
    lines = [
        json.dumps({"hash_ids": own.tolist(), "input_length": tokens})
        for own, tokens in zip(ids, columns.num_prompt_tokens.tolist(), strict=True)
    ]
    return plan.build_execution_plan(trace.parse_trace_lines(lines, block_size=columns.block_tokens))


def theirs(columns, sizes, policies):
    """Hit tokens of the last half; None where the cache was not filled."""
    plan, (*_, of) = planned(columns), peer()
    results = {(s, p): of.simulate_policy(plan, p, s) for s in sizes for p in policies}
    return {
        key: result.hitTokens if result.measurementMode == "fixed_window" else None for key, result in results.items()
    }


def check_unbounded(columns):
    """A cache that holds everything finds as many tokens, and so does the end of the curve over all sizes."""
    *_, of = peer()
    tree = plant(columns)
    wanted = of.simulate_ceiling(planned(columns)).hitTokens
    assert ceiling(tree, warmup_share=0.5)["hit_tokens"] == wanted
    largest = replay(tree, sizes=[tree.num_nodes], policy="lru", reuse="block_hash")
    first = tree.num_requests // 2
    assert largest.hit_tokens[0, first:].sum() == wanted
    assert lru_curve(tree, first).blocks[-1] == largest.hit_blocks[0, first:].sum()
    assert lru_curve(tree, first).tokens[-1] == wanted


def ours(columns, sizes, policies):
    tree = plant(columns)
    first = tree.num_requests // 2
    num_seen = np.cumsum(tree.num_blocks - tree.num_known)
    got = {}
    for size in sizes:
        filled = first > 0 and num_seen[first - 1] >= size
        for policy in policies:
            hits = replay(tree, sizes=[size], policy=policy, reuse="block_hash").hit_tokens[0, first:].sum()
            got[size, policy] = int(hits) if filled else None
    return got


@settings(max_examples=200, deadline=None)
@given(prompts=prompts_of, more=st.integers(0, 8))
def test_the_kvcache_ai_simulator_on_small_traces(prompts, more):
    # Under lru the two differ for a prompt longer than the cache.
    sizes = [max(map(len, prompts)) + more]
    columns = columns_of(prompts)
    assert ours(columns, sizes, POLICIES) == theirs(columns, sizes, POLICIES)
    check_unbounded(columns)


@settings(max_examples=100, deadline=None)
@given(prompts=prompts_of, size=st.integers(1, 6))
def test_the_kvcache_ai_simulator_on_caches_smaller_than_a_prompt(prompts, size):
    columns = columns_of(prompts)
    assert ours(columns, [size], ["fifo", "optimal"]) == theirs(columns, [size], ["fifo", "optimal"])


def test_the_kvcache_ai_simulator_on_the_published_trace(traces):
    if not (traces / PUBLISHED).exists():
        pytest.skip(f"no {PUBLISHED} in the folder that KVBENCH_TRACES names")
    columns = read_trace(traces / PUBLISHED, "mooncake")
    sizes = [2048, 8192, 32768]
    found = ours(columns, sizes, POLICIES)
    assert None not in found.values()
    assert found == theirs(columns, sizes, POLICIES)
    check_unbounded(columns)
