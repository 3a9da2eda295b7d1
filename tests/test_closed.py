"""Areas and operations are closed sets: what is none of them is refused where it is built."""

from dataclasses import dataclass

import pytest

from kvbench.ledger import Ledger, LedgerError
from kvbench.plan.area import Accesses, Area, Blocks, Chunks, Holes, Mass, Packed, Ring, Votes
from kvbench.plan.ops import Append, Fork, Keep, Move, Release, Reserve, Rows, Rule, Settle, Truncate
from tests.support.catalogue import TINY


@dataclass(frozen=True)
class Mine:
    """A user's own layout, format, score, rule or operation."""

    bits: int = 3


class Halved(Packed):
    """A subclass, which nobody knows how to carry out."""


CHUNKS = {"layout": Chunks(8)}
SCORED = {"positions": True}

UNKNOWN = [
    (Area, {"format": Mine()} | CHUNKS, r"unknown format.*Mine\(bits=3\)"),
    (Area, {"format": "packed"} | CHUNKS, "unknown format.*Did you mean 'Packed'"),
    (Area, {"format": None}, "unknown format"),
    (Area, {"format": Packed} | CHUNKS, "unknown format"),
    (Area, {"format": Halved(8, 4, "token")} | CHUNKS, "unknown format"),
    (Area, {"format": Chunks(8)} | CHUNKS, "unknown format"),
    (Area, {"layout": "contiguous"}, "unknown layout.*Did you mean 'Contiguous'"),
    (Area, {"layout": Mine()}, "unknown layout"),
    (Area, {"layout": Ring}, "unknown layout"),
    (Area, {"layout": None}, "unknown layout"),
    (Area, {"score": "mass"} | SCORED, "unknown score.*Did you mean 'Mass'"),
    (Area, {"score": Mass} | SCORED, "unknown score"),
    (Area, {"score": Mine()} | SCORED, "unknown score"),
    (Area, {"score": False} | SCORED, "unknown score"),
    (Area, {"tier": "Device"}, "unknown tier 'Device'. Did you mean 'device'"),
    (Area, {"tier": ["host"]}, "unknown tier"),
    (Area, {"name": ""}, "an area's name is a name, got ''"),
    (Area, {"name": 3}, "an area's name is a name, got 3"),
    (Area, {"positions": 1}, "positions is True or False, got 1"),
    (Area, {"attended": "no"}, "attended is True or False, got 'no'"),
    (Area, {"read_ahead": None}, "read_ahead is True or False, got None"),
    (Area, {"layout": Chunks(6), "format": Packed(8, 4, "token")}, "a packed chunk is whole groups of 4, got 6"),
    (Ring, {"num_pinned": -1}, "Ring: num_pinned is an integer of at least 0, got -1"),
    (Ring, {"num_pinned": 1.0}, "num_pinned is an integer of at least 0, got 1.0"),
    (Ring, {"num_pinned": True}, "num_pinned is an integer of at least 0, got True"),
    (Chunks, {"num_tokens": 0}, "Chunks: num_tokens is a positive integer, got 0"),
    (Chunks, {"num_tokens": "8"}, "Chunks: num_tokens is a positive integer, got '8'"),
    (Blocks, {"num_tokens": 0, "pool_tokens": 8}, "Blocks: num_tokens is a positive integer, got 0"),
    (Blocks, {"num_tokens": 4, "pool_tokens": 0}, "Blocks: pool_tokens is a positive integer, got 0"),
    (Blocks, {"num_tokens": 4, "pool_tokens": 10}, r"pool_tokens is a multiple of num_tokens \(4\), got 10"),
    (Packed, {"bits": 3, "group": 32, "keys_per": "channel"}, "unknown bits '3'"),
    (Packed, {"bits": 4.0, "group": 32, "keys_per": "channel"}, "unknown bits '4.0'"),
    (Packed, {"bits": 16, "group": 32, "keys_per": "channel"}, "unknown bits '16'"),
    (Packed, {"bits": 4, "group": 0, "keys_per": "channel"}, "Packed: group is a positive integer, got 0"),
    (Packed, {"bits": 4, "group": 32, "keys_per": "chan"}, "unknown keys_per 'chan'. Did you mean 'channel'"),
    (Packed, {"bits": 4, "group": 32, "keys_per": None}, "unknown keys_per 'None'"),
    (Votes, {"window": 0, "kernel": 3}, "Votes: window is a positive integer, got 0"),
    (Votes, {"window": 8, "kernel": 4}, "Votes: kernel is odd, got 4"),
    (Votes, {"window": 8, "kernel": -3}, "Votes: kernel is a positive integer, got -3"),
    (Votes, {"window": 8, "kernel": 7, "pooling": "mean"}, "unknown pooling 'mean'"),
    (Accesses, {"top": 0, "window": 8}, "Accesses: top is a positive integer, got 0"),
    (Accesses, {"top": 2, "window": 32}, "Accesses: window is a positive integer and at most 31, got 32"),
    (Rule, {"first": -1}, "Rule: first is an integer of at least 0, got -1"),
    (Rule, {"recent": 2.5}, "Rule: recent is an integer of at least 0, got 2.5"),
    (Rule, {"top": "3"}, "Rule: top is an integer of at least 0, got '3'"),
    (Rule, {"top": 3, "by": "mas"}, "Rule: unknown by 'mas'. Did you mean 'mass'"),
    (Rule, {"top": 3, "by": None}, "Rule: unknown by 'None'"),
    (Reserve, {"seq": "0", "num_tokens": 4}, "Reserve: seq is an integer of at least 0, got '0'"),
    (Reserve, {"seq": 0, "num_tokens": -4}, "Reserve: num_tokens is an integer of at least 0, got -4"),
    (Reserve, {"seq": 0, "num_tokens": 4.0}, "Reserve: num_tokens is an integer of at least 0, got 4.0"),
    (Reserve, {"seq": 0, "num_tokens": 4, "area": None}, "Reserve: area is a name, got None"),
    (Reserve, {"seq": 0, "num_tokens": 4, "background": "yes"}, "Reserve: background is True or False, got 'yes'"),
    (Append, {"seq": 0, "num_tokens": True}, "Append: num_tokens is an integer of at least 0, got True"),
    (Append, {"seq": 0, "num_tokens": 1, "area": 0}, "Append: area is a name, got 0"),
    (Keep, {"seq": 0, "rule": 4}, "Keep: unknown rule.*'4'"),
    (Keep, {"seq": 0, "rule": Mine()}, "Keep: unknown rule"),
    (Move, {"seq": 0, "src": "main", "dst": 3}, "Move: dst is a name, got 3"),
    (Move, {"seq": 0, "src": Area(), "dst": "old"}, "Move: src is a name"),
    (Move, {"seq": 0, "src": "main", "dst": "old", "rule": None}, "Move: unknown rule"),
    (Settle, {"seq": None}, "Settle: seq is an integer of at least 0, got None"),
    (Truncate, {"seq": 0, "num_tokens": 0.5}, "Truncate: num_tokens is an integer of at least 0, got 0.5"),
    (Rows, {"seq": 0, "num_rows": -1}, "Rows: num_rows is an integer of at least 0, got -1"),
    (Fork, {"seq": 0, "new": "1", "num_tokens": 4}, "Fork: new is an integer of at least 0, got '1'"),
    (Release, {"seq": 1.0}, "Release: seq is an integer of at least 0, got 1.0"),
]


@pytest.mark.parametrize(("kind", "given", "words"), UNKNOWN)
def test_what_is_none_of_the_kinds_is_refused_where_it_is_built(kind, given, words):
    with pytest.raises(ValueError, match=words):
        kind(**given)


@pytest.mark.parametrize("plan", [(Mine(),), (Reserve(0, 8), "append"), (Reserve(0, 8), None), (Reserve,)])
def test_an_operation_that_is_none_is_refused_and_nothing_of_its_plan_is_booked(plan):
    ledger = Ledger(TINY)
    ledger.open(0)
    with pytest.raises(LedgerError, match="unknown operation"):
        ledger.book(plan)
    assert ledger.allocated_bytes == 0


@pytest.mark.parametrize("plan", [None, [Reserve(0, 8)], Reserve(0, 8), "", 0])
def test_a_plan_that_is_no_tuple_is_refused(plan):
    ledger = Ledger(TINY)
    ledger.open(0)
    with pytest.raises(LedgerError, match="a plan is a tuple of operations, got"):
        ledger.book(plan)


def test_a_sequence_keeps_scores_of_one_kind():
    areas = (
        Area("old", layout=Holes(), positions=True, score=Mass()),
        Area(layout=Holes(), positions=True, score=Votes(4, 3)),
    )
    with pytest.raises(ValueError, match="the areas of a sequence keep scores of one kind"):
        Ledger(TINY, areas=areas)
