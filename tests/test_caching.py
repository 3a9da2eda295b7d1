"""The model of torch's CUDA caching allocator: every rule by hand."""

import pytest

from kvbench.backend.allocator import CachingAllocator
from kvbench.backend.allocator.blocks import CACHED, LIVE
from kvbench.ledger import OutOfMemory
from tests.support.allocations import MIB, PEAKS, figures

BOTH = pytest.mark.parametrize("expandable", [False, True], ids=["segments", "expandable"])


@pytest.mark.parametrize(
    ("asked", "given_bytes"),
    [(1, 512), (512, 512), (513, 1024), (1000, 1024), (MIB - 1, MIB), (3 * MIB + 1, 3 * MIB + 512)],
)
@BOTH
def test_sizes_are_rounded_up_to_512_bytes(asked, given_bytes, expandable):
    model = CachingAllocator(None, expandable)
    model.allocate(asked)
    assert (model.requested_bytes, model.allocated_bytes) == (asked, given_bytes)


@pytest.mark.parametrize(
    ("asked", "segment", "paged"),
    [
        (1, 2 * MIB, 2 * MIB),
        (MIB, 2 * MIB, 2 * MIB),  # the largest small one
        (MIB + 1, 20 * MIB, 20 * MIB),
        (10 * MIB - 512, 20 * MIB, 20 * MIB),
        (10 * MIB - 1, 10 * MIB, 20 * MIB),  # rounded to 10 MiB first, and then it has a segment of its own
        (10 * MIB + 1, 12 * MIB, 20 * MIB),
        (21 * MIB, 22 * MIB, 40 * MIB),
    ],
)
def test_what_the_driver_is_asked_for(asked, segment, paged):
    native, expandable = CachingAllocator(None, False), CachingAllocator(None, True)
    for model in (native, expandable):
        model.allocate(asked)
        assert model.num_device_allocations == 1
    assert (native.reserved_bytes, native.num_segments) == (segment, 1)
    assert (expandable.reserved_bytes, expandable.num_segments) == (paged, 0)


def test_a_small_rest_of_512_bytes_is_kept():
    # 2 MiB = 1 MiB + (1 MiB - 512) + 512: three blocks of one segment.
    model = CachingAllocator(None, False)
    first = model.allocate(MIB)
    assert figures(model) == (MIB, 2 * MIB, MIB)
    assert model.allocate(MIB - 512) == first + MIB
    assert figures(model) == (2 * MIB - 512, 2 * MIB, 512)
    assert model.allocate(1) == first + 2 * MIB - 512
    assert figures(model) == (2 * MIB, 2 * MIB, 0)
    assert (model.num_device_allocations, model.num_cache_hits) == (1, 2)


def test_a_large_rest_is_kept_above_1_mib():
    # 9 MiB of 20 leave 11: 10 MiB of those leave exactly 1 MiB, which is not worth a block.
    model = CachingAllocator(None, False)
    model.allocate(9 * MIB)
    block = model.allocate(10 * MIB)
    assert figures(model) == (20 * MIB, 20 * MIB, 0)
    assert model.requested_bytes == 19 * MIB
    model.free(block)
    assert figures(model) == (9 * MIB, 20 * MIB, 11 * MIB)
    # 512 bytes less leave 1 MiB + 512, which is.
    model.allocate(10 * MIB - 512)
    assert figures(model) == (19 * MIB - 512, 20 * MIB, MIB + 512)


def test_a_segment_of_its_own_is_split_as_well():
    # 10 MiB + 512 asks for 12 MiB and leaves 2 MiB - 512.
    model = CachingAllocator(None, False)
    model.allocate(10 * MIB + 1)
    assert figures(model) == (10 * MIB + 512, 12 * MIB, 2 * MIB - 512)


def test_the_smallest_block_that_holds_a_request_serves_it():
    # Free segments of 30, 12, 22 and again 12 MiB: 11 MiB fit both of 12, of which the lower address is taken whole.
    model = CachingAllocator(None, False)
    handles = [model.allocate(size * MIB) for size in (30, 12, 22, 12)]
    for handle in handles:
        model.free(handle)
    assert [model.allocate(11 * MIB) for _ in range(3)] == [handles[1], handles[3], handles[2]]
    # 11 MiB of 22 leave 11 that are kept; the two of 12 MiB were given whole.
    assert figures(model) == (35 * MIB, 76 * MIB, 11 * MIB)
    assert (model.num_device_allocations, model.num_cache_hits) == (4, 3)


def test_pools_are_apart():
    model = CachingAllocator(None, False)
    model.free(model.allocate(5 * MIB))
    model.allocate(100)  # not from the free 20 MiB
    assert (model.reserved_bytes, model.num_segments) == (22 * MIB, 2)


@BOTH
def test_free_neighbours_are_joined(expandable):
    model = CachingAllocator(None, expandable)
    a, b, c, d = (model.allocate(5 * MIB) for _ in range(4))
    model.free(a)
    model.free(c)
    assert [block.size // MIB for block in model.blocks()] == [5, 5, 5, 5]
    model.free(b)  # joins both
    assert [(block.size // MIB, block.state) for block in model.blocks()] == [(15, CACHED), (5, LIVE)]
    assert model.inactive_split_bytes == (0 if expandable else 15 * MIB)
    model.free(d)  # the segment is whole again
    assert [(block.size // MIB, block.state) for block in model.blocks()] == [(20, CACHED)]
    assert figures(model) == (0, 20 * MIB, 0)
    assert model.num_device_frees == 0


def test_segments_are_kept_until_memory_runs_out():
    # 30 MiB cached hold no 32 MiB, and 30 + 32 > 40: the cache goes back, and the second try is served.
    model = CachingAllocator(40 * MIB, False)
    model.free(model.allocate(30 * MIB))
    assert model.reserved_bytes == 30 * MIB
    model.allocate(32 * MIB)
    assert figures(model) == (32 * MIB, 32 * MIB, 0)
    assert (model.num_retries, model.num_device_allocations, model.num_device_frees) == (1, 2, 1)


def test_a_split_segment_cannot_go_back():
    # 2 MiB hold 20, with 18 free: 20 + 22 > 40.
    model = CachingAllocator(40 * MIB, False)
    model.allocate(2 * MIB)
    with pytest.raises(OutOfMemory, match=r"44,040,192 bytes .* 41,943,040"):
        model.allocate(22 * MIB)
    assert figures(model) == (2 * MIB, 20 * MIB, 18 * MIB)
    assert (model.num_retries, model.num_device_allocations) == (1, 1)
    model.allocate(20 * MIB)
    assert model.reserved_bytes == 40 * MIB


def test_emptying_keeps_what_is_in_use():
    model = CachingAllocator(None, False)
    small, large, own = model.allocate(1), model.allocate(2 * MIB), model.allocate(10 * MIB)
    model.free(own)
    model.empty_cache()
    assert figures(model) == (2 * MIB + 512, 22 * MIB, 20 * MIB - 512)
    model.free(small)
    model.free(large)
    model.empty_cache()
    assert (figures(model), model.num_segments, model.external_share) == ((0, 0, 0), 0, 0)


def test_an_expandable_segment_grows_at_its_end():
    # 12 MiB on a page of 20; freed, they are the beginning of 30 MiB, for which one page more is enough.
    model = CachingAllocator(None, True)
    first = model.allocate(12 * MIB)
    model.free(first)
    assert model.allocate(30 * MIB) == first
    assert figures(model) == (30 * MIB, 40 * MIB, 0)
    assert model.num_device_allocations == 2
    # And it is split down to 512 bytes, in the large pool too: 10 MiB are left.
    model.allocate(10 * MIB - 512)
    assert [block.size for block in model.blocks()] == [30 * MIB, 10 * MIB - 512, 512]
    assert (model.num_device_allocations, model.num_cache_hits) == (2, 1)


def test_an_expandable_segment_fills_holes_before_its_end():
    # Of 20 MiB, 6 are free at the beginning and 5 at the end. 4 fit the end better, but the end can grow.
    model = CachingAllocator(None, True)
    hole = model.allocate(6 * MIB)
    model.allocate(9 * MIB)
    model.free(hole)
    assert model.allocate(4 * MIB) == hole


def test_empty_pages_go_back_and_are_filled_first():
    # Three blocks of 20 MiB on three pages. The first page goes; the next 20 MiB come to lie there.
    model = CachingAllocator(None, True)
    a, b, _ = (model.allocate(20 * MIB) for _ in range(3))
    model.free(a)
    model.empty_cache()
    assert figures(model) == (40 * MIB, 40 * MIB, 0)
    assert model.allocate(20 * MIB) == a
    # 30 MiB in the gap of b, and nothing else is free beside it: they come to lie at the end.
    model.free(b)
    model.empty_cache()
    assert model.allocate(30 * MIB) == a + 60 * MIB
    assert (model.reserved_bytes, model.num_device_frees) == (80 * MIB, 2)


def test_an_expandable_segment_without_pages_goes():
    model = CachingAllocator(None, True)
    first = model.allocate(MIB)
    model.free(first)
    model.empty_cache()
    assert model.reserved_bytes == 0
    assert model.allocate(MIB) > first  # in a new segment, above


def test_a_page_that_is_live_in_part_stays():
    # Blocks of 10, 25 and 5 MiB on pages of 20. Free, the 25 lie on half of each: no page is empty.
    model = CachingAllocator(None, True)
    model.allocate(10 * MIB)
    middle = model.allocate(25 * MIB)
    model.allocate(5 * MIB)
    model.free(middle)
    model.empty_cache()
    assert model.reserved_bytes == 40 * MIB
    # Blocks of 10, 45 and 5: the second page of three is.
    model = CachingAllocator(None, True)
    model.allocate(10 * MIB)
    middle = model.allocate(45 * MIB)
    model.allocate(5 * MIB)
    model.free(middle)
    model.empty_cache()
    assert model.reserved_bytes == 40 * MIB
    assert [(block.size // MIB, block.state) for block in model.blocks()] == [
        (10, LIVE),
        (10, CACHED),
        (15, CACHED),
        (5, LIVE),
    ]
    # The page comes back between them: 45 MiB in one piece again.
    assert model.allocate(45 * MIB) == middle
    assert figures(model) == (60 * MIB, 60 * MIB, 0)


def test_an_expandable_segment_has_a_limit_too():
    model = CachingAllocator(50 * MIB, True)
    held = model.allocate(20 * MIB)
    with pytest.raises(OutOfMemory):
        model.allocate(40 * MIB)
    assert figures(model) == (20 * MIB, 20 * MIB, 0)
    model.allocate(1 * MIB)
    model.free(held)
    model.allocate(40 * MIB)  # the free page, and one more
    assert (model.reserved_bytes, model.num_retries) == (42 * MIB, 1)


@BOTH
def test_peaks_and_share(expandable):
    # 5 MiB leave 15 of 20, too few for 16: a segment of 16, or one page of 20 more for what is lacking.
    model = CachingAllocator(None, expandable)
    a, b = model.allocate(5 * MIB), model.allocate(16 * MIB)
    model.free(a)
    model.free(b)
    reserved = (40 if expandable else 36) * MIB
    assert model.peaks() == dict(zip(PEAKS, (21 * MIB, reserved, 0 if expandable else 15 * MIB), strict=True))
    assert model.external_share == 1
    model.reset_peaks()
    assert model.peaks() == dict(zip(PEAKS, (0, reserved, 0), strict=True))
    model.allocate(5 * MIB)
    assert model.external_share == 1 - 5 * MIB / reserved
    model.empty_cache()
    model.reset_peaks()
    # Of the expandable one a page is empty. The other is in the segment of 16 MiB, and keeps 11 of them.
    left = (20 if expandable else 16) * MIB
    assert model.peaks() == dict(zip(PEAKS, (5 * MIB, left, 0 if expandable else 11 * MIB), strict=True))


@BOTH
def test_no_bytes_take_no_memory(expandable):
    model = CachingAllocator(None, expandable)
    assert model.allocate(0) == 0
    model.free(0)
    assert (figures(model), model.num_device_allocations, model.num_cache_hits) == ((0, 0, 0), 0, 0)


def test_bad_input_is_refused():
    model = CachingAllocator(None, False)
    with pytest.raises(ValueError, match="got -1"):
        model.allocate(-1)
    handle = model.allocate(1)
    model.free(handle)
    with pytest.raises(ValueError, match=f"handle {handle} "):
        model.free(handle)
    for memory_bytes in (0, -5, True):
        with pytest.raises(ValueError, match=f"memory_bytes .* got {memory_bytes}"):
            CachingAllocator(memory_bytes, False)
