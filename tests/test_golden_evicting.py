"""Strategies that rank tokens, by hand: norms, attention mass and votes, which tokens stay and where they lie."""

import pytest
import torch

from kvbench.backend.attention import packed
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.snapkv import SnapKV
from tests.support.numbered import TOKEN, UNIT_QUERY, admitted, look, positions, weighted

TWO_HEADS = KVGeometry.uniform(num_layers=1, num_heads=2, num_kv_heads=2, head_dim=4, dtype="float32")
GROUPED = KVGeometry.uniform(num_layers=1, num_heads=2, num_kv_heads=1, head_dim=4, dtype="float32")


def with_norms(*tokens):
    """K and V of two heads: a token is ((|k|, |v|) of the first head, (|k|, |v|) of the second)."""
    keys, values = torch.zeros(1, 2, len(tokens), 4), torch.zeros(1, 2, len(tokens), 4)
    for number, heads in enumerate(tokens):
        for head, (key_norm, value_norm) in enumerate(heads):
            # (3, 4) is 5 long.
            keys[0, head, number, :2] = torch.tensor([3.0, -4.0]) * key_norm / 5
            values[0, head, number, 3] = value_norm
    return [keys], [values]


def alike(*norms):
    """Tokens whose K and V are so long in both heads."""
    return with_norms(*(((norm, norm), (norm, norm)) for norm in norms))


def test_compressed_keeps_half_of_each_append_and_passes_over_all_at_each_interval():
    cache = admitted(Compressed(kept_fraction=0.5, interval=8), geometry=TWO_HEADS)
    # Importance, the mean over heads of (|k| + |v|) / 2: 2, 1.5, 2.5 and 5. Alone the first head (4, 0, 3, 5) would
    # keep token 0, and the second (0, 3, 2, 5) token 1.
    cache.step(*with_norms(((7, 1), (0, 0)), ((0, 0), (3, 3)), ((1, 5), (2, 2)), ((5, 5), (5, 5))))
    assert positions(cache) == positions(cache, 1) == [2, 3]
    # Single tokens stay, however short.
    for norm in (0.5, 0.6, 0.7):
        cache.step(*alike(norm))
    assert positions(cache) == [2, 3, 4, 5, 6]
    # The eighth token is the interval's end: of 8 seen, 4 stay, in order: 2.5, 5, 0.6 and 0.7, not 0.5 and 0.1.
    cache.step(*alike(0.1))
    assert positions(cache) == positions(cache, 1) == [2, 3, 5, 6]
    assert (cache.view.num_seen(0), cache.view.num_altered(0)) == (8, 4)
    # Of three, the half rounded up is two; what was there is not ranked again.
    cache.step(*alike(1, 3, 2))
    assert positions(cache) == [2, 3, 5, 6, 9, 10]
    assert cache.sequence().read(0)[0][0][0, 0, :, 0].tolist() == pytest.approx([0.6, 3, 0.36, 0.42, 1.8, 1.2])


def test_compressed_next_pass_is_an_interval_after_the_last():
    cache = admitted(Compressed(kept_fraction=0.5, interval=8), geometry=TWO_HEADS)
    cache.step(*alike(*[1] * 10))  # 5 kept; 10 are seen, a pass is due and finds no more than half
    assert len(positions(cache)) == 5
    held = []
    for _ in range(8):
        cache.step(*alike(2))
        held.append(len(positions(cache)))
    assert held == [6, 7, 8, 9, 10, 11, 12, 9]  # at 18 seen, half of 18


def test_compressed_bytes_of_a_reduction():
    # A slot: 64 bytes of K and V of 2 heads, 8 bytes of positions. 100 tokens take 128 slots, 50 stay in 64.
    cache = admitted(Compressed(kept_fraction=0.5, interval=1000), geometry=TWO_HEADS)
    keys, values = alike(*range(1, 101))
    first = cache.carry_out(cache.strategy.on_append(0, 100, cache.view), keys, values)
    assert (first.requested_bytes, first.copied_bytes) == (128 * 72, 0)
    receipt = cache.carry_out(cache.strategy.on_attended(0, 100, cache.view))
    assert positions(cache) == list(range(50, 100))
    # 50 slots close ranks, then move into the smaller tensors.
    assert receipt.copied_bytes == (50 + 50) * 72
    assert cache.ledger.allocated_bytes == 64 * 72
    # At the peak the first new tensor (of K: 32 bytes a slot) stands beside all old ones.
    assert receipt.peak_bytes == 128 * 72 + 64 * 32


def scores(cache, head=0):
    store = cache.sequence().stores["main"]
    return store.scores[0][0, head, : store.num_used].tolist()


def test_heavy_hitters_evict_the_least_looked_at_of_each_head():
    cache = admitted(HeavyHitters(num_heavy=2, num_recent=2), geometry=TWO_HEADS, attend=True)
    # Row by row a query divides its weight among the tokens up to its own: for weights 8, 1, 4, 3 the rows are
    # 1; 8/9, 1/9; 8/13, 1/13, 4/13; 8/16, 1/16, 4/16, 3/16. The second head has 1, 8, 4, 3.
    look(cache, [8, 1, 4, 3], [1, 8, 4, 3])
    first = [1 + 8 / 9 + 8 / 13 + 8 / 16, 1 / 9 + 1 / 13 + 1 / 16, 4 / 13 + 4 / 16, 3 / 16]
    second = [1 + 1 / 9 + 1 / 13 + 1 / 16, 8 / 9 + 8 / 13 + 8 / 16, 4 / 13 + 4 / 16, 3 / 16]
    assert scores(cache) == pytest.approx(first)
    assert scores(cache, 1) == pytest.approx(second)
    # Room for one more: of tokens 0 to 2 (3 is recent) the first head drops 1, the second 2; token 3 takes the hole.
    look(cache, [6], [6])
    assert positions(cache) == [0, 3, 2, 4]
    assert positions(cache, 1) == [0, 1, 3, 4]
    # The fifth query divides by 8 + 3 + 4 + 6 = 21 and 1 + 8 + 3 + 6 = 18.
    expected = [first[0] + 8 / 21, first[3] + 3 / 21, first[2] + 4 / 21, 6 / 21]
    assert scores(cache) == pytest.approx(expected)
    # 4 is recent now: both drop token 3 (0.33 and 0.35), and 4 takes its slot.
    look(cache, [2], [2])
    assert positions(cache) == [0, 4, 2, 5]
    assert positions(cache, 1) == [0, 1, 4, 5]
    assert (cache.view.num_altered(0), cache.view.num_used(0)) == (2, 4)


def test_heavy_hitters_attend_a_long_prompt_whole_and_reduce_it_after():
    cache = admitted(HeavyHitters(num_heavy=2, num_recent=2), attend=True)
    # Weights 1, 6, 1, 2, 1, 1; sums 1, 7, 8, 10, 11, 12. Token 0 gets 1 + 1/7 + … = 1.54, 1: 3.25, 2: 0.40, 3: 0.55.
    look(cache, [1, 6, 1, 2, 1, 1])
    assert positions(cache) == [0, 1, 4, 5]
    sums = (7, 8, 10, 11, 12)
    assert scores(cache)[:2] == pytest.approx([1 + sum(1 / s for s in sums), sum(6 / s for s in sums)])
    assert cache.ledger.allocated_bytes == 4 * (TOKEN + 8)  # a position and a score of four bytes beside each slot


def test_a_step_of_heavy_hitters_copies_one_slot():
    cache = admitted(HeavyHitters(num_heavy=2, num_recent=2), attend=True)
    look(cache, [8, 1, 4, 3])
    receipt = cache.carry_out(cache.strategy.on_append(0, 1, cache.view), weighted([1]), weighted([1]))
    assert (receipt.copied_bytes, receipt.num_resizes, receipt.requested_bytes) == (TOKEN + 8, 0, 0)


def test_mass_of_a_kv_head_is_summed_over_its_query_heads():
    # Weights 3 and 1. The unit queries give 1 + 3/4 and 1/4; queries of zeros look everywhere alike: 1 + 1/2 and 1/2.
    cache = admitted(HeavyHitters(num_heavy=2, num_recent=2), geometry=GROUPED, attend=True)
    queries = torch.cat((UNIT_QUERY, torch.zeros_like(UNIT_QUERY)), dim=1).expand(1, 2, 2, 4)
    keys = weighted([3, 1])
    cache.step(keys, keys, queries=[queries])
    assert scores(cache) == pytest.approx([3.25, 0.75])


def test_snapkv_keeps_what_the_prompts_end_votes_for():
    # The last two of eight tokens vote. Among tokens 0 to 5 a vote is the weight times 1/38 + 1/39, the sums up to
    # each voter. Averaged by three, with zeros beyond the ends, the weights 1, 1, 9, 1, 1, 5 give 2, 11, 11, 11, 7, 6
    # (over 3): the clue (2) stays with its neighbours, and 5, second by its own vote, goes. The heavy token 6 beside
    # it is in the window, and lends it nothing.
    cache = admitted(SnapKV(budget=5, window=2, kernel_size=3, pooling="avg"), attend=True)
    weights = [1, 1, 9, 1, 1, 5, 20, 1]
    keys = weighted(weights)
    cache.carry_out(cache.strategy.on_append(0, 8, cache.view), keys, keys)
    cache.backend.attend_with(0, [[(0, packed(UNIT_QUERY.expand(1, 1, 8, 4), 1))]])
    vote = (1 / 38 + 1 / 39) / 3
    assert scores(cache)[:6] == pytest.approx([2 * vote, 11 * vote, 11 * vote, 11 * vote, 7 * vote, 6 * vote])
    cache.carry_out(cache.strategy.on_attended(0, 8, cache.view))
    assert positions(cache) == [1, 2, 3, 6, 7]
    # What is decoded is kept.
    look(cache, [1])
    assert positions(cache) == [1, 2, 3, 6, 7, 8]
    # The next prompt, 9 to 12, votes anew over all before 11, as they stand in order: weights 1, 9, 1, 20, 1, 1, 1, 1
    # give 10, 11, 30, 22, 22, 3, 3, 2.
    look(cache, [1, 1, 1, 1])
    assert positions(cache) == [3, 6, 7, 11, 12]
    assert (cache.view.num_seen(0), cache.view.num_altered(0)) == (13, 8)


def test_snapkv_pools_votes_by_their_maximum_as_the_papers_configurations_do():
    # Weights 1, 1, 9, 1, 2, 5 before the window, votes 1/39 + 1/40 of them: the greatest of three is 1, 9, 9, 9, 5, 5,
    # and three of the six are kept, the clue (2) and its neighbours.
    cache = admitted(SnapKV(budget=5, window=2, kernel_size=3, pooling="max"), attend=True)
    weights = [1, 1, 9, 1, 2, 5, 20, 1]
    keys = weighted(weights)
    cache.carry_out(cache.strategy.on_append(0, 8, cache.view), keys, keys)
    cache.backend.attend_with(0, [[(0, packed(UNIT_QUERY.expand(1, 1, 8, 4), 1))]])
    vote = 1 / 39 + 1 / 40
    assert scores(cache)[:6] == pytest.approx([vote, 9 * vote, 9 * vote, 9 * vote, 5 * vote, 5 * vote])
    cache.carry_out(cache.strategy.on_attended(0, 8, cache.view))
    assert positions(cache) == [1, 2, 3, 6, 7]


def test_snapkv_by_maximum_keeps_what_the_average_lets_go():
    # Weights 6, 1, 1, 4, 4, 1 before the window. By maximum: 6, 6, 4, 4, 4, 4, so that the first two are kept; by
    # mean (over 3): 7, 8, 6, 9, 9, 5, so that 3 and 4 are.
    kept = {}
    for pooling in ("max", "avg"):
        cache = admitted(SnapKV(budget=4, window=2, kernel_size=3, pooling=pooling), attend=True)
        look(cache, [6, 1, 1, 4, 4, 1, 1, 1])
        kept[pooling] = positions(cache)
    assert kept == {"max": [0, 1, 6, 7], "avg": [3, 4, 6, 7]}


def test_snapkv_leaves_a_short_prompt_alone():
    cache = admitted(SnapKV(budget=5, window=2, kernel_size=3, pooling="max"), attend=True)
    look(cache, [1, 2, 3, 4, 5])
    for _ in range(4):
        look(cache, [1])
    assert positions(cache) == list(range(9))
