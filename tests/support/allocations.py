"""Sequences of allocations, carried out on a GPU or by the model, with what the allocator says after each.

`python -m tests.support.allocations NAME` carries one out on the GPU, in a process whose allocator nothing has used
yet, and prints what it saw as JSON.
"""

import contextlib
import json
import random
import sys

from kvbench.ledger import OutOfMemory

MIB = 1 << 20
ALLOCATE, FREE, EMPTY = "allocate", "free", "empty_cache"

FIGURES = {
    "allocated_bytes": "allocated_bytes.all.current",
    "requested_bytes": "requested_bytes.all.current",
    "reserved_bytes": "reserved_bytes.all.current",
    "inactive_split_bytes": "inactive_split_bytes.all.current",
    "num_segments": "segment.all.current",
    "num_device_allocations": "num_device_alloc",
    "num_device_frees": "num_device_free",
    "num_retries": "num_alloc_retries",
}
"""The model's figures, and what torch.cuda.memory_stats calls them."""
PEAKS = {
    "allocator_allocated_bytes": "allocated_bytes.all.peak",
    "allocator_reserved_bytes": "reserved_bytes.all.peak",
    "allocator_split_bytes": "inactive_split_bytes.all.peak",
}


def figures(model):
    """Bytes allocated, reserved, and free in split segments."""
    return model.allocated_bytes, model.reserved_bytes, model.inactive_split_bytes


def boundaries():
    """Sizes on both sides of every rule, in pairs, of which first the one, then the other is freed."""
    edges = [1, 512, MIB, 2 * MIB, 10 * MIB, 12 * MIB, 20 * MIB]
    sizes = [size for edge in edges for size in (max(edge - 512, 1), max(edge - 1, 1), edge, edge + 1, edge + 512)]
    keys = range(len(sizes))
    yield from ((ALLOCATE, key, sizes[key]) for key in keys)
    yield from ((FREE, key, 0) for key in keys[::2])
    yield from ((ALLOCATE, 100 + key, sizes[key] + 256) for key in keys)
    yield (EMPTY, 0, 0)
    yield from ((FREE, key, 0) for key in keys[1::2])
    yield from ((ALLOCATE, 200 + key, sizes[-1 - key]) for key in keys)
    yield from ((FREE, key, 0) for key in (*(100 + key for key in keys), *(200 + key for key in keys[::-1])))
    yield (EMPTY, 0, 0)


def growing(num_tensors, slot_bytes, num_slots, num_steps):
    """What concat does: every tensor is made anew, one slot longer, before the old one is freed."""
    for tensor in range(num_tensors):
        yield (ALLOCATE, tensor, num_slots * slot_bytes)
    for step in range(1, num_steps + 1):
        for tensor in range(num_tensors):
            yield (ALLOCATE, step * num_tensors + tensor, (num_slots + step) * slot_bytes)
            yield (FREE, (step - 1) * num_tensors + tensor, 0)


def mixed(seed, num_operations, most_bytes):
    """Tensors of all sizes, up to so many bytes together, freed in any order; now and then the cache is emptied."""
    rng, live = random.Random(seed), {}
    for key in range(num_operations):
        num_bytes = int(2 ** rng.uniform(0, 25.5))
        while live and (sum(live.values()) + num_bytes > most_bytes or rng.random() < 0.3):
            gone = rng.choice(list(live))
            del live[gone]
            yield (FREE, gone, 0)
        if rng.random() < 0.01:
            yield (EMPTY, 0, 0)
        live[key] = num_bytes
        yield (ALLOCATE, key, num_bytes)
    yield from ((FREE, key, 0) for key in live)
    yield (EMPTY, 0, 0)


SEQUENCES = {
    "boundaries": boundaries,
    "growing": lambda: growing(num_tensors=16, slot_bytes=64 << 10, num_slots=100, num_steps=160),
    "growing small": lambda: growing(num_tensors=16, slot_bytes=2 << 10, num_slots=400, num_steps=200),
    "mixed": lambda: mixed(seed=1, num_operations=2000, most_bytes=400 * MIB),
    "limited": lambda: mixed(seed=2, num_operations=1000, most_bytes=150 * MIB),
}
LIMITS = {"limited": 161 * MIB}
"""Device memory where it is less than the GPU has: no multiple of 2 MiB, so that rounding its share changes nothing."""


def on_the_gpu(name):
    """The GPU's memory, a row after each operation and the peaks."""
    import torch

    torch.cuda.init()
    total = torch.cuda.get_device_properties(0).total_memory
    if name in LIMITS:
        torch.cuda.set_per_process_memory_fraction(LIMITS[name] / total)
    tensors, rows = {}, []
    for what, key, num_bytes in SEQUENCES[name]():
        row = {"address": None}
        if what == ALLOCATE:
            with contextlib.suppress(torch.OutOfMemoryError):
                tensors[key] = torch.empty(num_bytes, dtype=torch.uint8, device="cuda")
                row["address"] = tensors[key].data_ptr()
        elif what == FREE:
            tensors.pop(key, None)
        else:
            torch.cuda.empty_cache()
        stats = torch.cuda.memory_stats()
        rows.append(row | {figure: stats[theirs] for figure, theirs in FIGURES.items()})
    stats = torch.cuda.memory_stats()
    return {"total": total, "rows": rows, "peaks": {ours: stats[theirs] for ours, theirs in PEAKS.items()}}


def in_the_model(name, model, addresses=None):
    """The same rows by the model; new segments lie where those of the GPU did, if addresses say where."""
    handles = {}
    for at, (what, key, num_bytes) in enumerate(SEQUENCES[name]()):
        row = {"address": None}
        if addresses is not None and addresses[at] is not None:
            # The first block of a segment begins where the segment does.
            model.device.place = lambda _, address=addresses[at]: address
        if what == ALLOCATE:
            with contextlib.suppress(OutOfMemory):
                row["address"] = handles[key] = model.allocate(num_bytes)
        elif what == FREE:
            model.free(handles.pop(key, 0))
        else:
            model.empty_cache()
        yield row | {figure: getattr(model, figure) for figure in FIGURES}


if __name__ == "__main__":
    print(json.dumps(on_the_gpu(sys.argv[1])))
