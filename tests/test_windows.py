"""The ledger where some layers hold a window of tokens only: held against tensors that are counted one by one."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvbench.ledger import UNLIMITED, Ledger, LedgerError, Limits, OutOfMemory
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Blocks, Chunks, Holes, Packed, Ring
from kvbench.plan.ops import Append, Keep, Release, Reserve, Rule, Settle, Truncate
from kvbench.workload.request import Request, Session
from tests.support.catalogue import strategy

WINDOW = 20
GEOMETRY = KVGeometry.uniform(
    num_layers=5, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32", num_window_layers=3, window_tokens=WINDOW
)
SLOT = 64  # bytes of a token in a tensor: 2 heads of 8 elements of 4 bytes
FULL = 2 * 2 * SLOT  # in the K and V of 2 layers that hold all
TOKEN = 2 * 5 * SLOT
ONE_AREA = (Area(),)
CAPACITIES = st.integers(0, 60)
WITH_WINDOWS = [
    "async",
    "chunked",
    "concat",
    "dynamic",
    "exact",
    "fp8",
    "paged",
    "power_of_two",
    "predictive",
    "predictive_article",
    "predictive_average",
    "predictive_learned",
    "predictive_quantile",
    "recompute",
    "static",
]


def by_hand(num_tokens):
    """Bytes of so many slots: 4 tensors of all, 6 of the last 20."""
    return 4 * SLOT * num_tokens + 6 * SLOT * min(num_tokens, WINDOW)


class Tensors:
    """One sequence's contiguous tensors, slots each; what a resize replaces, and the most that is held meanwhile."""

    def __init__(self):
        self.slots = [0] * 10
        self.requested = self.copied = 0
        self.peak = 0

    def resize(self, capacity, num_used):
        wanted = [capacity] * 4 + [min(capacity, WINDOW)] * 6
        self.peak = self.live
        for index, slots in enumerate(wanted):
            old = self.slots[index]
            if slots == old and index >= 4:  # a window that is whole stays as it is
                continue
            self.peak = max(self.peak, self.live + SLOT * slots)
            self.slots[index] = slots
            self.requested += SLOT * slots
            self.copied += SLOT * min(num_used, slots)

    @property
    def live(self):
        return SLOT * sum(self.slots)


def opened(areas=ONE_AREA, num_rows=1):
    ledger = Ledger(GEOMETRY, None, areas, num_rows)
    ledger.open(0)
    return ledger


@given(st.lists(st.tuples(CAPACITIES, st.integers(1, 40)), max_size=12))
def test_resizes_cost_what_the_tensors_that_change_take(steps):
    ledger, tensors, used = opened(), Tensors(), 0
    for capacity, count in steps:
        if capacity < used + count or capacity == ledger.view.capacity(0):
            continue
        before = (tensors.live, tensors.requested, tensors.copied)
        receipt = ledger.book((Reserve(0, capacity),))
        tensors.resize(capacity, used)
        assert ledger.allocated_bytes == tensors.live == by_hand(capacity) == GEOMETRY.held_bytes(capacity)
        assert receipt.requested_bytes == tensors.requested - before[1]
        assert receipt.copied_bytes == tensors.copied - before[2]
        assert receipt.peak_bytes == tensors.peak
        assert receipt.transient_bytes == tensors.peak - max(before[0], tensors.live)
        while count:  # in steps of one and of several
            step = min(count, 1 + used % 3)
            ledger.book((Append(0, step),))
            used, count = used + step, count - step
            assert ledger.used_bytes == by_hand(used)
    ledger.book((Release(0),))
    assert (ledger.used_bytes, ledger.allocated_bytes) == (0, 0)


def test_a_resize_beyond_the_window_by_hand():
    ledger = opened()
    ledger.book((Reserve(0, 30), Append(0, 25)))
    assert ledger.allocated_bytes == 30 * FULL + 20 * 6 * SLOT
    receipt = ledger.book((Reserve(0, 50),))
    # 4 tensors of 50 slots, 25 of them copied; the 6 of the window stay.
    assert (receipt.requested_bytes, receipt.copied_bytes, receipt.transient_bytes) == (
        50 * FULL,
        25 * FULL,
        30 * SLOT,
    )
    assert receipt.num_resizes == 1


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 20_000))
@example(13, 0, 1, 5568)  # just the window, and more in the layers that hold all
def test_room_is_the_largest_resize_that_is_booked(capacity, used, other, spare):
    ledger = opened()
    ledger.open(1)
    ledger.book((Reserve(1, other),))
    ledger.book((Reserve(0, capacity),))
    if 0 < used <= capacity:
        ledger.book((Append(0, used),))
    ledger.budget_bytes = ledger.allocated_bytes + spare
    room = ledger.view.room(0)
    with pytest.raises(OutOfMemory):
        ledger.book((Reserve(0, max(room, capacity) + 1),))
    if room > capacity:
        ledger.book((Reserve(0, room),))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 30_000), st.integers(0, 40))
@example(WINDOW, 1, 30_000, 0)
def test_a_background_resize_holds_both_and_room_beside_is_its_largest(capacity, used, spare, late):
    ledger = opened()
    ledger.book((Reserve(0, capacity), Append(0, min(used, capacity))))
    ledger.budget_bytes = ledger.allocated_bytes + spare
    room = ledger.view.room_beside(0, capacity)
    with pytest.raises(OutOfMemory):
        ledger.book((Reserve(0, max(room, capacity) + 1, background=True),))
    if room <= capacity:
        return
    receipt = ledger.book((Reserve(0, room, background=True),))
    # Windows that are whole stay; the others exist twice until the resize is settled.
    assert ledger.allocated_bytes == by_hand(capacity) + receipt.requested_bytes
    assert receipt.requested_bytes == (FULL * room if capacity >= WINDOW else by_hand(room))
    assert ledger.view.device_slots(0)[2] == ledger.allocated_bytes
    appended = min(late, ledger.view.capacity(0) - ledger.view.num_used(0))
    if appended:
        ledger.budget_bytes = None  # several tokens at once pass through a window, which takes memory for a while
        ledger.book((Append(0, appended),))
    settled = ledger.book((Settle(0),))
    assert ledger.allocated_bytes == by_hand(room)
    assert settled.copied_bytes == appended * (FULL if capacity >= WINDOW else TOKEN)
    ledger.book((Release(0),))
    assert (ledger.used_bytes, ledger.allocated_bytes) == (0, 0)


@given(st.integers(1, 60), st.integers(1, 30))
def test_room_beside_counts_from_the_capacity_that_will_be(capacity, budget_tokens):
    ledger = opened()
    ledger.book((Reserve(0, capacity), Append(0, 1)))
    ledger.budget_bytes = ledger.allocated_bytes + by_hand(budget_tokens)
    grown = capacity + 2
    room = ledger.view.room_beside(0, grown)
    try:
        after = ledger.view.after((Reserve(0, grown),))
    except OutOfMemory:
        return
    assert room == after.room_beside(0, grown)
    assert opened().view.room_beside(0, 5) == UNLIMITED


def test_rows_multiply_all_parts():
    ledger = opened(num_rows=3)
    ledger.book((Reserve(0, 40), Append(0, 30)))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (3 * by_hand(40), 3 * by_hand(30))


def test_chunks_beyond_the_window_add_to_the_other_layers_only():
    ledger = opened(areas=(Area(layout=Chunks(8)),))
    ledger.book((Reserve(0, 24), Append(0, 23)))
    assert ledger.allocated_bytes == by_hand(24)
    assert ledger.book((Reserve(0, 48),)).requested_bytes == 24 * FULL
    ledger.book((Append(0, 20),))
    assert (ledger.allocated_bytes, ledger.used_bytes) == (by_hand(48), by_hand(43))
    ledger.book((Keep(0, Rule(recent=10)),))  # 33 of 43 leave, and with them 4 chunks
    assert (ledger.allocated_bytes, ledger.used_bytes) == (by_hand(16), by_hand(10))


def test_evicting_from_contiguous_slots_copies_in_the_layers_that_hold_all():
    ledger = opened()
    ledger.book((Reserve(0, 40), Append(0, 40)))
    receipt = ledger.book((Keep(0, Rule(recent=30)),))
    assert (receipt.copied_bytes, receipt.transient_bytes) == (30 * FULL, 30 * SLOT)
    assert ledger.used_bytes == by_hand(30)


def test_blocks_hold_every_layer_alike():
    ledger = opened(areas=(Area(layout=Blocks(8, 1024)),))
    ledger.book((Reserve(0, 48), Append(0, 43)))
    assert ledger.view.device_slots(0)[2] == 48 * TOKEN
    assert ledger.used_bytes == 43 * TOKEN
    ledger.book((Truncate(0, 10),))


def test_what_left_a_window_is_not_restored():
    ledger = opened()
    ledger.book((Reserve(0, 40), Append(0, WINDOW)))
    ledger.book((Truncate(0, 5),))
    ledger.book((Append(0, 15),))
    with pytest.raises(LedgerError, match="hold the last 20 of 30 tokens; what was before cannot be restored"):
        ledger.book((Truncate(0, 5),))
    ledger.book((Truncate(0, 30),))
    assert ledger.used_bytes == 0


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (Area(layout=Ring(4)), "sliding-window layers hold slots that are not packed.*got Native.* in Ring"),
        (Area(layout=Holes(), positions=True), "sliding-window layers.*Holes"),
        (Area(positions=True), "without positions or scores.*1 figures beside each slot"),
        (Area(layout=Chunks(8), format=Packed(4, 8, "channel")), "sliding-window layers.*Packed"),
    ],
)
def test_layouts_without_a_window_are_refused(area, words):
    with pytest.raises(ValueError, match=words):
        Ledger(GEOMETRY, areas=(replace(area, layers=("full", "window")),))


def test_several_areas_are_refused_but_for_blocks():
    two = (Area("old", Chunks(8), layers=("full", "window")), Area(layers=("full", "window")))
    with pytest.raises(ValueError, match=r"sliding-window layers.*got areas old, main"):
        Ledger(GEOMETRY, areas=two)
    Ledger(GEOMETRY, areas=(Area("old", Blocks(8, 64), tier="host"), Area(layout=Blocks(8, 64))))


@pytest.mark.parametrize("name", [name for name in WITH_WINDOWS if name != "recompute"])
def test_strategies_hold_the_bytes_of_their_capacity(name):
    """Lengths cross the window of 1,024 tokens in one append, and in steps of one."""
    geometry = KVGeometry.uniform(
        num_layers=6, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float16", num_window_layers=5, window_tokens=1024
    )
    chosen = strategy(name).fitted(Limits(geometry=geometry, budget_bytes=None, live_tokens=(2900,)))
    ledger = Ledger(geometry, areas=chosen.areas)
    held = geometry.held_in("fp8_e4m3") if name == "fp8" else geometry
    in_blocks = isinstance(chosen.areas[0].layout, Blocks)
    chosen.on_begin()
    ledger.open(0)
    ledger.book(chosen.on_admit(0, Session(0, (Request(700, 600), Request(1500, 100))), ledger.view))
    for count in (700, *[1] * 600, 1500, *[1] * 100):
        ledger.book(chosen.on_append(0, count, ledger.view))
        used, capacity, num_bytes = ledger.view.device_slots(0)
        if in_blocks:
            of_layer, first = geometry.bytes_per_token // 6, max(used - 1024, 0) // 16
            assert num_bytes == of_layer * (capacity + 5 * 16 * (-(-used // 16) - first))
            assert ledger.used_bytes == geometry.held_bytes(used)
            continue
        assert ledger.used_bytes == held.held_bytes(used)
        if not ledger.view.is_busy(0):
            assert num_bytes == held.held_bytes(capacity)
    ledger.book(chosen.on_finish(0, ledger.view))
    assert (ledger.used_bytes, ledger.held_bytes) == (0, ledger.fixed_bytes)
