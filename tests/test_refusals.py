"""What the ledger and areas refuse beyond the room of one area: shared blocks, whole groups, what can be ranked."""

import pytest

from kvbench.configuration.errors import UsageError
from kvbench.ledger import Ledger, LedgerError
from kvbench.plan.area import Area, Blocks, Chunks, Contiguous, Holes, Mass, Packed, Ring
from kvbench.plan.ops import Append, Fork, Keep, Move, Release, Reserve, Rows, Rule, Settle, Truncate
from tests.support.catalogue import TINY, strategy


def opened(*areas):
    ledger = Ledger(TINY, areas=areas)
    ledger.open(0)
    ledger.open(1)
    return ledger


def totals(ledger):
    return ledger.used_bytes, ledger.held_bytes, ledger.view.num_used(0), ledger.view.num_altered(0)


@pytest.mark.parametrize("removed", [1, 2, 4])
def test_tokens_that_others_read_are_not_truncated(removed):
    # 8 tokens fill two blocks that a fork shares; the third block, of 1 token, is its own.
    ledger = opened(Area(layout=Blocks(4, 40)))
    ledger.book((Reserve(0, 12), Append(0, 8), Fork(0, 1, 8), Append(0, 1)))
    ledger.book((Truncate(0, 1),))
    before = totals(ledger)
    with pytest.raises(LedgerError, match="others read some of these tokens"):
        ledger.book((Truncate(0, removed),))
    assert totals(ledger) == before


def test_a_block_that_was_shared_can_be_truncated_when_it_is_alone():
    ledger = opened(Area(layout=Blocks(4, 40)))
    ledger.book((Reserve(0, 8), Append(0, 6), Fork(0, 1, 6)))
    ledger.book((Append(1, 1),))
    ledger.book((Truncate(0, 2),))
    assert ledger.view.num_used(0) == 4


PACKED = Area("main", Chunks(8), format=Packed(8, 4, "token"))


@pytest.mark.parametrize(
    ("areas", "plan", "words"),
    [
        ((PACKED,), (Reserve(0, 8), Append(0, 3)), "3 tokens are no whole groups of 4"),
        ((Area(),), (Reserve(0, 8), Append(0, 8), Keep(0, Rule(first=1, recent=2))), "keeps no positions"),
        ((Area(),), (Reserve(0, 8), Append(0, 8), Keep(0, Rule(top=2, by="norm"))), "keeps no positions"),
        (
            (Area(positions=True),),
            (Reserve(0, 8), Append(0, 8), Keep(0, Rule(top=2, by="mass"))),
            "area main ranks its slots by norm",
        ),
        (
            (Area(positions=True, score=Mass()),),
            (Reserve(0, 8), Append(0, 8), Keep(0, Rule(top=2))),
            "ranks its slots by mass or norm",
        ),
        (
            (Area(layout=Ring(3)),),
            (Reserve(0, 8), Append(0, 2), Keep(0, Rule(first=1))),
            "a ring keeps its 3 pinned slots",
        ),
    ],
)
def test_what_no_storage_could_do_is_refused(areas, plan, words):
    ledger = opened(*areas)
    before = totals(ledger)
    with pytest.raises(LedgerError, match=words):
        ledger.book(plan)
    assert totals(ledger) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"layout": Holes()}, "slots that lose their order keep their positions"),
        ({"layout": Chunks(4), "positions": True, "score": Mass()}, "keep no score"),
        ({"layout": Contiguous(), "score": Mass()}, "slots that are ranked by a score keep their positions"),
    ],
)
def test_areas_that_no_storage_has_are_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        Area(**changed)


def test_a_token_is_altered_once_whatever_happens_to_it_after():
    packed = Area("old", Chunks(4), format=Packed(8, 4, "token"))
    aside = Area("aside", Chunks(4), attended=False)
    ledger = opened(packed, aside, Area(layout=Chunks(4)))
    ledger.book((Reserve(0, 16), Append(0, 16), Reserve(0, 8, "old"), Reserve(0, 8, "aside")))
    altered = []
    for op in (
        Move(0, "main", "aside", Rule(recent=8)),  # 8 out of sight
        Keep(0, Rule(recent=4), "aside"),  # 4 of them go
        Move(0, "aside", "old"),  # 4 are rounded
        Keep(0, Rule(), "old"),  # and go
        Move(0, "main", "old", Rule(recent=4)),  # 4 more are rounded
        Keep(0, Rule(recent=1)),  # 3 of the others go
    ):
        ledger.book((op,))
        altered.append(ledger.view.num_altered(0))
    assert altered == [8, 8, 8, 8, 12, 15]


BLOCKS, CHUNKED, RING = Area(layout=Blocks(4, 40)), Area(layout=Chunks(4)), Area(layout=Ring())
SIDE = Area("side", Chunks(4))
HELD = (Reserve(0, 8), Append(0, 6))


@pytest.mark.parametrize(
    ("areas", "before", "plan", "words"),
    [
        ((Area(),), HELD, (Append(0, 3),), "6 of 8 slots are in use, so that between 1 and 2 tokens"),
        ((Area(),), HELD, (Reserve(0, 5),), "6 slots are in use; evict or truncate before shrinking"),
        ((Area(),), HELD, (Reserve(0, 9, "side"),), "there is no area 'side', only main"),
        ((Area(),), HELD, (Release(0), Append(0, 1)), "sequence 0 was released earlier in the same plan"),
        ((Area(),), HELD, (Append(0, 1), Settle(0)), "settling comes first in its plan"),
        ((Area(),), HELD, (Append(0, 1), Rows(0, 2)), "a change of rows stands alone in its plan"),
        ((Area(),), HELD, (Truncate(0, 7),), "between 1 and 6 tokens"),
        ((Area(),), (*HELD, Keep(0, Rule(recent=4))), (Truncate(0, 1),), "2 tokens were evicted or rounded"),
        ((Area(),), HELD, (Fork(0, 1, 2),), "a sequence of blocks forks into one that holds nothing"),
        ((CHUNKED,), HELD, (Reserve(0, 9),), "a capacity in chunks is a multiple of 4"),
        ((CHUNKED,), HELD, (Reserve(0, 12, background=True),), "and never in the background"),
        ((CHUNKED,), HELD, (Keep(0, Rule(first=1, recent=2)),), "chunks keep the most recent slots only"),
        ((CHUNKED,), HELD, (Keep(0, Rule(top=2, by="norm")),), "chunks keep the most recent slots only"),
        ((RING,), HELD, (Keep(0, Rule(top=2, by="norm")),), "a ring keeps its 0 pinned slots and the most recent"),
        ((BLOCKS,), HELD, (Reserve(0, 10),), "a capacity in blocks is a multiple of 4"),
        ((BLOCKS,), HELD, (Keep(0, Rule(recent=3)),), "blocks leave whole, the oldest first"),
        ((BLOCKS,), HELD, (Keep(0, Rule(first=2)),), "blocks leave whole, the oldest first"),
        ((BLOCKS,), HELD, (Fork(0, 1, 7),), "with 1 to 6 of its tokens"),
        ((BLOCKS,), (*HELD, Keep(0, Rule(recent=2))), (Fork(0, 1, 2),), "the first tokens are no longer in its blocks"),
        ((SIDE, Area()), HELD, (Move(0, "main", "main", Rule(recent=5)),), "tokens move from one area to another"),
        ((SIDE, Area()), HELD, (Move(0, "main", "side", Rule(recent=2)),), "4 tokens go where there is room for 0"),
        (
            (SIDE, Area(positions=True)),
            (*HELD, Reserve(0, 8, "side")),
            (Move(0, "main", "side", Rule(recent=2)),),
            "area side does not keep the positions that main keeps",
        ),
        (
            (Area("side", Holes(), positions=True), Area()),
            (*HELD, Reserve(0, 8, "side")),
            (Move(0, "main", "side", Rule(recent=2)),),
            "an area with holes takes new tokens only",
        ),
        (
            (SIDE, Area()),
            (*HELD, Reserve(0, 8, "side")),
            (Move(0, "main", "side", Rule(recent=2), background=True),),
            "in the background, a ring's oldest slots move to chunks",
        ),
        (
            (SIDE, RING),
            (*HELD, Reserve(0, 8, "side"), Move(0, "main", "side", Rule(recent=2), background=True)),
            (Append(0, 1, "side"),),
            "4 tokens are on their way to the end of that area; settle them first",
        ),
        (
            (SIDE, RING),
            (*HELD, Reserve(0, 8, "side"), Move(0, "main", "side", Rule(recent=2), background=True)),
            (Keep(0, Rule(recent=1)),),
            "background work on area main is under way; settle it first",
        ),
    ],
)
def test_what_sequences_do_not_allow_is_refused_and_leaves_no_trace(areas, before, plan, words):
    ledger = opened(*areas)
    ledger.book(before)
    then = totals(ledger)
    with pytest.raises(LedgerError, match=words):
        ledger.book(plan)
    assert totals(ledger) == then


@pytest.mark.parametrize(
    ("num_open", "num_rows", "words"), [(1, 0, "a batch has 1 row or more"), (2, 3, "1 other sequences are open")]
)
def test_rows_that_cannot_be_are_refused(num_open, num_rows, words):
    ledger = Ledger(TINY, num_rows=2)
    for seq in range(num_open):
        ledger.open(seq)
    ledger.book(HELD)
    with pytest.raises((LedgerError, ValueError), match=words):
        ledger.book((Rows(0, num_rows),))
    assert ledger.used_bytes == 2 * 6 * TINY.bytes_per_token


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tier": "hosst", "layout": Chunks(4)}, "unknown tier 'hosst'. Did you mean 'host'"),
        ({"tier": "host"}, "slots on the host lie in chunks or blocks"),
        ({"format": Packed(8, 4, "token")}, "packed slots lie in chunks"),
        ({"layout": Ring(), "positions": True}, "keep no positions of their own"),
        ({"layout": Blocks(4, 8), "positions": True}, "keep no positions of their own"),
    ],
)
def test_areas_that_contradict_themselves_are_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        Area(**changed)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("int4", {"group_size": 48}, "group_size divides 1024, got 48"),
        ("int4", {"group_size": 0}, "group_size is a positive integer, got 0"),
        ("int4", {"residual_tokens": -1}, "residual_tokens is .*, got -1"),
        ("snapkv", {"window": 32, "budget": 32}, r"window is less than budget \(32\), got 32"),
        ("snapkv", {"kernel_size": 4}, "kernel_size is odd, got 4"),
        ("hierarchical", {"fast_capacity": 1}, "fast_capacity is an integer of at least 2, got 1"),
        ("hierarchical", {"access_window": 32}, "access_window is a positive integer and at most 31, got 32"),
        ("hierarchical", {"slow_capacity": 700}, "slow_capacity is a multiple of 512, got 700"),
        ("hierarchical", {"disk_capacity": 511}, "disk_capacity is a multiple of 512, got 511"),
        ("hierarchical", {"eviction": "agee"}, "unknown eviction 'agee'. Did you mean 'age'"),
        ("hierarchical_access", {"background": True}, "only the oldest tokens can move beside the steps"),
    ],
)
def test_parameters_out_of_range_are_refused(name, changed, words):
    with pytest.raises(UsageError, match=words):
        strategy(name, **changed)


def test_parameters_at_the_edge_are_not():
    assert strategy("snapkv", window=31, budget=32).window == 31
    assert strategy("hierarchical", fast_capacity=2, access_window=31, slow_capacity=512).fast_capacity == 2
    assert strategy("int4", group_size=1024).group_size == 1024


@pytest.mark.parametrize(
    ("name", "changed", "size", "words"),
    [
        ("hierarchical", {"fast_capacity": 8, "background": True}, 4, "blocks move in a step, never beside it"),
        ("hierarchical_access", {"fast_capacity": 8}, 4, "only whole blocks, the oldest, can leave"),
        ("hierarchical", {"fast_capacity": 4}, 4, "fast_capacity is 2 blocks or more"),
        ("hierarchical", {"fast_capacity": 10}, 4, "fast_capacity is 2 blocks or more"),
        ("hierarchical", {"fast_capacity": 44}, 4, r"at most pool_tokens \(40\)"),
    ],
)
def test_tiers_over_blocks_that_do_not_go_together_are_refused(name, changed, size, words):
    with pytest.raises(ValueError, match=words):
        strategy(name, **changed).over(Blocks(size, 40))
