"""Measure this machine: every probe at every size, round by round, and a hardware file's figures from that."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from kvbench.backend import device as devices
from kvbench.backend.curves import LAUNCH, lines_of
from kvbench.calibration.bench import CalibrationBench
from kvbench.calibration.host import host_steps
from kvbench.calibration.own_kernels import ON_GPU as KERNELS_ON_GPU
from kvbench.calibration.own_kernels import KernelGrid
from kvbench.calibration.probes import attention, blocks, casts, evictions, merging, packed, singles, storage, tiers
from kvbench.calibration.samples import Samples
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import LEAST_POINTS, Hardware
from kvbench.plan.area import CAST_DTYPES
from kvbench.workload.request import NS_PER_S

MIB = 1 << 20
LARGEST_SHARE = 8
"""A probe may hold at most one part in so many of the memory that is free."""
MATRIX_SIZE, GPU_MATRIX_SIZE = 1024, 8192
"""The larger is what all of a GPU's units take part in."""
NUM_TRIES = 5
DRIVER_BYTES = 64 * MIB
GPU_SLOTS, GPU_STORAGE_BYTES = (16_300, 32_500, 65_000), (128 * MIB, 256 * MIB)
"""Beyond the others', where a GPU's memory is what is timed, not its caches or its start."""
GPU_ROUNDS = 3
BYTE_BITS = 8

Probe = Callable[[CalibrationBench, Samples], None]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """At which sizes to measure, and how often.

    Sizes are no round numbers: at powers of two kernels are faster than at the others, which are most.

    Args:
        slots: of attention.
        storage_bytes: of a tensor, between those of the least and the most slots. A C library gives more than 32 MiB
            pages of their own, each time anew.
        moved_slots: of gathering, packing, evicting and moving to other tiers.
        queries: of attention of several queries; the largest is what prompts attend with at once.
        queried_slots: of those of slots at which they attend.
        bits: of packed formats.
        dtypes: that K and V are cast to.
        num_rounds: over all of them, interleaved, > 0.
        most_s: after which nothing is measured any more, but for the first round.
        kernels: of a whole model, which are timed apart from these.
    """

    slots: tuple[int, ...] = (18, 70, 150, 290, 420, 560, 800, 1100, 2100, 4200, 8100)
    storage_bytes: tuple[int, ...] = tuple(n * MIB for n in (1, 2, 4, 8, 16, 24, 31, 33, 64))
    moved_slots: tuple[int, ...] = (40, 150, 290, 420, 560, 1100, 4200)
    queries: tuple[int, ...] = (10, 20, 36, 50, 70, 100, 140, 180, 220, 256)
    queried_slots: tuple[int, ...] = (18, 70, 150, 290, 1100, 4200)
    bits: tuple[int, ...] = (8, 4, 2)
    dtypes: tuple[str, ...] = CAST_DTYPES
    num_rounds: int = 5
    most_s: float = 15.0
    kernels: KernelGrid = field(default_factory=KernelGrid)

    def within(self, most_slots: int) -> "Grid":
        """The same, with no more slots than that."""
        changed = {name: tuple(n for n in getattr(self, name) if n <= most_slots) for name in ("slots", "moved_slots")}
        return Grid(**{**vars(self), **changed})


FULL = Grid()
ON_GPU = replace(
    FULL,
    slots=FULL.slots + GPU_SLOTS,
    storage_bytes=FULL.storage_bytes + GPU_STORAGE_BYTES,
    queried_slots=FULL.queried_slots + GPU_SLOTS[:1],
    num_rounds=GPU_ROUNDS,
    kernels=KERNELS_ON_GPU,
)
"""What stands for FULL there."""


def probes(bench: CalibrationBench, grid: Grid) -> list[Probe]:
    """All that a round measures."""
    least, most = min(grid.slots), max(grid.slots)
    between = {num_bytes // bench.tensor_bytes(1) for num_bytes in grid.storage_bytes}
    stored = sorted({least, most, *(n for n in between if least < n < most)})
    found: list[Probe] = [partial(_sized, storage, n) for n in stored]
    for n in grid.slots:
        queries = grid.queries if n in grid.queried_slots else ()
        found.append(partial(_sized, attention, n, queries=queries))
    for n in grid.moved_slots:
        found += [partial(_sized, probe, n) for probe in (blocks, tiers, evictions)]
        fitting = [bits for bits in grid.bits if bench.geometry.plain.head_dim * bits % BYTE_BITS == 0]
        found += [partial(_sized, packed, n, bits=bits) for bits in fitting]
        found += [partial(_sized, casts, n, dtype=dtype) for dtype in grid.dtypes]
    found += [partial(_sized, merging, n) for n in (1, *grid.queries)]
    return [*found, singles, host_steps]


def _sized(
    probe: Callable[..., None], size: int, bench: CalibrationBench, samples: Samples, **settings: object
) -> None:
    probe(bench, size, samples, **settings)


def num_probes(bench: CalibrationBench, grid: Grid) -> int:
    """How many probes a round makes, for a progress bar."""
    return len(probes(bench, grid))


def warmed_up(bench: CalibrationBench, grid: Grid) -> Iterator[None]:
    """A round that counts for nothing: a C library that keeps freed memory learns in it how much to keep."""
    for probe in probes(bench, grid):
        probe(bench, Samples())
        yield


def measured(bench: CalibrationBench, grid: Grid) -> Iterator[Samples]:
    """Measure; yields the samples so far after each probe.

    Rounds begin with another probe each time and go through all, so that a drift of the machine's speed falls on all.
    """
    samples, todo = Samples(), probes(bench, grid)
    until = time.monotonic() + grid.most_s
    for number in range(grid.num_rounds):
        first = number * len(todo) // grid.num_rounds
        for probe in todo[first:] + todo[:first]:
            if number and time.monotonic() > until:
                return
            probe(bench, samples)
            yield samples


def bench_for(geometry: KVGeometry, device: str, grid: Grid) -> tuple[CalibrationBench, Grid]:
    """The bench, and the grid as far as memory lasts.

    Raises:
        ValueError: no such device here, memory does not last, or layers do not all hold K and V of all tokens.
    """
    found = devices.find_device(device)
    grid = grid if found.type == "cpu" or grid is not FULL else ON_GPU
    free_bytes = free_for_probes(found)
    fitting = grid.within(free_bytes // (geometry.bytes_per_token // geometry.num_layers))
    attended = [n for n in fitting.slots if n in grid.queried_slots and n >= max(grid.queries)]
    if min(len(attended), len(fitting.moved_slots)) < LEAST_POINTS:
        raise ValueError(f"a layer's curves take more than the {free_bytes:,} bytes that are free for them")
    return CalibrationBench(geometry, device, max(fitting.slots)), fitting


def free_for_probes(device: torch.device) -> int:
    """Bytes that a probe may hold."""
    return devices.default_budget_bytes(device) // LARGEST_SHARE


def hardware_of(bench: CalibrationBench, samples: Samples, launches: Samples | None = None) -> Hardware:
    """The machine as measured, not yet held against anything.

    Args:
        bench: what was measured on.
        samples: of all probes.
        launches: of the same on the host alone; None where that does the work.
    """
    curves, device, geometry = samples.curves(), bench.backend.device, bench.geometry
    if launches is not None:
        of_host = launches.curves()
        curves |= {"host": of_host.pop("host")} | {LAUNCH + name: points for name, points in of_host.items()}
    allocate = lines_of(curves)["allocate"]
    name, threads = devices.device_name(device), torch.get_num_threads()
    return Hardware(
        name=f"{name}, calibrated",
        memory_bytes=_memory_bytes(device),
        memory_bytes_per_s=_digits(devices.copy_bandwidth(device)),
        flops_per_s=_digits(_flops_per_s(bench)),
        host_bytes_per_s=_digits(_bytes_per_s(bench, curves["fetch_host"])),
        disk_bytes_per_s=_digits(_bytes_per_s(bench, curves["fetch_disk"])),
        memory_efficiency=1.0,
        compute_efficiency=1.0,
        host_efficiency=1.0,
        launch_s=_digits(_launch_s(bench)),
        allocation_s=_digits(allocate.at(curves["allocate"][0][0])),
        device_allocation_s=_driver_s(bench) if bench.is_accelerator else curves["allocate"][-1][1],
        transfer_s=curves["fetch_host"][0][1],
        step_s=curves["host"][0][1],
        source=f"measured on {name} with torch {torch.__version__}",
        curves=curves,
        calibrated_for={
            "model": geometry.name,
            "dtype": geometry.dtype,
            "num_heads": geometry.plain.num_heads,
            "num_kv_heads": geometry.plain.num_kv_heads,
            "head_dim": geometry.plain.head_dim,
            "num_rows": bench.backend.num_rows,
            "device": device.type,
            "threads": threads,
        },
        validation=None,
    )


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cpu":
        return int(devices.default_budget_bytes(device) / devices.CPU_SHARE)
    return torch.cuda.get_device_properties(device).total_memory


def _bytes_per_s(bench: CalibrationBench, curve: list[list[float]]) -> float:
    """Bytes of a layer's K and V a second, from the largest size."""
    num_slots, seconds = curve[-1]
    return bench.geometry.num_tensors * bench.tensor_bytes(int(num_slots)) / max(seconds, 1 / NS_PER_S)


def _flops_per_s(bench: CalibrationBench) -> float:
    """The fastest of a few products of 16-bit matrices, or of wider ones by their bytes, where a processor multiplies
    those faster; on a GPU of random numbers, since its clocks depend on them."""
    size, make = (GPU_MATRIX_SIZE, torch.randn) if bench.is_accelerator else (MATRIX_SIZE, torch.ones)
    rates: list[float] = []
    for dtype in {torch.bfloat16, getattr(torch, bench.geometry.dtype)}:
        matrix = make(size, size, dtype=dtype, device=bench.backend.device)
        best_s = min(bench.timed_s(partial(torch.matmul, matrix, matrix)) for _ in range(NUM_TRIES))
        rates.append(2 * size**3 * dtype.itemsize / torch.bfloat16.itemsize / max(best_s, 1 / NS_PER_S))
    return max(rates)


def _driver_s(bench: CalibrationBench) -> float:
    """The fastest of a few allocations that an accelerator's allocator has to ask its driver for."""
    device, taken = bench.backend.device, []
    for _ in range(NUM_TRIES):
        devices.reset_allocator(device)
        with bench.on_host():
            taken.append(bench.timed_s(lambda: torch.empty(DRIVER_BYTES, dtype=torch.uint8, device=device)))
    return _digits(min(taken))


def _launch_s(bench: CalibrationBench) -> float:
    """The fastest of a few operations on one number, for whoever takes longer over it: the device, or the host."""
    number = torch.ones(1, device=bench.backend.device)
    found = min(bench.timed_s(lambda: number.add_(1)) for _ in range(NUM_TRIES))
    if not bench.is_accelerator:
        return found
    with bench.on_host():
        return max(found, min(bench.timed_s(lambda: number.add_(1)) for _ in range(NUM_TRIES)))


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
