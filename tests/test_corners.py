"""Corners of ledger and strategies by hand: forks of blocks filled further, moves in a row, the edges of budgets."""

import pytest

from kvbench.backend.counted import CountedBackend
from kvbench.ledger import Ledger, LedgerError, Receipt
from kvbench.plan.area import HOST, NORM, Area, Blocks, Votes
from kvbench.plan.ops import MAIN, Append, Fork, Keep, Move, Reserve, Rows, Rule
from kvbench.runner.frames import requests_frame, steps_frame
from kvbench.runner.recorder import transient_bytes
from kvbench.runner.run import run
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.concat import Concat
from kvbench.strategy.grown import Grown
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, strategy
from tests.support.fake import Fake
from tests.support.numbered import admitted, look, positions

TOKEN = TINY.bytes_per_token


def test_a_fork_inside_a_block_that_the_source_has_filled_further_has_a_copy_of_its_own():
    # Of 6 tokens in blocks of 4 it takes 5: the first block is shared, and one token of the second is copied.
    ledger = Ledger(TINY, areas=(Area(layout=Blocks(4, 40)),))
    ledger.open(0)
    ledger.open(1)
    ledger.book((Reserve(0, 8), Append(0, 6)))
    receipt = ledger.book((Fork(0, 1, 5),))
    assert (ledger.view.num_used(1), ledger.view.num_seen(1), ledger.view.capacity(1)) == (5, 5, 8)
    assert receipt.copied_bytes == TOKEN
    assert (ledger.used_bytes, ledger.allocated_bytes - ledger.workspace_bytes) == ((6 + 1) * TOKEN, 3 * 4 * TOKEN)
    copied = ledger.book((Append(1, 3),))  # into its own block, and none is copied again
    assert copied is None or copied.copied_bytes == 0
    with pytest.raises(LedgerError, match="8 of 8 slots are in use"):
        ledger.book((Append(1, 1),))


def test_compression_that_shrinks_nothing_resizes_nothing():
    # 40 tokens take 64 slots, and so do the 20 that are kept; of 100 in 128 the 50 that are kept take 64.
    half = Compressed(kept_fraction=0.5, interval=1000)
    for num_tokens, more in ((40, ()), (100, (Reserve(0, 64),))):
        ledger = Ledger(TINY, areas=half.areas)
        ledger.open(0)
        ledger.book(half.on_admit(0, Session(0, (Request(num_tokens),)), ledger.view))
        ledger.book(half.on_append(0, num_tokens, ledger.view))
        plan = half.on_attended(0, num_tokens, ledger.view)
        assert plan == (Keep(0, Rule(first=0, top=num_tokens // 2, by=NORM)), *more)
        assert ledger.book(plan).num_resizes == len(more)


@pytest.mark.parametrize(("num_heavy", "num_recent"), [(3, 0), (2, 1)])
def test_a_step_takes_the_lightest_ones_place_where_no_or_one_recent_token_is_kept(num_heavy, num_recent):
    # Weights 1, 5 and 3: token 0 has 1 + 1/6 + 1/9 of the three queries' mass, token 1 5/6 + 5/9, token 2 1/3.
    cache = admitted(HeavyHitters(num_heavy=num_heavy, num_recent=num_recent), 3, attend=True)
    look(cache, (1.0, 5.0, 3.0))
    look(cache, (2.0,))
    assert sorted(positions(cache)) == [0, 1, 3]


def test_no_recent_token_is_kept_for_its_own_sake():
    # Of five the two heaviest stay, whichever are last: 0 and 1 have been looked at by all.
    cache = admitted(HeavyHitters(num_heavy=2, num_recent=0), 5, attend=True)
    look(cache, (1.0, 1.0, 0.1, 0.1, 0.1))
    assert sorted(positions(cache)) == [0, 1]


def test_the_oldest_half_moves_beside_the_steps_again_and_again():
    # Of 40 slots, three quarters are in use at 30 tokens: 20 begin to leave. At 41 they are let go of. 30 are in use
    # again at 50 seen, and so on each 20: the host's slots are whole chunks of 512.
    chosen = strategy("hierarchical", fast_capacity=40, slow_capacity=512, background=True)
    ledger = Ledger(TINY, areas=chosen.areas)
    ledger.open(0)
    ledger.book(chosen.on_admit(0, Session(0, (Request(75),)), ledger.view))
    moves, held = [], []
    for seen in range(1, 76):
        plan = chosen.on_append(0, 1, ledger.view)
        ledger.book(plan)
        moves += [(seen, op) for op in plan if isinstance(op, Move)]
        held.append(ledger.view.num_used(0))
    leave = Move(0, MAIN, HOST, Rule(recent=10), background=True)
    assert moves == [(30, leave), (50, leave), (70, leave)]
    assert held[29:41] == [*range(30, 41), 21]
    assert held[49:61] == [*range(30, 41), 21]
    assert ledger.view.num_used(0, HOST) == 60


class Hoarding(Concat):
    """Where memory is short, asks for more of it than there is."""

    def on_pressure(self, seq, *given):
        return (Reserve(seq, 10**6),)


def test_relief_that_does_not_fit_itself_is_not_tried_for_ever():
    sessions = [Session(0, (Request(20, 12),)), Session(1, (Request(20, 12),))]
    recorder = run(
        {"it": Hoarding()},
        sessions,
        Fake(),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=50 * TOKEN,
    )
    frame = requests_frame(recorder, steps_frame(recorder), sessions)
    assert frame["outcome"].tolist() == ["completed", "completed"]


def test_rows_do_not_change_beside_background_work():
    ledger = Ledger(TINY, num_rows=2)
    ledger.open(0)
    ledger.book((Reserve(0, 8), Append(0, 4), Reserve(0, 16, background=True)))
    with pytest.raises(LedgerError, match="background work is under way; settle it first"):
        ledger.book((Rows(0, 3),))


def test_what_is_held_follows_the_rows_of_the_only_sequence():
    """Two areas of 8 and 4 slots; while rows change, the largest tensor, K of a layer of 8, is held twice."""
    areas = (Area("main"), Area("old"))
    ledger = Ledger(TINY, areas=areas, num_rows=2)
    ledger.open(0)
    ledger.book((Reserve(0, 8), Reserve(0, 4, "old"), Append(0, 3)))
    tensor = 8 * TOKEN // (2 * TINY.num_layers)
    for num_rows in (1, 3):
        receipt = ledger.book((Rows(0, num_rows),))
        assert (ledger.used_bytes, ledger.allocated_bytes) == (3 * num_rows * TOKEN, 12 * num_rows * TOKEN)
        assert receipt.transient_bytes == tensor  # of the fewer rows, before or after: one
        assert receipt.peak_bytes == 12 * max(num_rows, 2 if num_rows == 1 else 1) * TOKEN + tensor
    with pytest.raises(LedgerError, match="a batch has 1 row or more"):
        ledger.book((Rows(0, 0),))


def test_what_a_backend_cannot_tell_is_refused_before_anything_is_run():
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    with pytest.raises(ValueError, match="it needs attention to tell it: mass; backend counted supplies none"):
        run({"it": strategy("heavy_hitters")}, [Session(0, (Request(4),))], CountedBackend(TINY), **once)


@pytest.mark.parametrize(
    ("peaks", "held", "expected"),
    [
        ((10, 0), (4, 6, 6), 4),
        ((10, 0), (12, 5, 6), 0),  # no more than was held before
        ((5, 11), (4, 5, 2), 6),
        ((3, 3), (2, 3, 7), 4),
    ],
)
def test_what_is_held_in_passing_is_beyond_what_was_held_before_and_between(peaks, held, expected):
    receipts = [Receipt(peak_bytes=peak) for peak in peaks]
    assert transient_bytes(*receipts, held) == expected


def test_of_what_stays_by_access_a_quarter_of_the_fast_tier_at_most_is_the_newest():
    # Half of 40 slots stay, until the host has no room for what would leave: then more of them, and still 10 as new.
    chosen = strategy("hierarchical_access", fast_capacity=40, slow_capacity=512)
    ledger = Ledger(TINY, areas=chosen.areas)
    ledger.open(0)
    ledger.book(chosen.on_admit(0, Session(0, (Request(552),)), ledger.view))
    rules = []
    for _ in range(552):
        plan = chosen.on_append(0, 1, ledger.view)
        ledger.book(plan)
        rules += [op.rule for op in plan if isinstance(op, Move)]
    assert {rule.recent for rule in rules} == {10}
    assert {rule.top for rule in rules[:-1]} == {10}
    assert rules[-1].top > 10


def test_a_chain_that_knows_the_future_in_a_part_is_for_reference():
    plain, knowing = Concat(), strategy("exact")
    chains = [Grown(bounded=a, growth=b, bound=64) for a, b in ((plain, plain), (plain, knowing), (knowing, plain))]
    assert [chain.reference for chain in chains] == [False, True, True]


def test_the_least_window_of_votes_is_one_token():
    assert strategy("snapkv", budget=2, window=1, kernel_size=1).areas[0].score == Votes(1, 1, "max")
