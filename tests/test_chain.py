"""Chains: what parts do together, by hand; what they refuse; and that books and storages agree whatever they do."""

import itertools

import numpy as np
import pytest
import torch
import yaml

from kvbench.configuration.errors import UsageError
from kvbench.configuration.targets import build
from kvbench.configuration.vet import vet_file
from kvbench.ledger import Ledger, LedgerError
from kvbench.plan.area import Area, Blocks, Chunks
from kvbench.plan.ops import Append, Fork, Keep, Move, Release, Reserve, Rule
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.chain import Chain
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from kvbench.strategy.predictive import Predictive
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.recompute import Recompute
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.snapkv import SnapKV
from kvbench.strategy.static import Static
from kvbench.strategy.streaming import Streaming
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, node_of
from tests.support.driven import Cache, tokens
from tests.support.numbered import PLAIN, TOKEN, admitted, contents, numbered, read, write
from tests.test_contract import check


def tiers(**changed):
    figures = {"fast_capacity": 40, "slow_capacity": 512, "disk_capacity": 0, "eviction": "age"}
    more = {"top_accessed": 8, "access_window": 4, "read_ahead": True, "background": False}
    return Hierarchical(**(figures | more | changed))


def packing(residual_tokens=16):
    return Quantized(bits=4, group_size=8, residual_tokens=residual_tokens, keys_per="channel")


def dynamic(maximum=600):
    return Dynamic(initial_capacity=8, growth_factor=1.5, max_capacity=maximum, round_to=1)


def paged(pool_tokens=64):
    return Paged(block_size=4, pool_tokens=pool_tokens)


def predictive():
    figures = {"initial_capacity": 8, "growth_factor": 1.5, "max_capacity": 600, "round_to": 1}
    return Predictive(history_window=4, rule="total", **figures)


def heavy():
    return HeavyHitters(num_heavy=12, num_recent=6)


def windows():
    return Streaming(window_size=32, overlap_size=6, max_retired=3)


def sinks(window=48):
    return Sinks(num_sinks=2, window=window)


def held(cache):
    """Positions of the tokens that are held."""
    return cache.sequence().full_context(0)[2][0, 0].tolist()


def reserved(cache, counts):
    """Slots of the area main, as each step reserves them."""
    found, done = [], 0
    for count in counts:
        plan = cache.strategy.on_append(0, count, cache.view)
        found += [op.num_tokens for op in plan if isinstance(op, Reserve) and op.area == "main"]
        write(cache, done, count)
        done += count
    return found


# Sinks and quantized: 2 sinks; of a window of 48, a ring of 16 + 8 tokens as they are, and (48 - 24) in groups of 8.

GROUP_BYTES = 2 * 16 + 2 * 16 + 2 * 32  # codes of K and V, a scale and a minimum a channel of K, and a token of V
CHUNK_BYTES = 16 * GROUP_BYTES  # chunks of 128 tokens


def test_sinks_and_quantized_evict_the_oldest_packed_group():
    cache = admitted(Chain(parts=[sinks(), packing()]))
    for number in range(26):
        write(cache, number, 1)
    assert contents(cache) == list(range(26))  # 2 sinks and a full ring: nothing is rounded yet
    assert cache.view.num_altered(0) == 0
    for number in range(26, 50):
        write(cache, number, 1)
    assert held(cache) == list(range(50))  # 3 groups, and a full ring
    assert cache.view.num_used(0, "packed") == cache.view.num_altered(0) == 24
    write(cache, 50, 1)  # the fourth group comes: the first goes
    assert held(cache) == [0, 1, *range(10, 51)]
    assert cache.view.num_altered(0) == 32
    keys, _, _ = cache.sequence().full_context(0)
    assert keys[0, 0, :2, 0].tolist() == [0, 1]
    assert keys[0, 0, -17:, 0].tolist() == list(range(34, 51))


def test_bytes_of_sinks_and_quantized():
    cache = admitted(Chain(parts=[sinks(), packing()]))
    native_bytes = (2 + 24) * TOKEN
    allocated = []
    for number in range(400):
        write(cache, number, 1)
        allocated.append(cache.ledger.allocated_bytes - cache.ledger.reading_bytes - native_bytes)
    assert allocated[25] == 0
    assert allocated[26] == CHUNK_BYTES
    # Tokens 2 to 129 lie in the first chunk. It is full at 2 + 128 + 24 tokens; the next group needs a second.
    assert allocated[153] == CHUNK_BYTES
    assert allocated[154] == 2 * CHUNK_BYTES
    # Three groups live in chunks: when the second has three, the first is let go of.
    assert allocated[169] == 2 * CHUNK_BYTES
    assert allocated[170] == CHUNK_BYTES
    cache.finish()


def test_a_long_prompt_is_attended_whole_and_then_reduced():
    cache = admitted(Chain(parts=[sinks(), packing()]))
    plan = cache.strategy.on_append(0, 100, cache.view)
    assert plan == (Append(0, 2, "sinks"), Reserve(0, 104), Append(0, 98))  # whole groups of 8
    write(cache, 0, 100)
    # Of 98, ten groups leave; three may stay packed: tokens 2 to 57 go, 58 to 81 are packed, 82 to 99 are as they were.
    assert held(cache) == [0, 1, *range(58, 100)]
    assert cache.view.num_used(0, "packed") == 24
    assert cache.view.capacity(0) == 24
    write(cache, 100, 30)  # 48 in the ring: four groups leave, one more than may be packed; all that was packed goes
    assert held(cache) == [0, 1, *range(90, 130)]
    assert cache.view.num_used(0, "packed") == 24


def test_a_window_without_room_for_a_group_is_refused():
    with pytest.raises(ValueError, match=r"the window of sinks is at least 32 .* got 31"):
        Chain(parts=[sinks(31), packing()])
    Chain(parts=[sinks(32), packing()])


# Paged and hierarchical: a fast tier of 16 tokens in blocks of 4.


def test_paged_and_hierarchical_move_whole_blocks():
    cache = admitted(Chain(parts=[paged(), tiers(fast_capacity=16)]))
    pool_bytes = 64 * TOKEN
    write(cache, 0, 10)
    assert cache.ledger.pooled_bytes == {"main": 12 * TOKEN}
    assert cache.ledger.tier_bytes["host"] == 0
    assert cache.strategy.at_once(0, 100, cache.view) == 12  # a block always stays, so that all that leave are full
    plan = cache.strategy.on_append(0, 8, cache.view)
    # Two tokens would have to leave to keep half: a block of 4 does. 6 are left, 8 come: 4 blocks.
    assert plan == (Reserve(0, 512, "host"), Move(0, "main", "host", Rule(recent=6)), Reserve(0, 16), Append(0, 8))
    write(cache, 10, 8)
    assert contents(cache) == list(range(18))
    assert read(cache) == list(range(18))
    assert cache.ledger.pooled_bytes == {"main": 16 * TOKEN}
    assert cache.ledger.tier_bytes["host"] == 512 * TOKEN
    assert cache.ledger.used_bytes == 14 * TOKEN
    assert cache.ledger.fixed_bytes - cache.ledger.reading_bytes == pool_bytes
    write(cache, 18, 82)
    assert contents(cache) == list(range(100))
    cache.finish()


def test_a_prompt_is_shared_while_it_is_in_blocks_and_each_moves_its_own():
    cache = admitted(Chain(parts=[paged(), tiers(fast_capacity=16)]))
    write(cache, 0, 10)
    cache.fork(1, 0, 10)
    assert cache.ledger.used_bytes == 10 * TOKEN
    write(cache, 10, 8, seq=1)
    # The child's oldest block goes to its host; the parent holds it still. The last, filled by 2, was copied.
    assert contents(cache, 1) == list(range(18))
    assert contents(cache, 0) == list(range(10))
    assert cache.ledger.used_bytes == (10 + 14 - 4) * TOKEN
    write(cache, 10, 8)
    assert contents(cache, 0) == list(range(18))
    assert cache.ledger.used_bytes == 28 * TOKEN - 4 * TOKEN  # block 4 to 7 is shared
    assert cache.strategy.on_fork(2, 0, 10, cache.view) == ()
    cache.ledger.open(2)
    with pytest.raises(LedgerError, match="the first tokens are no longer in its blocks"):
        cache.ledger.book((Fork(0, 2, 10),))
    cache.ledger.book((Release(2),))
    cache.finish(1)
    cache.finish(0)


@pytest.mark.parametrize(
    ("changed", "pool_tokens", "words"),
    [
        ({"fast_capacity": 18}, 64, "2 blocks or more, all of them full"),
        ({"fast_capacity": 4}, 64, "got 4 and blocks of 4"),
        ({"fast_capacity": 68}, 64, r"at most pool_tokens \(64\)"),
        ({"eviction": "access"}, 64, "only whole blocks, the oldest, can leave"),
    ],
)
def test_a_fast_tier_that_blocks_cannot_be(changed, pool_tokens, words):
    with pytest.raises(ValueError, match=words):
        Chain(parts=[paged(pool_tokens), tiers(**changed)])


# Growth within a bound.


def test_a_fast_tier_grows_by_a_factor_up_to_its_capacity():
    cache = admitted(Chain(parts=[dynamic(), tiers()]))
    assert cache.view.capacity(0) == 8
    # 10 > 8: max(12, 10). 20 > 12: max(18, 20). 35 > 20: max(30, 35). 45 do not fit the tier: 15 move, 30 fit in 35.
    # 38 > 35: 52, at most 40. Then it stays: 15 more are 53, so that 18 move.
    assert reserved(cache, (10, 10, 15, 10, 8, 15)) == [12, 20, 35, 40]
    assert cache.view.num_used(0, "host") == 15 + 18
    assert contents(cache) == list(range(68))


def test_the_ring_of_newest_tokens_grows_as_growth_says():
    cache = admitted(Chain(parts=[dynamic(), packing()]))
    # 8, 12, 18, 24 of at most 24 slots. A prompt of 40 has slots of its own for a while.
    assert reserved(cache, [1] * 30) == [12, 18, 24]
    assert cache.view.capacity(0) == 24
    cache = admitted(Chain(parts=[dynamic(), packing()]))
    assert reserved(cache, (5, 40)) == [48]
    assert cache.view.capacity(0) == 24


def test_an_oracle_reserves_the_end_or_the_bound():
    for total, capacity in ((10, 10), (100, 40)):
        cache = Cache(Chain(parts=[tiers(), Exact(round_to=1)]), geometry=PLAIN)
        cache.admit(Session(0, (Request(total),)))
        assert cache.view.capacity(0) == capacity
        write(cache, 0, total)


def test_prediction_remembers_what_was_appended():
    cache = admitted(Chain(parts=[predictive(), tiers(fast_capacity=400)]))
    # 10 > 8; of one append the prediction is 0 + 100: 110. 111 > 110; after 10 and 101 the next is predicted as
    # 101 · 10.1 · 1.1, so that it is the bound. Had 10 been forgotten: 111 and 10 + 100, which is 221.
    assert reserved(cache, (10, 101)) == [110, 400]


def test_three_parts_in_any_order():
    for parts in itertools.permutations([dynamic(), sinks(), packing()]):
        cache = admitted(Chain(parts=parts))
        assert reserved(cache, [1] * 51) == [12, 18, 24]
        assert held(cache) == [0, 1, *range(10, 51)]


def test_what_a_chain_says_of_itself():
    assert Chain(parts=[dynamic(), tiers()]).lossless
    assert not Chain(parts=[dynamic(), packing()]).lossless
    assert not Chain(parts=[sinks(), packing()]).lossless
    assert Chain(parts=[dynamic(), tiers(eviction="access")]).signals == ("accesses",)
    assert Chain(parts=[dynamic(), tiers()]).max_tokens == 552
    assert Chain(parts=[sinks(), packing()]).max_tokens > 2**60


ALONE = {
    "one part": ([dynamic()], "two strategies or three"),
    "none": ([], "two strategies or three"),
    "no list": (dynamic(), "two strategies or three"),
    "the same": ([sinks(), heavy()], "sinks and heavy_hitters both evict"),
    "static, dynamic": (
        [Static(max_seq_len=40), dynamic(), packing()],
        "static and dynamic both decide how capacity grows",
    ),
    "two placements": ([packing(), tiers()], "quantized and hierarchical both decide where tokens go"),
    "recompute": ([Recompute(), packing()], "recompute does not do one of these alone"),
    "a chain": ([Chain(parts=[dynamic(), tiers()]), sinks()], "chain does not do one of these alone"),
    "no strategy": ([dynamic(), "sinks"], "a part of a chain decides"),
}


@pytest.mark.parametrize(("parts", "words"), ALONE.values(), ids=ALONE)
def test_what_is_no_chain(parts, words):
    with pytest.raises(ValueError, match=words):
        Chain(parts=parts)


REFUSED = {
    (heavy, packing): "it keeps positions and mass beside each slot, which packed slots do not",
    (
        lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"),
        packing,
    ): "positions and votes beside each slot",
    (lambda: Compressed(kept_fraction=0.5, interval=16), packing): "packed groups leave whole, the oldest first",
    (windows, packing): "the one out of sight, the other into few bits",
    (sinks, tiers): "nothing is left for a slow tier",
    (heavy, tiers): "nothing is left for a slow tier",
    (lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"), tiers): "chunks of a slow tier keep no votes",
    (lambda: Compressed(kept_fraction=0.5, interval=16), tiers): "chunks lose their oldest tokens only",
    (windows, tiers): "the one out of sight, the other to a slow tier",
    (lambda: Static(max_seq_len=40), tiers): "hierarchical reserves what it needs on the device at once already",
    (lambda: Chunked(chunk_tokens=16), tiers): "left half empty at the front",
    (lambda: Chunked(chunk_tokens=16), sinks): "left half empty at the front",
    (paged, packing): "the few that are not packed fill no pool",
    (paged, sinks): "these are the sinks",
    (paged, heavy): "it evicts single tokens from everywhere",
    (paged, windows): "nothing to take from a pool",
    (dynamic, lambda: Compressed(kept_fraction=0.5, interval=16)): "compressed decides itself how its capacity grows",
    (
        dynamic,
        lambda: SnapKV(budget=24, window=8, kernel_size=3, pooling="max"),
    ): "snapkv decides itself how its capacity grows",
    (dynamic, lambda: tiers(background=True)): "set background to false",
    (lambda: dynamic(30), tiers): "dynamic grows to 30 tokens, and 40 are needed",
    (
        lambda: Ahead(initial_capacity=8, growth_factor=1.5, max_capacity=600, round_to=1, start_at=0.9),
        tiers,
    ): "only contiguous slots that none leaves can grow beside the steps",
}


@pytest.mark.parametrize(("parts", "words"), REFUSED.items(), ids=list(REFUSED.values()))
def test_what_does_not_go_together(parts, words):
    for order in (parts, parts[::-1]):
        with pytest.raises(ValueError, match=words):
            Chain(parts=[make() for make in order])


TOGETHER = {
    "sinks, quantized": (lambda: sinks(60), lambda: packing(13)),
    "dynamic, sinks, quantized": (dynamic, lambda: sinks(60), lambda: packing(13)),
    "paged, hierarchical": (paged, tiers),
    "paged, hierarchical with files": (paged, lambda: tiers(disk_capacity=512)),
    "dynamic, hierarchical": (dynamic, tiers),
    "dynamic, hierarchical by access": (dynamic, lambda: tiers(eviction="access")),
    "concat, hierarchical": (Concat, tiers),
    "predictive, quantized": (predictive, packing),
    "exact, quantized": (lambda: Exact(round_to=1), packing),
    "dynamic, sinks": (dynamic, sinks),
    "dynamic, heavy_hitters": (dynamic, heavy),
    "dynamic, streaming": (dynamic, windows),
}


@pytest.mark.parametrize("parts", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_is_what_was_written(parts, seed):
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    chosen = Chain(parts=[make() for make in parts])
    counts = [int(rng.integers(1, 80)) if rng.random() < 0.3 else 1 for _ in range(40)]
    while sum(counts) > 550:
        counts.pop()
    cache = Cache(chosen, 1 + seed % 2, attend=bool(chosen.signals))
    cache.admit(Session(0, tuple(Request(count) for count in counts)))
    written = [[], []]
    for count in counts:
        new = tokens(generator, cache.num_rows, count), tokens(generator, cache.num_rows, count)
        for all_of, added in zip(written, new, strict=True):
            all_of.append(added)
        cache.append(*new)
        for layer in range(TINY.num_layers):
            check(cache, layer, [torch.cat([each[layer] for each in all_of], dim=2) for all_of in written])
    cache.finish()


def test_parts_in_a_file_are_strategies_of_kvbench_or_of_a_package_that_was_named(tmp_path):
    node = node_of("strategy", "sinks_int4")
    for target in ("os.system", "kvbench.workload.arrivals.Poisson", "kvbench.strategy.base.rounded_up"):
        node["parts"][1] = {"_target_": target}
        with pytest.raises(UsageError, match=r"strategy\.mine\.parts\[1\]: unknown target"):
            build(node, "strategy", "strategy.mine")
        path = tmp_path / "mine.yaml"
        path.write_text("# @package strategy.mine\n" + yaml.safe_dump(node), encoding="utf-8")
        with pytest.raises(UsageError, match="unknown target"):
            vet_file(path, "strategy", ())
    with pytest.raises(UsageError, match=r"strategy\.mine\.parts\[0\]: window is a positive integer"):
        build({**node, "parts": [node["parts"][0] | {"window": 0}]}, "strategy", "strategy.mine")


# What the core learned for it.


def booked(layout, num_tokens):
    areas = (Area("slow", Chunks(8)), Area(layout=layout))
    ledger = Ledger(PLAIN, areas=areas)
    ledger.open(0)
    ledger.book((Reserve(0, 32, "slow"), Reserve(0, 16), Append(0, num_tokens)))
    return ledger


def test_blocks_leave_whole_and_oldest_first_or_all():
    ledger = booked(Blocks(4, 32), 10)
    for rule in (Rule(recent=7), Rule(first=2, recent=4), Rule(recent=2, top=4, by="norm")):
        with pytest.raises(LedgerError, match=r"blocks leave whole, the oldest first|ranks"):
            ledger.book((Move(0, "main", "slow", rule),))
    ledger.book((Keep(0, Rule(recent=6)),))
    assert (ledger.view.num_used(0), ledger.view.capacity(0), ledger.pooled_bytes["main"]) == (6, 12, 12 * TOKEN)
    ledger.book((Move(0, "main", "slow", Rule()),))
    # Two blocks held tokens; the third, reserved and empty, stays.
    assert (ledger.view.num_used(0), ledger.view.capacity(0), ledger.pooled_bytes["main"]) == (0, 4, 4 * TOKEN)
    assert ledger.view.num_altered(0) == 4


def test_a_chunk_that_lost_all_its_tokens_is_used_from_its_first_slot():
    class Losing(Chunked):
        lossless = False

    chosen = Losing(chunk_tokens=8)
    cache = admitted(chosen)
    write(cache, 0, 12)
    cache.carry_out((Keep(0, Rule()),))
    assert (cache.view.capacity(0), cache.view.allocated(0)) == (8, 8)
    cache.carry_out((Append(0, 8),), *numbered(12, 8))
    assert contents(cache) == list(range(12, 20))


def test_a_view_after_a_plan_books_nothing():
    ledger = booked(Blocks(4, 32), 10)
    later = ledger.view.after((Move(0, "main", "slow", Rule(recent=2)), Append(0, 3)))
    assert (later.num_used(0), later.num_used(0, "slow"), later.num_seen(0)) == (5, 8, 13)
    assert (ledger.view.num_used(0), ledger.view.num_used(0, "slow"), ledger.view.num_seen(0)) == (10, 0, 10)
    assert later.after((Append(0, 1),)).num_used(0) == 6
    with pytest.raises(LedgerError, match="there is room for"):
        ledger.view.after((Reserve(0, 0, "slow"), Move(0, "main", "slow", Rule())))
    before = (ledger.used_bytes, ledger.allocated_bytes, dict(ledger.sharers))
    ledger.view.after((Release(0),))
    assert (ledger.used_bytes, ledger.allocated_bytes, dict(ledger.sharers)) == before


@pytest.mark.parametrize("residual_tokens", [9, 13, 16])
def test_a_group_is_never_torn_by_the_end_of_the_ring(residual_tokens):
    cache = admitted(packing(residual_tokens))
    for number in range(90):
        write(cache, number, 1)
    assert held(cache) == list(range(90))
