"""The device at hand: which one, its memory, and its allocator's own figures."""

import gc
import math
import os
from pathlib import Path
from time import perf_counter

import torch

from kvbench.messages import unknown
from kvbench.results.environment import driver_and_clocks, processor_name

DEVICES = ("auto", "cpu", "cuda")
CPU_SHARE = 0.5
ACCELERATOR_SHARE = 0.9
MIB = 1 << 20
CACHES = 8
"""An accelerator's bandwidth is that of tensors so many times as large as its L2."""
WARMING_S = 0.3
"""An idle GPU's clocks are a fraction of what they are under load."""
NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "cuda error: out of memory")
"""What a CPU's allocator, a mapped file and pinned memory say; they have no exception of their own."""
CGROUP = Path("/sys/fs/cgroup")


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the accelerator where there is one.

    Raises:
        ValueError: no such name, or no such device here.
    """
    if name not in DEVICES:
        raise ValueError(unknown("device", name, DEVICES))
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device=cuda: torch {torch.__version__} finds no CUDA device here; cpu and auto run on the CPU"
        )
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None and found.type == "cuda" else torch.device("cpu")
    return torch.device("cuda")


def default_budget_bytes(device: torch.device) -> int:
    """Memory that a run may hold unless told otherwise: half of a CPU's available, 0.9 of a GPU's free memory."""
    if device.type == "cpu":
        return int(_available_bytes() * CPU_SHARE)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(free_bytes * ACCELERATOR_SHARE)


def _available_bytes() -> int:
    """What the kernel calls available, or what a container's limit leaves where that is less."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, held = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # there is no such group, or its limit is "max"
        return available
    return max(min(available, limit - held), 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python had no memory to give."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return any(words in said for words in NO_MEMORY)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU has when the call returns."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def reset_allocator(device: torch.device) -> None:
    """Give cached memory back and begin its peaks anew. A CPU's allocator keeps no statistics."""
    if device.type == "cpu":
        return
    gc.collect()
    torch.empty(1, device=device)  # an allocator that nothing has used yet has no peaks to reset
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats(device)


def allocator_peaks(device: torch.device) -> dict[str, int]:
    """The allocator's own peaks, by summary column; empty on a CPU, and 0 of one that was not used yet."""
    if device.type == "cpu":
        return {}
    stats = torch.accelerator.memory_stats(device)
    return {
        "allocator_allocated_bytes": stats.get("allocated_bytes.all.peak", 0),
        "allocator_reserved_bytes": stats.get("reserved_bytes.all.peak", 0),
        "allocator_split_bytes": stats.get("inactive_split_bytes.all.peak", 0),
    }


def copy_bandwidth(device: torch.device, num_bytes: int = 64 * MIB, num_tries: int = 5) -> float:
    """Bytes read and written a second by the fastest of a few copies of a large tensor.

    On an accelerator the tensor is beyond its L2, its clocks are up, and a try is many copies that follow each other:
    none waits for the host.

    Args:
        device: whose memory.
        num_bytes: of the tensor, at least.
        num_tries: of which the fastest counts.
    """
    from kvbench.backend.clock import clock_of

    is_cpu = device.type == "cpu"
    num_bytes, num_copies = (num_bytes, 1) if is_cpu else (max(num_bytes, CACHES * l2_bytes(device)), 20)
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = source.clone()
    until = perf_counter() + (0 if is_cpu else WARMING_S)
    while perf_counter() < until:
        target.copy_(source)
    clock = clock_of(device)
    best_ns: float = math.inf
    for _ in range(num_tries):
        start = clock.mark()
        for _ in range(num_copies):
            target.copy_(source)
        times = clock.times([(0, start, clock.mark())])
        drained = clock.drain()
        best_ns = min(best_ns, (drained[0] if drained else times).reserve_ns)
    del source, target
    reset_allocator(device)  # what is free then is what a run may hold
    return 2 * num_copies * num_bytes / (max(best_ns, 1) / 1e9)


def l2_bytes(device: torch.device) -> int:
    """An accelerator's L2 cache."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def about(device: torch.device) -> dict[str, object]:
    """What stands behind an accelerator's times, for environment.json; empty on a CPU.

    Returns:
        accelerator: versions of CUDA and cuDNN, l2_bytes, and what its driver says of itself and of the clocks now.
    """
    if device.type == "cpu":
        return {}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "l2_bytes": l2_bytes(device)}
    uuid = torch.cuda.get_device_properties(device).uuid
    return {"accelerator": versions | driver_and_clocks(f"GPU-{uuid}")}


def device_name(device: torch.device) -> str:
    """The device's name for people."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device)
    num_threads = torch.get_num_threads()
    return f"{processor_name()}, {num_threads} thread{'s' if num_threads > 1 else ''}"
