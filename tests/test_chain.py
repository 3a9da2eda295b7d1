"""Chains: what parts do together, by hand, and what the core learned for it."""

import itertools

import pytest

from kvbench.ledger import Ledger, LedgerError
from kvbench.plan.area import Area, Blocks, Chunks
from kvbench.plan.ops import Append, Fork, Keep, Move, Release, Reserve, Rule
from kvbench.strategy.chain import Chain
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.exact import Exact
from kvbench.workload.request import Request, Session
from tests.support.driven import Cache
from tests.support.numbered import PLAIN, TOKEN, admitted, contents, numbered, read, write
from tests.support.parts import dynamic, packing, paged, predictive, sinks, tiers


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


def test_parts_in_a_list_are_the_same_chain():
    """As a user writes it, or a file's list is read: it is a key beside others."""
    listed, default = Chain(parts=[*Chain().parts]), Chain()
    assert listed == default
    assert {default: "kept"}[listed] == "kept"


def test_what_a_chain_says_of_itself():
    assert Chain(parts=[dynamic(), tiers()]).lossless
    assert not Chain(parts=[dynamic(), packing()]).lossless
    assert not Chain(parts=[sinks(), packing()]).lossless
    assert Chain(parts=[dynamic(), tiers(eviction="access")]).signals == ("accesses",)
    assert Chain(parts=[dynamic(), tiers()]).max_tokens == 552
    assert Chain(parts=[sinks(), packing()]).max_tokens > 2**60


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
