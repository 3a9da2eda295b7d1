"""The model of torch's CUDA caching allocator over many calls: what always holds, and a GPU's own figures."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.allocator import CachingAllocator
from kvbench.backend.allocator.blocks import CACHED, LIVE
from kvbench.ledger import OutOfMemory
from tests.support.allocations import LIMITS, MIB, SEQUENCES, figures, in_the_model
from tests.support.gpu import on_cuda

KIB = 1 << 10
BOTH = pytest.mark.parametrize("expandable", [False, True], ids=["segments", "expandable"])


def check(model, expandable):
    """What holds between any two calls."""
    blocks = model.blocks()
    for one, other in itertools.pairwise(blocks):
        assert one.address + one.size <= other.address
        if one.base == other.base and one.address + one.size == other.address:
            assert (one.after, other.before) == (other, one)
            assert LIVE in (one.state, other.state), "free neighbours are not joined"
    live = [block for block in blocks if block.state == LIVE]
    free = [block for block in blocks if block.state == CACHED]
    assert model.allocated_bytes == sum(block.size for block in live)
    assert model.requested_bytes == sum(block.requested_bytes for block in live) <= model.allocated_bytes
    assert model.reserved_bytes == model.allocated_bytes + sum(block.size for block in free)
    assert model.device.memory_bytes is None or model.reserved_bytes <= model.device.memory_bytes
    num_blocks = {block.base: 0 for block in blocks} | {
        base: len(list(of)) for base, of in itertools.groupby(blocks, lambda block: block.base)
    }
    split = 0 if expandable else sum(block.size for block in free if num_blocks[block.base] > 1)
    assert model.inactive_split_bytes == split
    assert expandable or model.num_segments == len(num_blocks)


SIZES = st.one_of(
    st.integers(1, 5000),
    st.integers(MIB - 1024, MIB + 1024),
    st.integers(MIB, 30 * MIB),
    st.sampled_from([k * MIB for k in (1, 2, 5, 9, 10, 11, 18, 19, 20)]),
)
CALLS = st.lists(st.one_of(SIZES, st.integers(-60, 0)), max_size=60)
"""A size to allocate, 0 to empty the cache, or which live block to free."""


def fitting(model, size):
    """The cached block that best fit would take, found by looking at all of them: its size and address, or None."""
    small = size <= MIB
    bases = {block.base: 0 for block in model.blocks()}
    for block in model.blocks():
        bases[block.base] += block.size
    cached = [block for block in model.blocks() if block.state == CACHED and block.size >= size]
    return min(((b.size, b.address) for b in cached if (bases[b.base] == 2 * MIB) == small), default=None)


@BOTH
@given(calls=CALLS, memory=st.sampled_from([None, 20 * MIB, 61 * MIB, 150 * MIB]))
@settings(max_examples=150, deadline=None)
def test_what_always_holds(expandable, calls, memory):
    model, live = CachingAllocator(memory, expandable), []
    for call in calls:
        before = figures(model)
        if call > 0:
            size = -(-call // 512) * 512
            best, num_hits = fitting(model, size), model.num_cache_hits
            try:
                live.append(model.allocate(call))
            except OutOfMemory:
                assert figures(model)[0] == before[0]
            if not expandable:
                assert (best is not None) == (model.num_cache_hits > num_hits)
                assert best is None or live[-1] == best[1]
        elif call == 0:
            model.empty_cache()
            assert model.allocated_bytes == before[0]
        elif live:
            model.free(live.pop(call % len(live)))
        check(model, expandable)
    for handle in live:
        model.free(handle)
    check(model, expandable)
    if not expandable:
        assert all(not block.is_split for block in model.blocks())
    model.empty_cache()
    assert (figures(model), model.blocks(), model.num_segments) == ((0, 0, 0), [], 0)


@BOTH
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_comes_out_even(name, expandable):
    model = CachingAllocator(LIMITS.get(name), expandable)
    for row in in_the_model(name, model):
        assert row["allocated_bytes"] <= row["reserved_bytes"]
        assert row["inactive_split_bytes"] <= row["reserved_bytes"] - row["allocated_bytes"]
    check(model, expandable)
    assert (model.num_retries > 0) == (name in LIMITS)


def test_a_growing_tensor_never_fits_what_it_leaves():
    # 10, 12, 14 and 16 MiB, each made before the one before is freed: every segment left is too small for the next.
    model, old = CachingAllocator(None, False), 0
    for size in (10, 12, 14, 16):
        new = model.allocate(size * MIB)
        model.free(old)
        old = new
    assert figures(model) == (16 * MIB, (10 + 12 + 14 + 16) * MIB, 0)
    assert model.external_share == 1 - 16 / 52
    assert model.num_cache_hits == 0


def test_concat_fragments_memory_and_expandable_segments_hardly_do():
    # 16 tensors of 6.25 MiB that grow by 64 KiB at a time, to 16.25: each step leaves 16 holes a little too small.
    models = {expandable: CachingAllocator(None, expandable) for expandable in (False, True)}
    for model in models.values():
        for _ in in_the_model("growing", model):
            pass
        assert model.requested_bytes == 16 * 260 * 64 * KIB
    native, expandable = (model.peaks() for model in models.values())
    live = expandable["allocator_allocated_bytes"]
    assert native["allocator_allocated_bytes"] - live < 0.01 * live
    assert native["allocator_reserved_bytes"] > 2 * live
    assert expandable["allocator_reserved_bytes"] < 1.1 * live
    assert models[False].external_share > 0.5
    assert models[True].external_share < 0.15


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize(
    ("name", "expandable"),
    [(name, expandable) for name in SEQUENCES for expandable in (False, True) if not (expandable and name in LIMITS)],
)
def test_a_gpu_says_the_same_after_every_call(name, expandable):
    settings = f"expandable_segments:{expandable}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.allocations", name],
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"PYTORCH_CUDA_ALLOC_CONF": settings, "PYTORCH_ALLOC_CONF": settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    model = CachingAllocator(LIMITS.get(name, seen["total"]), expandable)
    modelled = in_the_model(name, model, [row["address"] for row in seen["rows"]])
    for call, measured, ours in zip(SEQUENCES[name](), seen["rows"], modelled, strict=True):
        assert ours == measured, call
    assert model.peaks() == seen["peaks"]
