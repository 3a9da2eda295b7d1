"""What the ledger and areas refuse beyond the room of one area: shared blocks, whole groups, what can be ranked."""

import pytest

from kvbench.area import Area, Blocks, Chunks, Contiguous, Holes, Mass, Packed, Ring
from kvbench.ledger import Ledger, LedgerError
from kvbench.ops import Append, Fork, Keep, Move, Reserve, Rule, Truncate
from tests.support.catalogue import TINY


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
