"""Paging, sinks and streaming windows, by hand: which tokens are held and read, and the bytes of each step."""

from itertools import permutations

import pytest

from kvbench.plan.ops import Release
from kvbench.strategy.paged import Paged
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.streaming import Streaming
from tests.support.numbered import TOKEN, admitted, contents, numbered, read, write


def slots(cache):
    """Used and allocated slots, apart from staging buffers."""
    ledger = cache.ledger
    return ledger.used_bytes / TOKEN, (ledger.allocated_bytes - ledger.reading_bytes) / TOKEN


def family():
    """Blocks of 4. A parent of 6 tokens, a child of all of them, and a grandchild of the parent's first 5 of 7."""
    cache = admitted(Paged(block_size=4, pool_tokens=32))
    write(cache, 0, 6)
    assert slots(cache) == (6, 8)
    # The child shares both blocks; nothing is copied, nothing allocated.
    assert cache.fork(1, 0, 6).copied_bytes == 0
    assert slots(cache) == (6, 8)
    # Its token 6 goes into the shared second block, which holds 2 tokens: they are copied into a third block.
    write(cache, 6, 1, seq=1)
    assert slots(cache) == (6 + 2 + 1, 12)
    # The parent now has its second block alone: its token 6 copies nothing.
    write(cache, 6, 1)
    assert slots(cache) == (10, 12)
    # Of 5 tokens the first block is shared; the parent has filled the second further, so that 1 token is copied.
    assert cache.fork(2, 0, 5).copied_bytes == TOKEN
    assert slots(cache) == (11, 16)
    write(cache, 5, 1, seq=2)
    assert slots(cache) == (12, 16)
    return cache


def test_a_fork_inside_a_block_copies_it_when_one_writes():
    cache = family()
    assert [contents(cache, seq) for seq in range(3)] == [list(range(7)), list(range(7)), list(range(6))]
    assert [read(cache, seq) for seq in range(3)] == [list(range(7)), list(range(7)), list(range(6))]
    pool = cache.sequence().stores["main"]._pool
    assert pool.num_free == 8 - 4
    first_blocks = {cache.sequence(seq).stores["main"].table[0] for seq in range(3)}
    last_blocks = {cache.sequence(seq).stores["main"].table[1] for seq in range(3)}
    assert (len(first_blocks), len(last_blocks)) == (1, 3)


def test_the_copy_of_a_shared_block_is_booked():
    cache = admitted(Paged(block_size=4, pool_tokens=32))
    write(cache, 0, 6)
    cache.fork(1, 0, 6)
    receipt = cache.carry_out(cache.strategy.on_append(1, 1, cache.view), *numbered(6, 1))
    assert (receipt.copied_bytes, receipt.moved_bytes, receipt.num_resizes) == (2 * TOKEN, 0, 0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_family_is_released_in_any_order(order):
    # Beside the shared first block's 4: the parent's own 3, the child's 3, the grandchild's 2, a block each.
    cache, own = family(), {0: 3, 1: 3, 2: 2}
    pool = cache.sequence().stores["main"]._pool
    alive = {0: 7, 1: 7, 2: 6}
    for seq in order:
        cache.carry_out((Release(seq),))
        del alive[seq]
        shared = 4 if alive else 0
        assert slots(cache) == (shared + sum(own[s] for s in alive), shared + 4 * len(alive))
        assert pool.num_free == 8 - len(alive) - bool(alive)
        for other, count in alive.items():
            assert contents(cache, other) == list(range(count))
    assert cache.ledger.sharers == {}


def test_a_full_block_that_is_shared_is_never_written_to():
    cache = admitted(Paged(block_size=4, pool_tokens=32))
    write(cache, 0, 8)
    cache.fork(1, 0, 8)
    write(cache, 8, 3, seq=1)
    write(cache, 8, 1)
    assert slots(cache) == (8 + 3 + 1, 16)  # two blocks shared, one more each, nothing copied
    assert (contents(cache), contents(cache, 1)) == (list(range(9)), list(range(11)))


def test_sinks_keep_the_first_and_the_last_at_each_step():
    # 2 sinks and a window of 3. After token n >= 4: 0, 1 and the last three, n in the slot of n - 3.
    cache = admitted(Sinks(num_sinks=2, window=3))
    write(cache, 0, 4)
    assert (contents(cache), slots(cache)) == ([0, 1, 2, 3], (4, 5))
    expected = {4: [0, 1, 2, 3, 4], 5: [0, 1, 5, 3, 4], 6: [0, 1, 5, 6, 4], 7: [0, 1, 5, 6, 7], 8: [0, 1, 8, 6, 7]}
    for token, in_slots in expected.items():
        write(cache, token, 1)
        assert read(cache) == in_slots
        assert contents(cache) == sorted(in_slots)
        assert slots(cache) == (5, 5)
    assert (cache.view.num_altered(0), cache.view.num_seen(0)) == (9 - 5, 9)


def test_sinks_attend_a_long_append_whole_and_keep_its_end():
    cache = admitted(Sinks(num_sinks=2, window=3))
    write(cache, 0, 7)
    assert (contents(cache), slots(cache)) == ([0, 1, 4, 5, 6], (5, 5))
    write(cache, 7, 1)  # in the slot of token 4
    assert read(cache) == [0, 1, 7, 5, 6]
    # 6 more on 5: 11 slots for the while, the 5 copied in order; then 0, 1 and the last 3 of 14.
    plan = cache.strategy.on_append(0, 6, cache.view)
    receipt = cache.carry_out(plan, *numbered(8, 6))
    assert (receipt.num_resizes, receipt.copied_bytes, receipt.requested_bytes) == (1, 5 * TOKEN, 11 * TOKEN)
    # Growing holds one of two old tensors of 5 slots beside the new.
    assert receipt.peak_bytes == 11 * TOKEN + 5 * TOKEN // 2
    assert read(cache) == [0, 1, 5, 6, 7, *range(8, 14)]
    receipt = cache.carry_out(cache.strategy.on_attended(0, 6, cache.view))
    assert (receipt.num_resizes, receipt.copied_bytes) == (1, 5 * TOKEN)
    assert (read(cache), slots(cache)) == ([0, 1, 11, 12, 13], (5, 5))
    assert cache.view.num_altered(0) == 9


def test_sinks_without_sinks_are_a_window():
    cache = admitted(Sinks(num_sinks=0, window=3))
    write(cache, 0, 2)
    for token in range(2, 7):
        write(cache, token, 1)
    assert read(cache) == [6, 4, 5]


def test_streaming_retires_windows_and_holds_each_token_once():
    # Windows of 8, overlap of 2: a window retires 6 tokens. 20 tokens come as 8, 6 and 6.
    strategy = Streaming(window_size=8, overlap_size=2, max_retired=2)
    cache = admitted(strategy)
    steps, done = [], 0
    while done < 20:
        count = strategy.at_once(0, 20 - done, cache.view)
        cache.step(*numbered(done, count))
        steps.append((count, contents(cache), sorted(read(cache))))
        done += count
    assert steps == [
        (8, list(range(8)), list(range(8))),
        (6, list(range(14)), list(range(6, 14))),
        (6, list(range(20)), list(range(12, 20))),
    ]
    # Two retired windows of 6 beside the active 8.
    assert slots(cache) == (20, 12 + 8)
    assert cache.view.num_altered(0) == 12  # out of attention's sight
    # The next token retires a third window, and the oldest goes.
    write(cache, 20, 1)
    assert (contents(cache), sorted(read(cache))) == (list(range(6, 21)), [18, 19, 20])
    assert slots(cache) == (15, 20)
    assert cache.view.num_altered(0) == 18  # each counted once, whether retired or dropped
    for token in range(21, 100):
        write(cache, token, 1)
        held = contents(cache)
        assert held == list(range(held[0], token + 1))
        assert held[-len(read(cache)) :] == sorted(read(cache))
        assert len(held) <= 12 + 8
        assert cache.view.num_altered(0) == cache.view.num_seen(0) - len(read(cache))


def test_streaming_moves_without_copying():
    cache = admitted(Streaming(window_size=8, overlap_size=2, max_retired=2))
    write(cache, 0, 8)
    receipt = cache.carry_out(cache.strategy.on_append(0, 1, cache.view), *numbered(8, 1))
    assert (receipt.moved_bytes, receipt.copied_bytes, receipt.num_resizes) == (6 * TOKEN, 0, 0)
    assert receipt.requested_bytes == 6 * TOKEN
