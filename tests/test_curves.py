"""A calibrated machine's curves: between, beyond and shared; a plan's price by hand."""

import pytest

from kvbench.backend.base import Times
from kvbench.backend.choice import Conditions
from kvbench.backend.curves import CURVES, Curves, Lines, PiecewiseLinear
from kvbench.backend.modelled import Modelled
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, Blocks, Cast, Chunks, Packed, Ring
from kvbench.plan.ops import MAIN, Append, Fork, Keep, Move, Release, Reserve, Rule
from tests.support.booked import BookedSteps
from tests.support.machines import GEOMETRY, machine

# Two layers; a slot has 16 bytes in each of their 4 tensors, 32 bytes a layer.
CALIBRATED_FOR = {"dtype": "float16", "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "num_rows": 1}
# Fixed nanoseconds, and those a byte, token or slot.
NANOSECONDS = {
    "allocate": (100, 1),
    "free": (50, 0),
    "copy": (0, 2),
    "append": (10, 3),
    "append_piece": (5, 3),
    "decode": (20, 4),
    "merge": (7, 1),
    "gather": (0, 6),
    "staged": (30, 5),
    "fetch_host": (0, 10),
    "fetch_disk": (0, 12),
    "store_host": (0, 11),
    "store_disk": (0, 13),
    "rank": (0, 14),
    "close": (0, 15),
    "host": (1000, 500),
    "queries_2": (0, 2),
    "queries_4": (0, 4),
    "pack_8": (0, 100),
    "restore_8": (0, 9),
    "cast_fp8_e4m3": (10, 4),
    "restore_fp8_e4m3": (0, 2),
}


def points(fixed, each):
    return [[0, fixed * 1e-9], [1000, (fixed + 1000 * each) * 1e-9]]


def hand(calibrated_for=CALIBRATED_FOR, **changed):
    curves = {name: points(*ns) for name, ns in NANOSECONDS.items()} | changed
    kept = {name: curve for name, curve in curves.items() if curve is not None}
    return machine(curves=kept, calibrated_for=calibrated_for)


def modelled(*areas, hardware=None, geometry=GEOMETRY, num_rows=1):
    conditions = Conditions(geometry=geometry, hardware=hardware or hand(), cache_only=True, num_rows=num_rows)
    backend = BookedSteps(Modelled(memory_fraction=1.0).made(conditions), areas or (Area(),))
    backend.open(0)
    return backend


def test_a_line_goes_on_beyond_its_points():
    line = PiecewiseLinear([[10, 2.0], [20, 4.0], [40, 12.0]])
    assert [line.at(size) for size in (5, 10, 15, 20, 30, 50)] == [1.0, 2.0, 3.0, 4.0, 8.0, 16.0]
    assert PiecewiseLinear([[10, 2.0], [20, 12.0]]).at(5) == 0.0  # -3, and nothing takes less than no time


def test_a_part_shares_what_the_whole_takes():
    line = PiecewiseLinear([[0, 1.0], [10, 11.0], [20, 41.0]])
    assert line.share(5, 5) == line.at(5) == 6.0
    # The whole of 20 takes 40 beside its fixed 1, and a quarter of it 10.
    assert line.share(5, 20) == 11.0
    assert line.share(15, 10) == line.at(15) == 26.0


def test_lines_are_straight_between_their_numbers():
    lines = Lines({4: PiecewiseLinear([[0, 0.0], [10, 40.0]]), 2: PiecewiseLinear([[0, 0.0], [10, 10.0]])})
    assert lines.largest == 4
    assert [lines.at(number, 5) for number in (2, 3, 4)] == [5.0, 12.5, 20.0]


def test_a_contiguous_cache_by_hand():
    backend = modelled()
    # 4 tensors of 160 bytes at 100 + 160 ns; one operation is booked, 1,000 + 500 ns of the host.
    assert backend.step((Reserve(0, 10),), 0, 0) == Times(1040, 0, 0, 0)
    assert backend.now_ns() == 1040 + 1500
    # In each of 2 layers 4 tokens at 10 + 12 ns, and 4 queries over 4 slots, 16 ns; the host only appends.
    assert backend.step((Append(0, 4),), 0, 4) == Times(0, 44, 0, 32)
    assert backend.now_ns() == 2540 + 76 + 1000
    # 6 more: 10 + 18 ns; the first 4 queries look at 8 slots, 32 ns, the last 2 at 10, 20 ns.
    assert backend.step((Append(0, 6),), 0, 6) == Times(0, 56, 0, 104)
    # Grown: 4 tensors of 320 bytes at 100 + 320, 160 bytes of each copied at 320, and the old ones freed at 50.
    assert backend.step((Reserve(0, 20),), 0, 0) == Times(4 * 420 + 4 * 320 + 4 * 50, 0, 0, 0)
    # One token, 10 + 3 ns, and one query over 11 slots, 20 + 44.
    assert backend.step((Append(0, 1),), 0, 1) == Times(0, 26, 0, 128)
    assert backend.step((Release(0),), 0, 0) == Times(200, 0, 0, 0)


def test_several_operations_are_booked_one_by_one_and_the_rest_of_a_step_has_no_fixed_cost():
    backend = modelled()
    spent = sum(backend.step((Reserve(0, 10), Append(0, 1)), 0, 0))
    assert backend.now_ns() == spent + 1000 + 2 * 500
    before = backend.now_ns() + sum(backend.step((Reserve(0, 12),), 0, 0, continued=True))
    assert backend.now_ns() == before + 500
    before = backend.now_ns() + sum(backend.step((Keep(0, Rule(recent=1)), Append(0, 1)), 0, 0))
    assert backend.now_ns() == before + 1000


def test_what_others_read_meanwhile_is_no_longer_at_hand():
    # A slot takes 1 ns of the first 20 in turn, 3 of all that follow; two layers of 8 slots stay at hand.
    hardware = hand(decode=[[0, 0.0], [20, 20e-9], [40, 80e-9]])
    backend = modelled(hardware=hardware)
    backend.open(1)
    for seq in (0, 1):
        backend.step((Reserve(seq, 8), Append(seq, 8)), seq, 0)
    assert backend.step((), 0, 1).attend_ns == 2 * 8
    assert backend.step((), 0, 1).attend_ns == 2 * 8
    assert backend.step((), 1, 1).attend_ns == 2 * 8  # it never read before
    # 16 slots of its own and 16 of the other's gone by: 32 take 56 ns, a layer's 8 of them 14.
    assert backend.step((), 0, 1).attend_ns == 2 * 14


def test_shared_blocks_that_others_read_meanwhile_are_at_hand():
    hardware = hand(gather=[[0, 0.0], [20, 20e-9], [40, 80e-9]])
    backend = modelled(Area(layout=Blocks(4, 32)), hardware=hardware)
    backend.step((Reserve(0, 8), Append(0, 8)), 0, 0)
    backend.open(1)
    backend.step((Fork(0, 1, 8),), 0, 0)
    for seq in (0, 1, 0, 1):
        # 8 slots gathered, 8 ns, and read, 30 + 40: what the other reads is what this one has read.
        assert backend.step((), seq, 1).attend_ns == 2 * 78


def test_blocks_by_hand():
    backend = modelled(Area(layout=Blocks(4, 32)))
    # The pool, 32 · 64 bytes, and a staging buffer of a layer, 1,024 · 32, as 4 tensors of 8,704 bytes.
    assert backend.step((Reserve(0, 8),), 0, 0).reserve_ns == 4 * (100 + 8704)
    # A block of 4, 10 + 12 ns, and a piece of 2, 5 + 6.
    assert backend.step((Append(0, 6),), 0, 0).append_ns == 2 * 33
    # 6 slots gathered, 36 ns, and read, 30 + 30.
    assert backend.step((), 0, 1).attend_ns == 2 * 96
    # 3 queries over 6 slots gathered: 36 and 18 ns.
    assert backend.step((), 0, 3).attend_ns == 2 * 54
    assert backend.step((Release(0),), 0, 0).reserve_ns == 0


def test_chunks_by_hand():
    backend = modelled(Area(layout=Chunks(4)))
    # Two chunks: each 4 tensors of 64 bytes.
    assert backend.step((Reserve(0, 8),), 0, 0).reserve_ns == 2 * 4 * 164
    assert backend.step((Append(0, 6),), 0, 0).append_ns == 2 * 33
    # Parts of 4 and 2 slots, 36 and 28 ns, and one merge of 7 + 1.
    assert backend.step((), 0, 1).attend_ns == 2 * 72
    # 5 queries: of the first 4, all see 4 slots of the first part, 16 ns, and 1 of the second, 4 ns; merged, 7 + 4. The
    # last sees 4 and 2 slots: a query, by the line through 2 and 4 queries, takes 1 ns a slot; merged, 7 + 1.
    assert backend.step((), 0, 5).attend_ns == 2 * (16 + 4 + 11 + 4 + 2 + 8)
    assert backend.step((Release(0),), 0, 0).reserve_ns == 2 * 4 * 50


def test_packed_slots_and_a_slower_tier_by_hand():
    areas = Area("packed", Chunks(8), format=Packed(8, 8, "token")), Area(layout=Ring())
    backend = modelled(*areas)
    backend.step((Reserve(0, 12), Append(0, 12), Reserve(0, 8, "packed")), 0, 0)
    # 8 tokens rounded, 800 ns a layer; the ring moves nothing.
    assert backend.step((Move(0, MAIN, "packed", Rule(recent=4)),), 0, 0).move_ns == 2 * 800
    # 8 restored, 72 ns, and read, 30 + 40; 4 read in the ring, 20 + 16; merged, 7 + 1.
    assert backend.step((), 0, 1).attend_ns == 2 * (72 + 70 + 36 + 8)
    # 2 queries over 8 restored and over 4: 72, 16 and 8 ns; merged, 7 + 2.
    assert backend.step((), 0, 2).attend_ns == 2 * (72 + 16 + 8 + 9)
    backend = modelled(Area("slow", Chunks(4), "host"), Area())
    backend.step((Reserve(0, 8), Append(0, 8), Reserve(0, 4, "slow")), 0, 0)
    # 4 stored, 44 ns, and the other 4 copied together, 60.
    assert backend.step((Move(0, MAIN, "slow", Rule(recent=4)),), 0, 0).move_ns == 2 * 104
    # 4 fetched, 40, and read, 30 + 20; 4 in place, 20 + 16; merged, 8.
    assert backend.step((), 0, 1).attend_ns == 2 * (40 + 50 + 36 + 8)


def test_what_is_cast_is_written_by_its_curve_and_brought_back():
    backend = modelled(Area(format=Cast("fp8_e4m3")))
    # The staging buffers of a layer, 2 · 1,024 · 16 bytes, in four parts, and four tensors of 8 slots of 8 bytes.
    assert backend.step((Reserve(0, 8),), 0, 0).reserve_ns == 4 * (100 + 8192) + 4 * (100 + 64)
    assert backend.step((Append(0, 8),), 0, 0).append_ns == 2 * (10 + 8 * 4)
    # 8 brought back, and read.
    assert backend.step((), 0, 1).attend_ns == 2 * (8 * 2 + 30 + 8 * 5)
    # Half the bytes go over the link.
    backend = modelled(Area("away", Chunks(8), "host", Cast("fp8_e4m3")), Area(layout=Ring()))
    backend.step((Reserve(0, 8), Append(0, 8), Reserve(0, 8, "away")), 0, 0)
    assert backend.step((Move(0, MAIN, "away"),), 0, 0).move_ns == 2 * (10 + 8 * 4 + 4 * 11)
    assert backend.step((), 0, 1).attend_ns == 2 * (4 * 10 + 8 * 2 + 30 + 8 * 5)
    backend = modelled(Area(format=Cast("int8")))
    backend.step((Reserve(0, 8),), 0, 0)
    with pytest.raises(ValueError, match="not calibrated for cast_int8"):
        backend.step((Append(0, 8),), 0, 0)


def test_evicting_by_norm_ranks_all_and_copies_what_stays():
    backend = modelled(Area(positions=True))
    backend.step((Reserve(0, 8), Append(0, 8)), 0, 0)
    assert backend.step((Keep(0, Rule(top=5, by="norm")),), 0, 0).move_ns == 2 * (8 * 14 + 5 * 15)


def test_another_geometry_counts_by_bytes_and_says_so():
    assert Curves(hand(), GEOMETRY, 1).deviation == ""
    wide = KVGeometry.uniform(num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float16")
    backend = modelled(geometry=wide)
    assert backend.describe()["deviation"] == "calibrated with num_heads 2, num_kv_heads 1; extrapolated"
    backend.step((Reserve(0, 8),), 0, 0)
    # A token is as many bytes as 2 calibrated ones: 10 + 2 · 4 · 3 ns in each of 3 layers. Of 4 queries over 4 slots
    # there are twice the operations, 32 ns.
    assert backend.step((Append(0, 4),), 0, 4) == Times(0, 3 * 34, 0, 3 * 32)
    # 5 slots as 10: 20 + 40 ns.
    assert backend.step((Append(0, 1),), 0, 1).attend_ns == 3 * 60
    assert Curves(hand(), GEOMETRY, 2).deviation == "calibrated with num_rows 1; extrapolated"


def test_bad_files_say_what_they_lack():
    assert set(CURVES) <= set(NANOSECONDS)
    with pytest.raises(ValueError, match=r"Round: hardware\.curves lacks decode, merge$"):
        Curves(hand(decode=None, merge=None), GEOMETRY, 1)
    with pytest.raises(ValueError, match="lacks queries_N for at least two N"):
        Curves(hand(queries_2=None), GEOMETRY, 1)
    with pytest.raises(ValueError, match="calibrated_for lacks head_dim, num_rows"):
        Curves(hand({name: CALIBRATED_FOR[name] for name in ("dtype", "num_heads", "num_kv_heads")}), GEOMETRY, 1)
    latent = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, dtype="float16", latent_dim=16)
    with pytest.raises(ValueError, match="the model has latent attention or sliding-window layers"):
        Curves(hand(), latent, 1)
    backend = modelled(Area("packed", Chunks(8), format=Packed(4, 8, "token")), Area(layout=Ring()))
    backend.step((Reserve(0, 8), Append(0, 8), Reserve(0, 8, "packed")), 0, 0)
    with pytest.raises(ValueError, match="not calibrated for pack_4"):
        backend.step((Move(0, MAIN, "packed"),), 0, 0)
