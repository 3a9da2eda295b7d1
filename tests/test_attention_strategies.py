"""Attention through every strategy's storage equals attention over plain tensors; so do the masses that it tells."""

import pytest
import torch

from kvbench.plan.area import Accesses, Area, Chunks, Holes, Mass, Packed, Votes
from kvbench.plan.ops import Append, Keep, Move, Reserve, Rule
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.support.driven import Cache, tokens
from tests.test_attention import reference, unpacked
from tests.test_contract import small
from tests.test_storage_models import Given

SAME = ("predictive_article", "predictive_average", "predictive_learned", "predictive_quantile", "static", "exact")
"""As dynamic, so far as storage goes."""
LOSSLESS = [name for name in STRATEGIES if strategy(name).lossless and not strategy(name).recomputes]
LOSSLESS = [name for name in LOSSLESS if name not in SAME]
APPENDS = (300, 1, 40, 1, 1, 700, 2, 1, 90, 1, 1)
"""Enough for a host tier of 512 to pass chunks on, and for a staged read of blocks in two parts."""


def queries_of(generator, num_rows, num_tokens):
    shape = (num_rows, TINY.plain.num_heads, num_tokens, TINY.plain.head_dim)
    return [torch.randn(shape, generator=generator) for _ in range(TINY.num_layers)]


def joined(before, new):
    return [torch.cat(pair, dim=2) for pair in zip(before, new, strict=True)]


def attend_and_compare(cache, appends, num_rows, tolerance):
    """Append so often; each step's output is that of plain attention over all tokens so far."""
    generator = torch.Generator().manual_seed(5)
    cache.admit(Session(0, (Request(sum(appends)),)))
    seen = [[torch.zeros(num_rows, 2, 0, 8)] * TINY.num_layers for _ in range(2)]
    for total in appends:
        left = total
        while left:
            count = cache.strategy.at_once(0, left, cache.view) if left > 1 else 1
            new = tokens(generator, num_rows, count), tokens(generator, num_rows, count)
            queries = queries_of(generator, num_rows, count)
            seen = [joined(*each) for each in zip(seen, new, strict=True)]
            cache.step(*new, queries=queries)
            for layer, chunks in enumerate(cache.outputs):
                output = torch.cat([unpacked(chunk, TINY.plain.num_heads) for chunk in chunks], dim=2)
                expected = reference(queries[layer], seen[0][layer], seen[1][layer])
                assert (output - expected).abs().max() < tolerance
            left -= count


@pytest.mark.parametrize("name", LOSSLESS)
def test_attention_of_a_lossless_strategy_is_that_over_plain_tensors(name):
    cache = Cache(small(name), num_rows=2, attend=True)
    attend_and_compare(cache, APPENDS, 2, 1e-5)


def test_three_tiers_and_holes_are_read_as_one():
    tiers = {"fast_capacity": 64, "slow_capacity": 512, "disk_capacity": 1024, "top_accessed": 8, "read_ahead": True}
    for eviction in ("age", "access"):
        cache = Cache(strategy("hierarchical", eviction=eviction, **tiers), num_rows=2, attend=True)
        attend_and_compare(cache, APPENDS, 2, 1e-5)
        assert all(store.num_used for store in cache.sequence().stores.values())
        assert cache.view.num_used(0, "disk") >= 512


def test_eight_bits_are_read_within_their_rounding():
    cache = Cache(strategy("int8", group_size=8, residual_tokens=16), num_rows=2, attend=True)
    attend_and_compare(cache, APPENDS, 2, 0.03)


def direct(keys, queries, held, first):
    """Weights of each query on each held slot: float32 [rows, KV heads, heads a KV head, queries, slots]."""
    rows, _, count, dim = queries.shape
    grouped = queries.view(rows, keys.shape[1], -1, count, dim)
    own = keys.gather(2, held.long().unsqueeze(-1).expand(-1, -1, -1, dim)).unsqueeze(2)
    scores = grouped @ own.transpose(-1, -2) / dim**0.5
    at = torch.arange(first, first + count).view(1, 1, 1, -1, 1)
    return torch.softmax(scores.masked_fill(held[:, :, None, None, :] > at, -torch.inf), dim=-1)


def by_position(store, layer):
    """A score a token; 0 where the token is not held."""
    held = store.positions[layer][:, :, : store.num_used].long()
    spread = torch.zeros(*held.shape[:2], 400)
    return spread.scatter_(2, held, store.scores[layer][:, :, : store.num_used].float())


def steps(area, kinds, num_rows=2):
    """Append and attend; yields what a check needs after each step, before anything is evicted."""
    chosen = Given(area)
    cache = Cache(chosen, num_rows, attend=True)
    cache.ledger.open(0)
    cache.backend.open(0)
    generator = torch.Generator().manual_seed(9)
    whole = [torch.zeros(num_rows, 2, 0, 8)] * 2
    cache.carry_out((Reserve(0, 400),))
    for count in kinds:
        new, queries = tokens(generator, num_rows, count), queries_of(generator, num_rows, count)
        whole = joined(whole, new)
        first = cache.view.num_seen(0)
        chosen.on_append = lambda seq, num_tokens, view: (Append(seq, num_tokens),)
        before = [by_position(cache.sequence().stores["main"], layer) for layer in range(2)]
        cache.step(new, new, queries=queries)
        yield cache, whole, queries, first, before


def test_mass_is_the_sum_of_softmax_weights():
    area = Area(layout=Holes(), positions=True, score=Mass())
    for cache, whole, queries, first, before in steps(area, (60, 1, 30, 1)):
        store = cache.sequence().stores["main"]
        for layer in range(2):
            held = store.positions[layer][:, :, : store.num_used]
            weights = direct(whole[layer], queries[layer], held, first).sum(dim=(2, 3))
            gained = by_position(store, layer) - before[layer]
            assert torch.allclose(gained.gather(2, held.long()), weights, atol=1e-4)
        cache.carry_out((Keep(0, Rule(recent=4, top=15, by="mass")),))  # each head its own; the order is lost


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_votes_are_the_pooled_weights_of_the_last_queries(pooling):
    window, kernel = 5, 3
    area = Area(positions=True, score=Votes(window, kernel, pooling))
    for cache, whole, queries, first, _ in steps(area, (300, 40, 3)):
        store = cache.sequence().stores["main"]
        num_voters = min(window, queries[0].shape[2])
        before = store.num_used - window
        for layer in range(2):
            held = store.positions[layer][:, :, : store.num_used]
            weights = direct(whole[layer], queries[layer], held, first)[:, :, :, -num_voters:].sum(dim=(2, 3))
            padded = torch.nn.functional.pad(weights[:, :, :before], (1, 1))
            three = torch.stack((padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]))
            pooled = three.amax(dim=0) if pooling == "max" else three.mean(dim=0)
            assert torch.allclose(store.scores[layer][:, :, :before], pooled, atol=1e-5)


def test_accesses_are_the_steps_in_which_a_slot_was_among_the_top():
    history = [[], []]
    area = Area(layout=Holes(), positions=True, score=Accesses(6, 3))
    for cache, whole, queries, first, _ in steps(area, (50, 1, 1, 1, 1, 1)):
        store = cache.sequence().stores["main"]
        for layer in range(2):
            held = store.positions[layer][:, :, : store.num_used]
            if queries[0].shape[2] == 1:
                weights = direct(whole[layer], queries[layer], held, first).sum(dim=(2, 3))
                top = torch.zeros(2, 2, 60).scatter_(2, weights.topk(6, dim=2).indices, 1.0)
                history[layer] = [*history[layer], top][-3:]
            counts = sum(history[layer], torch.zeros(2, 2, 60))[:, :, : store.num_used]
            bits = sum((store.scores[layer][:, :, : store.num_used] >> place) & 1 for place in range(3))
            assert torch.equal(bits.float(), counts)


def test_several_areas_of_several_formats_are_read_together():
    """A chain of packed, retired and native slots: what is not attended is not read."""
    packed = Area("old", Chunks(8), format=Packed(8, 4, "channel"))
    out_of_sight = Area("aside", Chunks(8), attended=False)
    chosen = Given(Area(layout=Chunks(8)))
    chosen.areas = (packed, out_of_sight, *chosen.areas)
    cache = Cache(chosen, 2, attend=True)
    cache.ledger.open(0)
    cache.backend.open(0)
    generator = torch.Generator().manual_seed(3)
    new = tokens(generator, 2, 30), tokens(generator, 2, 30)
    cache.carry_out((Reserve(0, 32), Append(0, 30)), *new)
    cache.carry_out((Reserve(0, 8, "old"), Move(0, "main", "old", Rule(recent=22))))
    cache.carry_out((Reserve(0, 8, "aside"), Move(0, "main", "aside", Rule(recent=17))))
    one, values = tokens(generator, 2, 1), tokens(generator, 2, 1)
    queries = queries_of(generator, 2, 1)
    chosen.on_append = lambda seq, num_tokens, view: (Append(seq, num_tokens),)
    cache.step(one, values, queries=queries)
    assert (cache.view.num_attended(0), cache.view.num_altered(0)) == (8 + 18, 8 + 5)
    for layer in range(2):
        whole = [
            torch.cat((each[layer][:, :, :8], each[layer][:, :, 13:], last[layer]), dim=2)
            for each, last in zip(new, (one, values), strict=True)
        ]
        output = unpacked(cache.outputs[layer][0], TINY.plain.num_heads)
        assert (output - reference(queries[layer], *whole)).abs().max() < 0.02
