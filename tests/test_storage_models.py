"""Storages and the ledger against plain models in Python, on random operations."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.storage.ring import RingStore
from kvbench.ledger import OutOfMemory
from kvbench.plan.area import NORM, Area, Chunks, Contiguous, Holes, Mass, Packed, Ring
from kvbench.plan.ops import Append, Keep, Release, Reserve, Rule, Truncate
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import Paged
from tests.support.catalogue import TINY
from tests.support.driven import Cache, tokens
from tests.support.numbered import PLAIN, TOKEN, numbered, read

BLOCK, POOL = 4, 80


class Table:
    """Sequences as lists of blocks, a block a list of numbers that several sequences may hold."""

    def __init__(self):
        self.sequences = {}

    def append(self, seq, numbers):
        blocks = self.sequences.setdefault(seq, [])
        for number in numbers:
            if not blocks or len(blocks[-1]) == BLOCK:
                blocks.append([])
            elif sum(block is blocks[-1] for own in self.sequences.values() for block in own) > 1:
                blocks[-1] = list(blocks[-1])
            blocks[-1].append(number)

    def fork(self, seq, new, count):
        blocks = self.sequences[seq]
        whole = count // BLOCK
        self.sequences[new] = blocks[:whole]
        if count % BLOCK:
            last = blocks[whole]
            self.sequences[new].append(last if count == len(self.numbers(seq)) else last[: count % BLOCK])

    def numbers(self, seq):
        return [number for block in self.sequences[seq] for number in block]

    @property
    def distinct(self):
        return list({id(block): block for own in self.sequences.values() for block in own}.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 11)), max_size=40))
def test_paged_sequences_are_lists_that_share_blocks(steps):
    cache, model, written = Cache(Paged(block_size=BLOCK, pool_tokens=POOL), geometry=PLAIN), Table(), 0
    for what, seq, amount in steps:
        before, refusal = held(cache), None
        try:
            if what == 0 and seq in model.sequences:
                cache.carry_out((Release(seq),))
                del model.sequences[seq]
            elif what == 1 and model.sequences.get(seq):
                new = next(number for number in range(99) if number not in model.sequences)
                count = min(amount, len(model.numbers(seq)))
                cache.fork(new, seq, count)
                model.fork(seq, new, count)
            else:
                if seq not in model.sequences:
                    cache.ledger.open(seq)
                    cache.backend.open(seq)
                    model.sequences[seq] = []
                keys, values = numbered(written, amount)
                cache.step(keys, values, seq)
                model.append(seq, range(written, written + amount))
                written += amount
        except OutOfMemory as error:
            refusal = str(error)
        if refusal is not None:
            assert "the pool of area main" in refusal
            assert held(cache) == before
            for other in [other for other in cache.ledger.accounts if other not in model.sequences]:
                cache.carry_out((Release(other),))
        check_blocks(cache, model)
    for seq in list(model.sequences):
        cache.finish(seq)
    assert not cache.ledger.sharers


def held(cache):
    return cache.ledger.held_bytes, cache.ledger.used_bytes, cache.ledger.allocated_bytes


def check_blocks(cache, model):
    ledger = cache.ledger
    assert ledger.used_bytes == TOKEN * sum(len(block) for block in model.distinct)
    assert ledger.allocated_bytes - ledger.reading_bytes == TOKEN * BLOCK * len(model.distinct)
    for seq in model.sequences:
        expected = model.numbers(seq)
        assert cache.view.num_used(seq) == cache.view.num_seen(seq) == len(expected)
        if expected:
            keys, values, positions = cache.sequence(seq).full_context(0)
            assert keys[0, 0, :, 0].tolist() == expected
            assert torch.equal(values, -keys)
            assert positions[0, 0].tolist() == list(range(len(expected)))
            assert read(cache, seq) == expected
            free = cache.sequence(seq).stores["main"]._pool.num_free
            assert free == POOL // BLOCK - len(model.distinct)


class Given(Strategy):
    """One area, with operations from the test."""

    lossless = False

    def __init__(self, area):
        self.areas = (area,)


RANKED = [("contiguous", NORM), ("contiguous", "mass"), ("holes", "mass")]
"""Layouts and what ranks their slots; norms are means over heads, so that all heads keep the same tokens."""
TRACKED = TINY.bytes_per_token + 2 * TINY.track_bytes_per_token


@pytest.mark.parametrize(("layout", "by"), RANKED)
@settings(max_examples=25, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12)), min_size=1, max_size=8),
    first=st.integers(0, 3),
    recent=st.integers(0, 5),
    num_rows=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_a_rule_keeps_the_first_the_recent_and_the_top_of_each_head(layout, by, rounds, first, recent, num_rows, seed):
    kind = Holes() if layout == "holes" else Contiguous()
    cache = Cache(Given(Area(layout=kind, positions=True, score=Mass())), num_rows)
    cache.ledger.open(0)
    cache.backend.open(0)
    cache.carry_out((Reserve(0, 200),))
    generator = torch.Generator().manual_seed(seed)
    places = [(0, row, head) for row in range(num_rows) for head in range(2)]
    places += [(1, row, head) for _, row, head in places]
    model = {place: {} for place in places}  # position -> (score, norm)
    written, altered = ([], []), 0
    for count, top in rounds:
        start, used = cache.view.num_seen(0), cache.view.num_used(0)
        new = tokens(generator, num_rows, count), tokens(generator, num_rows, count)
        for kept, added in zip(written, new, strict=True):
            kept.append(added)
        cache.carry_out((Append(0, count),), *new)
        scores = cache.sequence().stores["main"].scores
        for layer, row, head in places:
            given_scores = torch.rand(count, generator=generator)
            scores[layer][row, head, used : used + count] = given_scores
            norms = (new[0][layer][row].norm(dim=2) + new[1][layer][row].norm(dim=2)).mean(dim=0) / 2
            for number in range(count):
                model[layer, row, head][start + number] = (float(given_scores[number]), float(norms[number]))
        del scores
        rule = Rule(first, recent, top, by if top else "")
        receipt = cache.carry_out((Keep(0, rule),))
        used, num_kept = used + count, min(used + count, first + recent + top)
        seen = start + count
        for place in places:
            model[place] = kept_of(model[place], rule, seen, is_norm=rule.by == NORM)
            assert len(model[place]) == num_kept
        altered += used - num_kept
        copied = num_kept if layout == "contiguous" else min(used - num_kept, num_kept)
        assert receipt.copied_bytes == (copied * TRACKED * num_rows if used > num_kept else 0)
        assert (cache.view.num_used(0), cache.view.num_altered(0)) == (num_kept, altered)
        assert cache.ledger.used_bytes == num_kept * TRACKED * num_rows
        if num_kept:
            check_slots(cache, model, written, layout)
    cache.finish()


def kept_of(slots, rule, seen, is_norm):
    """The plain rule, on the slots of one head: those it protects by their order, and the top of the others."""
    order = sorted(slots)
    if len(order) <= rule.first + rule.recent + rule.top:
        return slots
    split = len(order) - rule.recent
    others = sorted(order[rule.first : split], key=lambda position: -slots[position][is_norm])
    return {position: slots[position] for position in [*order[: rule.first], *others[: rule.top], *order[split:]]}


def check_slots(cache, model, written, layout):
    for (layer, row, head), slots in model.items():
        store = cache.sequence().stores["main"]
        found = store.positions[layer][row, head, : store.num_used].tolist()
        assert sorted(found) == sorted(slots)
        if layout == "contiguous":
            assert found == sorted(found)
        assert store.scores[layer][row, head, : store.num_used].tolist() == [slots[position][0] for position in found]
        for live, parts in zip(store.read(layer)[0], written, strict=True):
            whole = torch.cat([part[layer] for part in parts], dim=2)
            assert torch.equal(live[row, head], whole[row, head, found])


QUEUES = {"ring": Ring(), "pinned": Ring(3), "chunks": Chunks(4), "contiguous": Contiguous()}


@pytest.mark.parametrize("name", QUEUES)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 13)), max_size=30))
def test_what_keeps_the_recent_is_a_queue(name, steps):
    cache = Cache(Given(Area(layout=QUEUES[name])), geometry=PLAIN)
    cache.ledger.open(0)
    cache.backend.open(0)
    cache.carry_out((Reserve(0, 16),))
    pinned = getattr(QUEUES[name], "num_pinned", 0)
    first, queue, seen, altered = [], deque(), 0, 0
    for what, amount in steps:
        view = cache.view
        used = view.num_used(0)
        room = view.capacity(0) - used
        if what == 0:
            offset = view.allocated(0) - view.capacity(0)
            cache.carry_out((Reserve(0, -(-(used + offset + amount) // 4) * 4),))
        elif what == 1 and used:
            receipt = cache.carry_out((Keep(0, Rule(first=pinned, recent=amount)),))
            while len(queue) > amount and len(first) == pinned:
                queue.popleft()
                altered += 1
            assert receipt.copied_bytes == (0 if name != "contiguous" or used <= amount else amount * TOKEN)
        elif what == 2 and not altered and used:
            removed = min(amount, used)
            cache.carry_out((Truncate(0, removed),))
            seen -= removed
            for _ in range(removed):
                (queue or first).pop()
        elif room:
            count = min(amount, room)
            cache.carry_out((Append(0, count),), *numbered(seen, count))
            for number in range(seen, seen + count):
                (first if len(first) < pinned else queue).append(number)
            seen += count
        expected = [*first, *queue]
        assert (cache.view.num_used(0), cache.view.num_altered(0)) == (len(expected), altered)
        if expected:
            check_queue(cache, expected)
    cache.finish()


def check_queue(cache, expected):
    keys, values, positions = cache.sequence().full_context(0)
    assert keys[0, 0, :, 0].tolist() == positions[0, 0].tolist() == expected
    assert torch.equal(values, -keys)
    pieces = cache.sequence().stores["main"].pieces(0)
    assert [int(number) for piece in pieces for number in piece.keys[0, 0, :, 0]] == expected
    if isinstance(cache.sequence().stores["main"], RingStore):
        assert len(pieces) <= 3  # what is pinned, the oldest to the buffer's end, and what came round
    assert sorted(read(cache)) == expected


@pytest.mark.parametrize("keys_per", ["channel", "token"])
def test_what_is_left_of_a_group_is_restored_as_before(keys_per):
    cache = Cache(Given(Area(layout=Chunks(16), format=Packed(8, 8, keys_per))), geometry=PLAIN)
    cache.ledger.open(0)
    cache.backend.open(0)
    cache.carry_out((Reserve(0, 32), Append(0, 32)), *numbered(0, 32))
    whole = cache.sequence().full_context(0)
    for num_kept in (29, 24, 21, 11, 1):  # in the first group, at its end, in the second, in the second chunk's
        cache.carry_out((Keep(0, Rule(recent=num_kept)),))
        for part, was in zip(cache.sequence().full_context(0), whole, strict=True):
            assert torch.equal(part, was.narrow(2, 32 - num_kept, num_kept))
    cache.finish()
