"""This machine's own kernels, timed as torch runs them: a table of the same columns as published ones."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from kvbench.backend.attention import QUERY_CHUNK, attention, causal_mask
from kvbench.backend.device import device_name
from kvbench.calibration.bench import CalibrationBench
from kvbench.calibration.tables import SHAPE, TEXTS, kernels_in
from kvbench.model.geometry import KVGeometry
from kvbench.workload.request import NS_PER_S

NUM_CALLS = 3
ENOUGH_S = 0.02
"""After which a kernel is not called once more in the same round; what takes longer finds little in caches."""
ELEMENTWISE: Mapping[str, tuple[int, Callable[..., object]]] = {
    "add": (3, torch.add),
    "silu": (2, lambda one, _: F.silu(one)),
}
"""Tensors that each reads and writes, and what it is of two of a size. Not norms: torch's are several kernels on a CPU,
an engine's one."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class KernelGrid:
    """Which kernels to time, and for how long.

    Args:
        tokens: of products and elementwise work.
        widths: of products, in and out, and of elementwise work.
        lengths: of prompts, and of contexts of prompts and of decode steps.
        batches: of decode steps.
        num_rounds: over all of them, interleaved, > 0.
        most_s: after which no kernel is timed any more, but for the first round.
    """

    tokens: tuple[int, ...] = tuple(1 << power for power in range(11))
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    num_rounds: int = 5
    most_s: float = 8.0


ON_CPU = KernelGrid()
ON_GPU = replace(
    ON_CPU,
    tokens=(*ON_CPU.tokens, 2048, 4096),
    widths=(1024, 2048, 4096, 8192, 16384),
    lengths=(*ON_CPU.lengths, 4096, 8192),
    batches=(*ON_CPU.batches, 32, 64, 128),
)


class OwnKernel(NamedTuple):
    """A kernel to be timed.

    Args:
        said: its row, but for its dtypes, its seconds and where it is from.
        shapes: of its inputs.
        work: what it does with them.
    """

    said: Mapping[str, object]
    shapes: tuple[Shape, ...]
    work: Callable[..., object]


def own_kernels(geometry: KVGeometry, device: torch.device, grid: KernelGrid) -> Iterator[OwnKernel]:
    """All kernels of a grid; attention has the heads of the model."""
    size = getattr(torch, geometry.dtype).itemsize
    for m in grid.tokens:
        for n in grid.widths:
            for k in grid.widths:
                said = {"op": "gemm", "m": m, "n": n, "k": k, "bytes": (m * k + n * k + m * n) * size}
                yield OwnKernel(said | {"detail": "linear"}, ((m, k), (n, k)), F.linear)
            for name, (moved, work) in ELEMENTWISE.items():
                said = {"op": "elementwise", "m": m, "hidden": n, "bytes": moved * m * n * size}
                yield OwnKernel(said | {"detail": name}, ((m, n), (m, n)), work)
    longest = max(grid.lengths)
    mask = causal_mask(longest, geometry.plain.heads_per_kv_head, device)
    for new in grid.lengths:
        for before in (0, *(length for length in grid.lengths if new <= length <= longest - new)):
            work = partial(_prefill, mask, geometry.plain.heads_per_kv_head)
            yield _attending(geometry, "prefill_attention", 1, new, before, work)
    for batch in grid.batches:
        for before in grid.lengths:
            yield _attending(geometry, "decode_attention", batch, 1, before, _decode)


def _attending(
    geometry: KVGeometry, op: str, batch: int, new: int, before: int, work: Callable[..., object]
) -> OwnKernel:
    plain, heads = geometry.plain, {"batch": batch, "new_tokens": new, "context_tokens": before, "window": 0}
    for name in ("num_heads", "num_kv_heads", "head_dim"):
        heads[name] = getattr(plain, name)
    queries = (batch, plain.num_kv_heads, new * plain.heads_per_kv_head, plain.head_dim)
    slots = (batch, plain.num_kv_heads, before + new, plain.head_dim)
    moved = 2 * (prod(queries) + prod(slots)) * getattr(torch, geometry.dtype).itemsize
    said = {"op": op, "kv_dtype": geometry.dtype, "bytes": moved, "detail": "scaled_dot_product_attention"}
    return OwnKernel(said | heads, (queries, slots, slots), work)


def _prefill(mask: Tensor, group_size: int, queries: Tensor, keys: Tensor, values: Tensor) -> None:
    """A prompt in chunks of queries, as the measured backend attends."""
    num_new = queries.shape[2] // group_size
    num_before = keys.shape[2] - num_new
    for start in range(0, num_new, QUERY_CHUNK):
        count = min(QUERY_CHUNK, num_new - start)
        seen = num_before + start + count
        chunk = queries.narrow(2, start * group_size, count * group_size)
        attention(chunk, [(keys.narrow(2, 0, seen), values.narrow(2, 0, seen))], mask)


def _decode(queries: Tensor, keys: Tensor, values: Tensor) -> None:
    attention(queries, [(keys, values)], None)


def timed_kernels(
    bench: CalibrationBench, grid: KernelGrid, free_bytes: int, advance: Callable[[int], object]
) -> pd.DataFrame:
    """Time this machine's kernels: medians of calls after one that counts for nothing, round by round.

    Args:
        bench: whose model, device and clock.
        grid: of kernels.
        free_bytes: that inputs may take; kernels of more are left out.
        advance: called with 1 after each kernel of a round.
    Returns:
        As `tables.read_kernels` gives it.
    """
    geometry, device = bench.geometry, bench.backend.device
    dtype = getattr(torch, geometry.dtype)
    kernels = [
        kernel for kernel in own_kernels(geometry, device, grid) if _numbers(kernel) * dtype.itemsize <= free_bytes
    ]
    pool = torch.randn(max(map(_numbers, kernels)), dtype=dtype, device=device)
    taken: list[list[float]] = [[] for _ in kernels]
    until = time.monotonic() + grid.most_s
    for number in range(grid.num_rounds):
        first = number * len(kernels) // grid.num_rounds
        for at in (*range(first, len(kernels)), *range(first)):
            if number and time.monotonic() > until:
                break
            taken[at] += _called(bench, kernels[at], pool)
            advance(1)
    source = f"torch@{torch.__version__}:{device_name(device)}"
    rows = [
        {**kernel.said, "dtype": geometry.dtype, "source": source, "seconds": max(median(own), 1 / NS_PER_S)}
        for kernel, own in zip(kernels, taken, strict=True)
    ]
    frame = pd.DataFrame(rows)
    return kernels_in(frame.reindex(columns=[*TEXTS, *SHAPE, "seconds"]), Path("this machine"))


def _numbers(kernel: OwnKernel) -> int:
    return sum(map(prod, kernel.shapes))


def _called(bench: CalibrationBench, kernel: OwnKernel, pool: Tensor) -> list[float]:
    """The seconds of a few calls, which find what a call before them left in caches, as in published tables."""
    sizes = [prod(shape) for shape in kernel.shapes]
    parts = pool[: sum(sizes)].split(sizes)
    inputs = [part.view(shape) for part, shape in zip(parts, kernel.shapes, strict=True)]
    call = partial(kernel.work, *inputs)
    found = [bench.timed_s(call)]
    while len(found) <= NUM_CALLS and sum(found) < ENOUGH_S:
        found.append(bench.timed_s(call))
    return found[1:] or found
