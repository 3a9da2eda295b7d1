"""What is measured of a layer: small plans at one size each, whose times become points of curves."""

from functools import partial
from math import gcd
from statistics import median

import torch

from kvbench.backend.attention import Merging, attention_and_lse
from kvbench.backend.storage.slots import SlotStore
from kvbench.calibration.bench import SEQ, CalibrationBench
from kvbench.calibration.samples import Samples
from kvbench.plan.area import DISK, HOST, NORM, STAGING_TOKENS, Area, Blocks, Cast, Chunks, Packed, Ring
from kvbench.plan.ops import MAIN, Append, Keep, Move, Reserve, Rule
from kvbench.workload.request import NS_PER_S

NUM_CYCLES = 3
NUM_DECODES = 5
NUM_SINGLES = 16
SINGLE_SLOTS = 512
BLOCK_TOKENS = (4, 16, 128, 1024)
GATHERED_BLOCK = 16
CHUNK_TOKENS = 128
GROUP = 32
AWAY = "away"
MERGED_SLOTS = 16
"""Slots of the parts that are merged; merging looks at outputs only."""


def storage(bench: CalibrationBench, num_slots: int, samples: Samples) -> None:
    """Allocating, copying and freeing a tensor of so many slots, in memory that was allocated and freed before."""
    num_tensors, num_bytes = bench.geometry.num_tensors, bench.tensor_bytes(num_slots)
    for number in range(NUM_CYCLES):
        with bench.sequence(Area()):
            allocated_s = bench.step(Reserve(SEQ, num_slots)).reserve_ns / NS_PER_S
            freed_s = bench.release_s()
        if number:
            samples.add("allocate", num_bytes, allocated_s / num_tensors)
            samples.add("free", num_bytes, freed_s / num_tensors)
    with bench.sequence(Area()):
        bench.fill(num_slots)
        store = bench.backend.sequence(SEQ).stores[MAIN]
        assert isinstance(store, SlotStore)
        sources = [*store.keys, *store.values]
        targets = [torch.zeros_like(source) for source in sources]
        for number in range(NUM_CYCLES):
            for source, target in zip(sources, targets, strict=True):
                spent_s = bench.timed_s(partial(target.copy_, source))
                if number:
                    samples.add("copy", num_bytes, spent_s)
        bench.release_s()


def attention(bench: CalibrationBench, num_slots: int, samples: Samples, queries: tuple[int, ...]) -> None:
    """Writing so many tokens in one piece; attention of one query and of several over them."""
    with bench.sequence(Area()):
        samples.add("append", num_slots, bench.fill(num_slots).append_ns / NS_PER_S)
        for number in range(NUM_DECODES):
            spent_s = bench.step(num_queries=1).attend_ns / NS_PER_S
            if number:  # the first finds the slots as writing left them
                samples.add("decode", num_slots, spent_s)
        for num_queries in queries:
            if num_queries <= num_slots:
                spent_s = bench.step(num_queries=num_queries).attend_ns / NS_PER_S
                samples.add(f"queries_{num_queries}", num_slots, spent_s)
        bench.release_s()


def singles(bench: CalibrationBench, samples: Samples) -> None:
    """Writing single tokens, each attended before the next comes."""
    with bench.sequence(Area()):
        bench.fill(SINGLE_SLOTS, SINGLE_SLOTS + NUM_SINGLES)
        for _ in range(NUM_SINGLES):
            samples.add("append", 1, bench.step(Append(SEQ, 1), num_queries=1).append_ns / NS_PER_S)
        bench.release_s()


def blocks(bench: CalibrationBench, num_slots: int, samples: Samples) -> None:
    """Writing into blocks of several sizes, and gathering from small ones."""
    for size in BLOCK_TOKENS:
        if size > num_slots:
            continue
        num_tokens = num_slots // size * size
        with bench.sequence(Area(layout=Blocks(size, num_tokens))):
            pieces_s = bench.fill(num_tokens).append_ns / NS_PER_S
            samples.add("append_piece", size, pieces_s / (num_tokens // size))
            if size == GATHERED_BLOCK:
                gathered_s = _bring(bench, MAIN, "gather", num_tokens, samples)
                for number in range(NUM_CYCLES):
                    spent_s = bench.step(num_queries=1).attend_ns / NS_PER_S
                    if number:
                        samples.add("staged", num_tokens, spent_s - gathered_s)
            bench.release_s()


def packed(bench: CalibrationBench, num_slots: int, samples: Samples, bits: int) -> None:
    """Rounding tokens to few bits, and restoring them."""
    group = gcd(GROUP, bench.geometry.plain.head_dim)
    num_tokens = -(-num_slots // group) * group
    areas = Area(AWAY, Chunks(CHUNK_TOKENS), format=Packed(bits, group, "channel")), Area(layout=Ring())
    with bench.sequence(*areas):
        moved_s = _moved_s(bench, num_tokens)
        samples.add(f"pack_{bits}", num_tokens, moved_s)
        _bring(bench, AWAY, f"restore_{bits}", num_tokens, samples)
        bench.release_s()


def casts(bench: CalibrationBench, num_slots: int, samples: Samples, dtype: str) -> None:
    """Writing tokens that are cast to a smaller dtype in one piece, and casting them back."""
    with bench.sequence(Area(format=Cast(dtype))):
        samples.add(f"cast_{dtype}", num_slots, bench.fill(num_slots).append_ns / NS_PER_S)
        _bring(bench, MAIN, f"restore_{dtype}", num_slots, samples)
        bench.release_s()


def tiers(bench: CalibrationBench, num_slots: int, samples: Samples) -> None:
    """Moving tokens to a slower tier, and fetching them from it."""
    for tier in (HOST, DISK):
        with bench.sequence(Area(AWAY, Chunks(STAGING_TOKENS), tier), Area(layout=Ring())):
            samples.add(f"store_{tier}", num_slots, _moved_s(bench, num_slots))
            _bring(bench, AWAY, f"fetch_{tier}", num_slots, samples)
            bench.release_s()


def _moved_s(bench: CalibrationBench, num_tokens: int) -> float:
    """Seconds of moving all of a ring's tokens to chunks that are there."""
    chunk_tokens = next(area.layout.num_tokens for area in bench.areas if isinstance(area.layout, Chunks))
    bench.fill(num_tokens)
    bench.step(Reserve(SEQ, -(-num_tokens // chunk_tokens) * chunk_tokens, AWAY))
    return bench.step(Move(SEQ, MAIN, AWAY)).move_ns / NS_PER_S


def _bring(bench: CalibrationBench, area: str, name: str, num_slots: int, samples: Samples) -> float:
    """Time what brings all of an area's slots to staging buffers; the seconds that it took."""
    store, spent_s = bench.backend.sequence(SEQ).stores[area], []
    for _ in range(NUM_CYCLES):
        spent_s.append(sum(bench.timed_s(partial(fill, *bench.buffers)) for fill in store.fills(0, STAGING_TOKENS)))
    for each_s in spent_s[1:]:
        samples.add(name, num_slots, each_s)
    return median(spent_s[1:])


def evictions(bench: CalibrationBench, num_slots: int, samples: Samples) -> None:
    """Copying together what is kept, and ranking by norm."""
    half = num_slots // 2
    closing_s = []
    for rule in (Rule(recent=half), Rule(top=half, by=NORM)):
        with bench.sequence(Area(positions=True)):
            bench.fill(num_slots)
            closing_s.append(bench.step(Keep(SEQ, rule)).move_ns / NS_PER_S)
            bench.release_s()
    samples.add("close", half, closing_s[0])
    samples.add("rank", num_slots, closing_s[1] - closing_s[0])


def merging(bench: CalibrationBench, num_queries: int, samples: Samples) -> None:
    """Merging attention of so many queries over one part into that over another."""
    geometry, backend = bench.geometry, bench.backend
    heads = backend.num_rows, geometry.plain.num_kv_heads
    group = geometry.plain.heads_per_kv_head
    dtype = getattr(torch, geometry.dtype)
    queries, slots = (
        torch.ones(*heads, count, geometry.plain.head_dim, dtype=dtype, device=backend.device)
        for count in (num_queries * group, MERGED_SLOTS)
    )
    part = attention_and_lse(queries, slots, slots, None)
    merged = Merging()
    merged.add(*part)
    for number in range(NUM_CYCLES):
        spent_s = bench.timed_s(lambda: merged.add(*part))
        if number:
            samples.add("merge", num_queries, spent_s)
