"""Blocks that have names: what a strategy plans of them, by hand, and what books and storages make of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.ledger import Ledger, LedgerError, Limits, OutOfMemory
from kvbench.plan import Append, Area, Blocks, Drop, Fork, Publish, Release, Reserve, Reuse, Truncate
from kvbench.plan.ops import BadOperation
from kvbench.strategy.paged import Paged
from kvbench.workload.contents import Contents, Keys
from kvbench.workload.request import Request, Session
from tests.support.driven import Cache
from tests.support.numbered import PLAIN, TOKEN, contents, numbered, read

BLOCK = 4
AREA = (Area(layout=Blocks(BLOCK, 8 * BLOCK)),)


def texts(*lines):
    """Requests whose prompts are words of so many tokens, in a line each: equal words after equal ones are shared."""
    known, parents, ends, prompts = {}, [], [], []
    for line in lines:
        before, end = (), 0
        for word, count in line:
            end += count
            here = (*before, word)
            if here not in known:
                known[here] = len(parents)
                parents.append(known.get(before, -1))
                ends.append(end)
            before = here
        prompts.append(known[before])
    columns = (np.array(each, np.int64) for each in (parents, ends, prompts, prompts))
    made = Contents(**dict(zip(("parents", "ends", "prompts", "answers"), columns, strict=True)))
    tokens = [sum(count for _, count in line) for line in lines]
    return [Session(0, (Request(count),), keys=Keys(made, row)) for row, count in enumerate(tokens)]


class Served(Cache):
    """Serves requests that begin alike, token by token of their own numbers."""

    def begin(self, seq, session):
        """Admit, and take over what is there; the tokens that are."""
        self.admit(session, seq)
        self.carry_out(self.strategy.on_reuse(seq, session.num_tokens, self.view))
        return self.view.num_used(seq)

    def serve(self, seq, session):
        """Begin, and compute the rest."""
        found = self.begin(seq, session)
        self.append(*numbered(found, session.num_tokens - found), seq)
        return found

    def finish(self, seq=0):
        """End a sequence; what has names stays."""
        self.carry_out(self.strategy.on_finish(seq, self.view))


def served(num_blocks=8, **options):
    return Served(
        Paged(block_size=BLOCK, pool_tokens=num_blocks * BLOCK, prefix_caching=True, **options), geometry=PLAIN
    )


def slots(cache):
    """Used and allocated slots, apart from staging buffers."""
    return cache.ledger.used_bytes // TOKEN, (cache.ledger.allocated_bytes - cache.ledger.reading_bytes) // TOKEN


def test_a_prompt_takes_over_the_full_blocks_that_it_begins_with():
    # A system prompt of 8 tokens, and 5 or 3 of a question; the second finds two blocks of four, and shares them.
    first, second = texts([("system", 8), ("a", 5)], [("system", 8), ("b", 3)])
    cache = served()
    assert cache.serve(0, first) == 0
    assert slots(cache) == (13, 16)
    assert cache.serve(1, second) == 8
    assert slots(cache) == (13 + 3, 16 + 4)
    assert contents(cache, 1) == list(range(11))
    assert read(cache, 1) == list(range(11))
    # The first ends: its own full block stays, to be found; what it had begun does not.
    cache.finish(0)
    assert slots(cache) == (8 + 4 + 3, 12 + 4)
    assert list(cache.view.idle()) == [first.keys.of(BLOCK)[2]]
    cache.finish(1)
    assert slots(cache) == (12, 12)
    # Again, the first finds all its full blocks.
    assert cache.serve(2, first) == 12
    assert contents(cache, 2) == list(range(13))


def test_the_last_tokens_block_is_computed_though_it_is_there():
    # 8 tokens are two full blocks; the second is found only by who goes on after it.
    short, long = texts([("it", 8)], [("it", 8), ("more", 1)])
    cache = served()
    cache.serve(0, short)
    assert cache.serve(1, short) == 4
    assert slots(cache) == (12, 12)  # a duplicate of the second block
    assert len(cache.ledger.names.copies[short.keys.of(BLOCK)[1]]) == 2
    assert cache.serve(2, long) == 8


def test_what_nobody_holds_is_dropped_the_last_block_of_the_oldest_first():
    # A pool of 6: a, of three blocks, ends before b, of two. c takes the last free one and two more: a's last ones.
    a, b, c = texts([("a", 12)], [("b", 8)], [("c", 12)])
    cache = served(num_blocks=6)
    cache.serve(0, a)
    cache.serve(1, b)
    cache.finish(0)
    cache.finish(1)
    assert slots(cache) == (20, 20)
    assert list(cache.view.idle()) == [*a.keys.of(BLOCK)[::-1], *b.keys.of(BLOCK)[::-1]]
    cache.serve(2, c)
    assert slots(cache) == (24, 24)
    assert list(cache.view.idle()) == [a.keys.of(BLOCK)[0], *b.keys.of(BLOCK)[::-1]]
    assert not cache.view.has_name(a.keys.of(BLOCK)[1])


def test_whether_there_is_room_counts_blocks_that_are_found_and_those_that_go():
    # A pool of 4, of which a holds 2. Another a of 9 tokens takes 2 over and 1 new; b of 9 needs 3.
    a, longer, b = texts([("a", 8)], [("a", 8), ("more", 1)], [("b", 9)])
    cache = served(num_blocks=4)
    cache.serve(0, a)
    view, strategy = cache.view, cache.strategy
    assert strategy.has_room(longer, 9, 9, view)
    assert not strategy.has_room(b, 9, 9, view)
    cache.finish(0)
    assert strategy.has_room(b, 9, 9, view)
    assert strategy.has_room(longer, 16, 16, view)
    assert not strategy.has_room(longer, 17, 17, view)


def test_blocks_that_are_held_are_not_dropped():
    a, b = texts([("a", 12)], [("b", 8)])
    cache = served(num_blocks=4)
    cache.serve(0, a)
    cache.begin(1, b)
    with pytest.raises(OutOfMemory):
        cache.append(*numbered(0, 8), 1)
    assert slots(cache) == (12, 12)


def test_without_prefix_caching_nothing_stays():
    (a,) = texts([("a", 12)])
    cache = Served(Paged(block_size=BLOCK, pool_tokens=32), geometry=PLAIN)
    cache.serve(0, a)
    assert not cache.ledger.names.blocks
    assert cache.serve(1, a) == 0
    cache.finish(0)
    cache.finish(1)
    assert slots(cache) == (0, 0)


@pytest.mark.parametrize(
    ("said", "of_engine", "found"), [(None, True, True), (None, False, False), (False, True, False)]
)
def test_whether_prefixes_are_cached_is_the_engines_where_it_is_not_said(said, of_engine, found):
    limits = Limits(geometry=PLAIN, budget_bytes=None, caches_prefixes=of_engine)
    assert Paged(pool_tokens=32, prefix_caching=said).fitted(limits).prefix_caching is found


def booked(num_tokens=10, *more):
    """A ledger in which sequence 0 has so many tokens, and sequence 1 none."""
    ledger = Ledger(PLAIN, areas=AREA)
    ledger.open(0)
    ledger.open(1)
    ledger.book((Reserve(0, 12), Append(0, num_tokens), *more))
    return ledger


NAMED = Publish(0, "it", 4)
REFUSED = {
    "whole blocks of 4 tokens have names, of the 10 that sequence 0 has written": ((), Publish(0, "it", 5)),
    "of the 10": ((), Publish(0, "it", 12)),
    "sequence 0 has a name already, 'it'": ((NAMED,), Publish(0, "other", 4)),
    "no block of the name 'that' for sequence 1": ((NAMED,), Reuse(1, "that")),
    "'it' goes on after 0 tokens; sequence 0 has 10, in 12 slots": ((NAMED,), Reuse(0, "it")),
    "there is no block of the name 'that'": ((), Drop("that")),
    "sequences hold all 1 blocks of the name 'it'": ((NAMED,), Drop("it")),
    "others read some": ((NAMED, Publish(0, "next", 8)), Truncate(0, 4)),
    "there is no area 'other'": ((), Publish(0, "it", 4, "other")),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_done_is_refused_by_name_and_sequence(message):
    before, op = REFUSED[message]
    ledger = booked(10, *before)
    held = ledger.used_bytes, ledger.tier_bytes, dict(ledger.names.copies)
    with pytest.raises(LedgerError, match=message.replace("(", r"\(")):
        ledger.book((op,))
    assert held == (ledger.used_bytes, ledger.tier_bytes, dict(ledger.names.copies))


def test_a_name_can_be_looked_up():
    with pytest.raises(BadOperation, match=r"key is a name that can be looked up, .* got \[1\]"):
        Drop([1])


def test_only_blocks_have_names():
    ledger = Ledger(PLAIN)
    ledger.open(0)
    ledger.book((Reserve(0, 8), Append(0, 8)))
    with pytest.raises(LedgerError, match="area main of sequence 0 lies in Contiguous"):
        ledger.book((Publish(0, "it", 4),))


def test_a_plan_that_is_refused_leaves_no_name():
    ledger = booked()
    with pytest.raises(LedgerError):
        ledger.book((NAMED, Drop("it")))
    assert not ledger.view.has_name("it")
    ledger.book((NAMED, Release(0), Drop("it")))
    assert (ledger.used_bytes, ledger.lent_bytes, ledger.names.copies, ledger.names.idle) == (0, 0, {}, {})


def test_a_look_ahead_changes_no_names():
    ledger = booked(10, NAMED)
    after = ledger.view.after((Release(0), Drop("it")))
    assert not after.has_name("it")
    assert ledger.view.has_name("it")


def test_of_duplicates_the_first_is_found_and_the_first_let_go_of_is_dropped():
    ledger = booked(10, NAMED)
    ledger.book((Reserve(1, 4), Append(1, 4), Publish(1, "it", 4)))
    first, second = ledger.names.copies["it"]
    ledger.book((Release(1),))
    ledger.open(2)
    ledger.book((Reuse(2, "it"),))
    assert (ledger.sharers[first], ledger.names.idle) == (2, {second: 1})
    ledger.book((Drop("it"),))
    assert ledger.names.copies["it"] == (first,)


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["serve", "grow", "finish", "fork"])), max_size=25)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_books_and_storages_agree_after_every_operation(steps):
    """Of six requests with common beginnings, under a pool that does not hold all; nothing of it is another's."""
    known = texts(
        [("a", 8), ("b", 4)], [("a", 8), ("b", 4), ("c", 7)], [("a", 8)], [("d", 5)], [("d", 5), ("e", 12)], [("f", 3)]
    )
    cache, live, made = served(num_blocks=9), {}, 0
    for which, what in steps:
        try:
            if what == "serve":
                made += 1
                cache.admit(known[which], made)
                live[made] = 0
                cache.carry_out(cache.strategy.on_reuse(made, known[which].num_tokens, cache.view))
                live[made] = found = cache.view.num_used(made)
                cache.append(*numbered(found, known[which].num_tokens - found), made)
                live[made] = known[which].num_tokens
            elif live and what == "finish":
                seq = list(live)[which % len(live)]
                cache.carry_out(cache.strategy.on_finish(seq, cache.view))
                del live[seq]
            elif live and what == "grow":
                seq = list(live)[which % len(live)]
                cache.append(*numbered(live[seq], 3), seq)
                live[seq] += 3
            elif live:
                parent = list(live)[which % len(live)]
                if live[parent]:
                    made += 1
                    cache.ledger.open(made)
                    cache.backend.open(made)
                    live[made] = 0
                    cache.carry_out((Fork(parent, made, live[parent]),))
                    live[made] = live[parent]
        except OutOfMemory:
            assert cache.view.idle_bytes() + cache.view.free_bytes() < 5 * BLOCK * TOKEN
        for seq, count in live.items():
            assert contents(cache, seq) == list(range(count)) if count else True
        free = cache.backend._areas._pools["main"] if cache.backend._areas._pools else None
        assert free is None or free.num_free == cache.view.free_bytes() // (BLOCK * TOKEN)
