"""Blocks with names in models with windows: a table a group of layers from one pool, by hand."""

import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.engine.prefixes import is_window_kept, left_blocks, most_window_blocks, window_blocks
from kvbench.engine.vllm import VLLM
from kvbench.ledger import Ledger, LedgerError, Limits, OutOfMemory
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, FULL, WINDOW, LayerGroup
from kvbench.plan import Append, Area, Blocks, Drop, Keep, Publish, Release, Reserve, Reuse, Rule
from kvbench.runner.run import check_signals
from kvbench.strategy.block_tables import BlockTable, BlockTables
from kvbench.strategy.paged import Paged
from tests.support.engine_models import model
from tests.test_prefix_operations import texts

BLOCK, REACH = 4, 6
SIZES = {"num_heads": 1, "num_kv_heads": 1, "key_dim": 1, "value_dim": 1, "dtype": "float16"}
BLOCK_BYTES = BLOCK * 4
"""K and V of one element of two bytes."""


def hybrid(kind=WINDOW, tokens=REACH):
    groups = LayerGroup(kind=FULL, layers=(0,), **SIZES), LayerGroup(kind=kind, layers=(1,), tokens=tokens, **SIZES)
    return KVGeometry(groups=groups, dtype="float16", name="hybrid")


AREAS = (
    Area(layers=("full",), layout=Blocks(BLOCK, 10 * BLOCK)),
    Area("window", layers=("window",), layout=Blocks(BLOCK, None, of="main")),
)


def both(make, *args):
    return tuple(make(*args, area) for area in ("main", "window"))


def booked():
    """Sequence 0 has 18 tokens in 5 blocks of each group; those of the first 16 have names, the window's their own."""
    ledger = Ledger(hybrid(), areas=AREAS)
    ledger.open(0)
    ledger.open(1)
    ledger.book((*both(Reserve, 0, 20), *both(Append, 0, 18)))
    names = [(number, 4 * number + 4) for number in range(4)]
    ledger.book(tuple(Publish(0, number, end) for number, end in names))
    ledger.book(tuple(Publish(0, ("window", number), end, "window") for number, end in names))
    return ledger


def blocks(ledger):
    return ledger.pooled_bytes["main"] // BLOCK_BYTES


def test_both_groups_take_blocks_of_one_pool():
    ledger = booked()
    assert (ledger.pool_bytes, blocks(ledger)) == ({"main": 10 * BLOCK_BYTES}, 10)
    assert ledger.used_bytes == 2 * 18 * 4
    with pytest.raises(OutOfMemory):
        ledger.book(both(Reserve, 1, 4))


def test_what_a_window_has_left_goes_and_attention_still_reads_all():
    # At 18 tokens the next looks at 13 to 18: the blocks of tokens 0 to 11 are out of the window, the fourth is not.
    ledger = booked()
    ledger.book((Keep(0, Rule(recent=18 - 12), "window"),))
    account = ledger.accounts[0]
    assert (account.holdings["window"].num_left, len(account.holdings["window"].blocks)) == (3, 2)
    assert account.num_attended == account.num_seen == 18
    assert account.num_altered == 0
    # They have names, so that they stay until they are dropped, the last first.
    assert blocks(ledger) == 10
    assert list(ledger.view.idle()) == [("window", 2), ("window", 1), ("window", 0)]
    ledger.book((Drop(("window", 2)),))
    assert (blocks(ledger), ledger.used_bytes) == (9, (2 * 18 - 4) * 4)
    with pytest.raises(LedgerError, match="window of 6 look back from token 18, and area window lacks the first 4"):
        ledger.book((Keep(0, Rule(recent=2), "window"),))


def test_a_sequence_goes_on_behind_what_no_window_reaches():
    # Of 16 tokens that are there the window's blocks 2 and 3 are enough, from token 11 on.
    ledger = booked()
    ledger.book((*(Reuse(1, number) for number in range(4)), *(Reuse(1, ("window", n), "window") for n in (2, 3))))
    held = ledger.accounts[1].holdings["window"]
    assert (held.num_used, held.capacity, held.num_left, held.num_bytes) == (16, 16, 2, 2 * BLOCK_BYTES)
    assert ledger.accounts[1].num_seen == 16
    assert blocks(ledger) == 10
    ledger.book((Release(0),))
    assert blocks(ledger) == 8
    ledger.book((Release(1),))
    assert ledger.view.idle_bytes() == 8 * BLOCK_BYTES


def test_a_sequence_that_lacks_what_a_window_looks_at_does_not_go_on():
    ledger = booked()
    ledger.book((*(Reuse(1, number) for number in range(4)), Reuse(1, ("window", 3), "window")))
    ledger.book((Release(0), *(Drop(("window", number)) for number in range(3))))
    with pytest.raises(LedgerError, match="look back from token 16"):
        ledger.book((*both(Reserve, 1, 20), *both(Append, 1, 1)))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Blocks(BLOCK, None, of="none"), "pool of area none, which is not there"),
        (Blocks(8, None, of="main"), "blocks of 8 tokens from the pool of area main"),
    ],
)
def test_a_pool_that_is_not_there_is_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        Ledger(hybrid(), areas=(AREAS[0], Area("window", layers=("window",), layout=layout)))


def test_decisions_by_hand():
    # A window of 64 looks at 63 tokens before: 4 blocks of 16. Of 200 tokens 137 are out of it: 8 blocks.
    assert (window_blocks(64, 16), window_blocks(65, 16), window_blocks(66, 16)) == (4, 4, 5)
    assert (left_blocks(200, 64, 16), left_blocks(63, 64, 16)) == (8, 0)
    # 63 + 256 tokens are 20 blocks, and one where the window begins; no more than the longest sequence has.
    assert (most_window_blocks(64, 256, 2_048, 16), most_window_blocks(64, 256, 100, 16)) == (21, 8)


def test_which_blocks_of_windows_are_kept_by_hand():
    def kept(interval, prompt=30, junction=0, window=6):
        by = prompt, junction, interval, window, BLOCK
        return [number for number in range(12) if is_window_kept(number, *by)]

    # A window of 6 looks at 2 blocks of 4 before; an equal prompt of 30 goes on behind 28 tokens, of 32 too.
    assert kept(0) == kept(0, prompt=32) == [5, 6]
    assert kept(0, prompt=33) == [6, 7]
    assert kept(0, junction=12) == [1, 2, 5, 6]
    assert kept(16) == [2, 3, 5, 6, 7, 10, 11]
    assert kept(8) == kept(4) == kept(1) == list(range(12))
    assert kept(0, prompt=6) == [0]


@pytest.mark.parametrize(("version", "said", "interval"), [(None, None, 0), ("0.28", None, 1), (None, 1, 1)])
def test_vllm_keeps_every_window_before_0_29(version, said, interval):
    engine = VLLM(version=version, prefix_cache_retention_interval=said, max_model_len=1_000)
    assert engine.resolved(None, model(*hybrid().groups)).window_interval == interval


class Known:
    """A view of names that are there, held by nobody, in a pool of so many free blocks."""

    def __init__(self, full, window, free):
        self._names = {*full, *(("window", key) for key in window)}
        self._free = free

    def has_name(self, key):
        return key in self._names

    def is_held(self, key):
        return False

    def free_bytes(self):
        return self._free

    def idle_bytes(self):
        return len(self._names)

    def block_bytes(self, area):
        return 1


TABLES = BlockTables(BLOCK, (BlockTable("main"), BlockTable("window", REACH)), step_tokens=8, most_tokens=100)
KEYS = list(range(8))


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ([0, 1, 2, 3, 4], 5),
        ([3, 4], 5),  # the two blocks that a window of 6 needs
        ([2, 3], 4),  # the fifth is not there
        ([4], 0),  # one is not enough,
        ([0], 1),  # but at the beginning, where there is nothing before
        ([0, 1, 4], 2),
    ],
)
def test_hits_are_where_a_windows_blocks_are_there_without_a_gap(window, found):
    assert TABLES.num_found(KEYS, 30, Known(range(5), window, 0)) == found


def test_room_counts_both_groups_and_the_window_no_more_than_it_holds():
    # 40 tokens are 10 blocks; of the window no more than 6 - 1 + 8 tokens and one block: 5. With nothing found: 15.
    assert TABLES.has_room([], 40, 8, Known((), (), 15))
    assert not TABLES.has_room([], 40, 8, Known((), (), 14))
    # 5 blocks are found of both: 5 full ones are new; the window's at 20 tokens begin with the fourth, so that 5 + 2
    # idle ones are taken, and none is new until the next step, of 8 tokens: 2 of each.
    idle = Known(range(5), range(5), 2)
    assert TABLES.has_room(KEYS, 40, 8, idle)
    assert not TABLES.has_room(KEYS, 40, 8, Known(range(5), range(5), 1))


def fitted(geometry, **options):
    chosen = Paged(block_size=BLOCK, pool_tokens=80, **options)
    return chosen.fitted(Limits(geometry=geometry, budget_bytes=None, is_modelled=True))


def test_windows_have_areas_of_their_own_where_blocks_are_kept_or_late():
    assert [area.name for area in fitted(hybrid(), prefix_caching=True).areas] == ["main", "window"]
    assert [area.name for area in fitted(hybrid(), window_blocks="late").areas] == ["main", "window"]
    assert len(fitted(hybrid()).areas) == len(fitted(hybrid(), prefix_caching=True, window_blocks="keep").areas) == 1


def test_a_request_takes_over_and_gives_back_by_both_tables():
    strategy = fitted(hybrid(), prefix_caching=True)
    first, second = texts([("a", 16), ("b", 1)], [("a", 16), ("c", 1)])
    ledger = strategy.ledger(hybrid())
    for seq, session, found in ((0, first, 0), (1, second, 16)):
        ledger.open(seq)
        ledger.book(strategy.on_admit(seq, session, ledger.view))
        ledger.book(strategy.on_reuse(seq, 17, ledger.view))
        assert ledger.view.num_used(seq) == found
        ledger.book(strategy.on_append(seq, 17 - found, ledger.view))
    assert blocks(ledger) == 2 * 5 + 2
    assert ledger.accounts[1].holdings["window"].num_left == 2
    assert strategy.on_step(0, ledger.view) == (Keep(0, Rule(recent=17 - 12), "window"),)
    assert strategy.on_step(1, ledger.view) == (Keep(1, Rule(recent=17 - 12), "window"),)


def test_layers_in_chunks_hold_the_same_blocks_as_others():
    strategy = fitted(hybrid(CHUNKED, 8), prefix_caching=True)
    assert (strategy.window_blocks, len(strategy.areas)) == ("keep", 1)
    ledger = strategy.ledger(hybrid(CHUNKED, 8))
    first, second = texts([("a", 16), ("b", 1)], [("a", 16), ("c", 1)])
    for seq, session, found in ((0, first, 0), (1, second, 16)):
        ledger.open(seq)
        ledger.book((*strategy.on_admit(seq, session, ledger.view), *strategy.on_reuse(seq, 17, ledger.view)))
        assert ledger.view.num_used(seq) == found
        ledger.book(strategy.on_append(seq, 17 - found, ledger.view))
    assert ledger.pooled_bytes["main"] == (5 + 1) * BLOCK * 2 * 4


@pytest.mark.parametrize(
    ("geometry", "options"), [(hybrid(CHUNKED, 8), {"window_blocks": "free"}), (hybrid(tokens=1), {})]
)
def test_layers_that_cannot_be_found_again_are_refused(geometry, options):
    with pytest.raises(ValueError, match="of windows of 2 or more; hybrid has"):
        fitted(geometry, prefix_caching=True, **options)


def test_tensors_do_not_carry_it_out():
    backend = Measured().made(Conditions(geometry=hybrid(), device="cpu"))
    with pytest.raises(ValueError, match=r"paged: blocks of layers with a window .* use backend=modelled or counted"):
        check_signals({"paged": fitted(hybrid(), prefix_caching=True)}, backend)
