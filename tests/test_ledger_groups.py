"""Accounts by area and group of layers: bounds, states and appends that pass through, against plain models of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.ledger import Ledger, LedgerError, OutOfMemory
from kvbench.ledger.costs import area_cost
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.plan.area import Area, Blocks, Chunks
from kvbench.plan.ops import Append, Fork, Release, Reserve, Rows, Settle, Truncate

SIZES = {"num_heads": 4, "num_kv_heads": 2, "dtype": "float32"}
RECURRENT = StateTensor(name="recurrent", rows=3, columns=5, dtype="float32")
MIXED = KVGeometry(
    groups=(
        LayerGroup(kind="full", layers=(0, 5), key_dim=8, value_dim=8, **SIZES),
        LayerGroup(kind="window", layers=(1, 2), key_dim=8, value_dim=4, tokens=5, **SIZES),
        LayerGroup(kind="chunked", layers=(3,), key_dim=16, value_dim=16, tokens=8, **SIZES),
        LayerGroup(kind="window", layers=(4,), key_dim=8, value_dim=8, tokens=11, **SIZES),
        LayerGroup(kind="state", layers=(6, 7), state=(RECURRENT,)),
        LayerGroup(kind="sharing", layers=(8,), num_heads=4),
    ),
    dtype="float32",
    name="Mixed",
)
STATES = 2 * 60
FULL, NARROW, CHUNK, WIDE = 2 * 128, 2 * 96, 256, 128
"""Bytes of a token in each group that holds tokens."""
ONE_AREA = (Area(),)
ALL_BOUNDED = KVGeometry(groups=MIXED.groups[1:3], dtype="float32")


def by_hand(num_tokens):
    return num_tokens * FULL + min(num_tokens, 5) * NARROW + min(num_tokens, 8) * CHUNK + min(num_tokens, 11) * WIDE


def opened(geometry=MIXED, budget_bytes=None, areas=ONE_AREA, num_rows=1):
    ledger = Ledger(geometry, budget_bytes, areas, num_rows)
    ledger.open(0)
    return ledger


@pytest.mark.parametrize("geometry", [MIXED, ALL_BOUNDED])
@given(num_bytes=st.integers(-500, 20_000), beside=st.integers(0, 20))
def test_slots_in_is_the_most_that_bytes_hold(geometry, num_bytes, beside):
    cost = area_cost(Area(), geometry, 1)
    most = cost.slots_in(num_bytes, beside)
    sizes = [cost.replaced_bytes(count, beside, max(count, beside)) for count in range(200)]
    fitting = [count for count, size in enumerate(sizes) if size <= num_bytes]
    if most is None:
        assert len(fitting) == 200
    else:
        assert most == max(fitting, default=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 3))
def test_groups_add_up_to_what_is_held(appends, num_rows):
    ledger, used = opened(num_rows=num_rows), 0
    for count in appends:
        used += count
        ledger.book((Reserve(0, used + 2), Append(0, count)))
        found = ledger.view.by_group(0)
        assert sum(found.values()) == ledger.allocated_bytes == num_rows * (by_hand(used + 2) + STATES)
        assert ledger.used_bytes == num_rows * (by_hand(used) + STATES)
        assert found["main", "window_2"] == num_rows * min(used + 2, 11) * WIDE
    assert found["", "state"] == num_rows * STATES
    ledger.book((Release(0),))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (ledger.reading_bytes, 0)


def test_a_coming_resize_is_of_the_groups_that_it_replaces():
    ledger = opened()
    ledger.book((Reserve(0, 9), Append(0, 9)))
    ledger.book((Reserve(0, 20, background=True),))
    assert sum(ledger.view.by_group(0).values()) == ledger.allocated_bytes
    assert ledger.view.by_group(0)["main", "window"] == 5 * NARROW
    ledger.book((Settle(0),))
    assert ledger.allocated_bytes == by_hand(20) + STATES


@pytest.mark.parametrize(
    ("used", "count", "passing"),
    [
        (0, 5, 0),
        (0, 6, 6 * NARROW // 2),  # one of two layers
        (4, 2, 6 * NARROW // 2),
        (0, 9, 9 * CHUNK),
        (7, 2, 9 * CHUNK),
        (8, 2, 6 * NARROW // 2),  # a chunk begins with the first of them
        (30, 1, 0),  # the oldest gives its slot to the newest, which does not look at it
        (30, 20, (6 + 20) * CHUNK),
    ],
)
def test_an_append_that_does_not_stay_passes_a_layer_at_a_time(used, count, passing):
    ledger = opened()
    ledger.book((Reserve(0, 60),))
    if used:
        ledger.book((Append(0, used),))
    held = ledger.allocated_bytes
    receipt = ledger.book((Append(0, count),))
    assert (receipt.transient_bytes if receipt else 0) == passing
    assert ledger.allocated_bytes == held
    assert receipt is None or receipt.peak_bytes == held + passing


def test_what_passes_counts_against_the_budget():
    ledger = opened()
    ledger.book((Reserve(0, 60),))
    ledger.budget_bytes = ledger.allocated_bytes + 9 * CHUNK - 1
    with pytest.raises(OutOfMemory):
        ledger.book((Append(0, 9),))
    ledger.budget_bytes += 1
    ledger.book((Append(0, 9),))


def test_room_leaves_room_for_states():
    ledger = opened(budget_bytes=by_hand(30) + STATES)
    assert ledger.view.room(0) == 30
    ledger.book((Reserve(0, 4),))
    with pytest.raises(OutOfMemory):
        ledger.book((Reserve(0, ledger.view.room(0) + 1),))
    ledger.book((Reserve(0, ledger.view.room(0)),))


def test_states_come_once_and_follow_rows():
    ledger = opened()
    assert ledger.book((Reserve(0, 4),)).requested_bytes == by_hand(4) + STATES
    assert ledger.book((Reserve(0, 6),)).requested_bytes == by_hand(6)
    ledger.book((Append(0, 3),))
    receipt = ledger.book((Rows(0, 2),))
    assert (receipt.requested_bytes, receipt.copied_bytes) == (2 * (by_hand(6) + STATES), 2 * (by_hand(3) + STATES))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (2 * (by_hand(6) + STATES), 2 * (by_hand(3) + STATES))


def test_states_of_a_fork_are_a_copy():
    ledger = opened(areas=(Area(layout=Blocks(4, 64)),))
    ledger.book((Reserve(0, 8), Append(0, 8)))
    ledger.open(1)
    receipt = ledger.book((Fork(0, 1, 8),))
    assert receipt.copied_bytes == STATES
    assert ledger.view.by_group(1)["", "state"] == STATES
    ledger.book((Release(0),))
    ledger.book((Release(1),))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (ledger.reading_bytes, 0)


def test_chunks_bound_each_group_by_its_own():
    ledger = opened(areas=(Area(layout=Chunks(4)),))
    ledger.book((Reserve(0, 12),))
    assert ledger.allocated_bytes == by_hand(12) + STATES
    assert ledger.book((Reserve(0, 24),)).requested_bytes == 12 * FULL


APART = (Area(layers=("full", "chunked")), Area("near", Chunks(4), layers=("window",)))
"""The two groups with windows live in chunks, the others contiguously."""


def test_areas_of_some_layers_hold_those_and_are_chains_of_their_own():
    ledger = opened(areas=APART)
    ledger.book((Reserve(0, 10), Reserve(0, 8, "near"), Append(0, 6), Append(0, 6, "near")))
    assert ledger.view.by_group(0) == {
        ("main", "full"): 10 * FULL,
        ("main", "chunked"): 8 * CHUNK,
        ("near", "window"): 5 * NARROW,
        ("near", "window_2"): 8 * WIDE,
        ("", "state"): STATES,
    }
    assert ledger.used_bytes == by_hand(6) + STATES
    assert (ledger.view.num_seen(0), ledger.view.num_attended(0), ledger.view.num_held(0)) == (6, 6, 6)
    with pytest.raises(LedgerError, match=r"appends each token to every chain of areas, got \[7, 6\] tokens"):
        ledger.book((Append(0, 1),))
    with pytest.raises(LedgerError, match="2 chains of areas, and all would have to follow"):
        ledger.book((Truncate(0, 1),))
    ledger.book((Release(0),))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ((Area(layers=("ful",)),), "area main: unknown group of layers 'ful'. Did you mean 'full'"),
        ((Area(layers=("full",)),), "window layers live in one chain of areas, all of the same groups; got none"),
        ((Area(), Area("near", layers=("window",))), "window layers live in one chain .* got main and near"),
        (
            (
                Area(layers=("full", "chunked")),
                *(Area(name, Chunks(4), layers=("window",)) for name in ("old", "near")),
            ),
            "sliding-window layers hold the last tokens of a single area.* got areas old, near",
        ),
    ],
)
def test_layers_that_live_nowhere_or_twice_are_refused(areas, words):
    with pytest.raises(ValueError, match=words):
        opened(areas=areas)


@pytest.mark.parametrize("layers", [("full", "full"), "full", (1,)])
def test_layers_are_names(layers):
    with pytest.raises(ValueError, match="layers is a tuple of groups' names, each once"):
        Area(layers=layers)
