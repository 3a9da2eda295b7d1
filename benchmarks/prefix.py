"""Prefix reuse over a published trace, beside the C++ core of the KVCache.AI simulator: ratios from one run.

Run as `python benchmarks/prefix.py`; see README.md beside this file.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from kvcache_sim.cpp_backend import ensure_cpp_simulator, run_cpp_sweep
from kvcache_sim.trace import TraceData
from load import OtherLoad
from table import Goal, print_head, print_row, shown
from timing import NS_PER_S, Side, interleaved

from kvbench.fleet.prefix.curve import lru_curve
from kvbench.fleet.prefix.sweep import ceiling, sweep
from kvbench.fleet.prefix.tree import plant
from kvbench.results.environment import processor_name
from kvbench.workload.trace import FOLDER_VARIABLE, TraceColumns, read_trace

SIZES = (2048, 8192, 32768)
POLICIES = ("fifo", "lru", "optimal")
WARMUP_SHARE = 0.5
REPEATS = (1, 10)
FILE = "mooncake_synthetic.jsonl"
GOAL = Goal(1, at_least=True)
CURVE_GOAL = Goal(3, at_least=False)


def repeated(columns: TraceColumns, times: int) -> TraceColumns:
    """A trace again and again, each time with the same blocks."""
    spans, requests = columns.arrival_ns[-1] + NS_PER_S, np.tile(np.arange(columns.num_requests), times)
    return replace(
        columns,
        arrival_ns=np.concatenate([columns.arrival_ns + number * spans for number in range(times)]),
        num_prompt_tokens=np.tile(columns.num_prompt_tokens, times),
        num_output_tokens=np.tile(columns.num_output_tokens, times),
        block_ids=np.tile(columns.block_ids, times),
        block_offsets=np.concatenate(([0], np.cumsum(np.tile(np.diff(columns.block_offsets), times)))),
        contents=columns.contents.of(requests),
    )


def block_tokens_of(columns: TraceColumns) -> np.ndarray:
    """Tokens of each block."""
    counts = np.diff(columns.block_offsets)
    tokens = np.full(columns.block_ids.size, columns.block_tokens)
    tokens[columns.block_offsets[1:] - 1] = columns.num_prompt_tokens - (counts - 1) * columns.block_tokens
    return tokens


class Peer:
    """The KVCache.AI simulator on a trace.

    Args:
        columns: the trace.
        folder: for the files that its core reads.
    """

    def __init__(self, columns: TraceColumns, folder: Path) -> None:
        tokens = block_tokens_of(columns)
        self._first = int(columns.num_requests * WARMUP_SHARE)
        self._trace = TraceData(
            ids=columns.block_ids.tolist(),
            tokens=tokens.tolist(),
            request_starts=columns.block_offsets.tolist(),
            block_size=columns.block_tokens,
            request_count=columns.num_requests,
            unique_raw_blocks=np.unique(columns.block_ids).size,
            total_input_tokens=int(tokens.sum()),
            average_input_tokens=float(tokens.sum() / columns.num_requests),
            parse_errors=0,
            skipped_records=0,
        )
        columns.block_ids.astype(np.uint32).tofile(folder / "ids")
        tokens.astype(np.uint16).tofile(folder / "tokens")
        columns.block_offsets[1:].astype(np.uint32).tofile(folder / "ends")
        self._files = ["--ids", folder / "ids", "--tokens", folder / "tokens", "--request-ends", folder / "ends"]
        self._counts = ["--request-count", columns.num_requests, "--total-blocks", columns.block_ids.size]

    def core(self) -> str:
        """Its core on files written before: what it reads, computes and prints, and the start of its process."""
        sweep = ["--capacities", ",".join(map(str, SIZES)), "--policies", ",".join(POLICIES)]
        command = [ensure_cpp_simulator(), "--policy", "batch", *self._files, *self._counts]
        command += ["--warmup-requests", self._first, *sweep]
        return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout

    def whole(self) -> object:
        """Its function, which also writes the files."""
        return run_cpp_sweep(self._trace, capacities=list(SIZES), policies=list(POLICIES), warmup_requests=self._first)


def start_only() -> object:
    """Its process on nothing."""
    return subprocess.run([str(ensure_cpp_simulator())], check=False, capture_output=True, text=True)


def ours(columns: TraceColumns) -> list[dict]:
    """All that the core computes, from the trace's columns on."""
    tree = plant(columns)
    rows = sweep(tree, sizes=SIZES, policies=POLICIES, reuse="block_hash", warmup_share=WARMUP_SHARE)
    return [*rows, ceiling(tree, warmup_share=WARMUP_SHARE)]


def check_equal(rows: list[dict], printed: str) -> None:
    """Both sides found the same hits."""
    theirs = json.loads(printed)
    points = {point["cacheBlocks"]: point for point in theirs["points"]}
    *rows, last = rows
    assert [row["hit_tokens"] for row in rows] == [points[s][p]["hitTokens"] for s in SIZES for p in POLICIES]
    assert last["hit_tokens"] == theirs["ceiling"]["hitTokens"]


def curve(columns: TraceColumns, num_rounds: int) -> None:
    """Hits at every size in one pass, beside a run of one size, both from the tree of prompts on."""
    tree = plant(columns)
    single = {"sizes": SIZES[1:2], "policies": ("lru",), "reuse": "block_hash", "warmup_share": WARMUP_SHARE}
    sides = [Side("curve", lambda _: lru_curve(tree)), Side("run", lambda _: sweep(tree, **single))]
    for side in sides:
        side.call(0)
    curve_s, run_s = interleaved(sides, num_rounds)
    note = f"{tree.num_nodes:,} sizes; the run is of {SIZES[1]:,} blocks"
    print_row("curve / run", f"{columns.num_requests:,} requests", "", curve_s, run_s, CURVE_GOAL, note=note)


def main() -> None:
    """Time both, and print a row for each comparison; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time prefix reuse against the KVCache.AI simulator's C++ core.")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works, no figures to quote")
    parser.add_argument("--trace", type=Path, help=f"{FILE}; default: in the folder that {FOLDER_VARIABLE} names")
    arguments = parser.parse_args()
    path = arguments.trace or Path(os.environ.get(FOLDER_VARIABLE, "traces")) / FILE
    published = read_trace(path, "mooncake")
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in ("kvbench", "numba", "kvcache-simulator")))
    print(f"{len(SIZES)} sizes × {len(POLICIES)} policies and a cache without bounds; one core each")
    ensure_cpp_simulator()
    print_head()
    load = OtherLoad()
    for repeats in REPEATS:
        columns = repeated(published, repeats)
        with tempfile.TemporaryDirectory() as folder:
            peer = Peer(columns, Path(folder))
            check_equal(ours(columns), peer.core())
            sides = [
                Side("ours", lambda _, own=columns: ours(own)),
                Side("core", lambda _, peer=peer: peer.core()),
                Side("whole", lambda _, peer=peer: peer.whole()),
                Side("start", lambda _: start_only()),
            ]
            ours_s, core_s, whole_s, start_s = interleaved(sides, 3 if arguments.quick else 30)
        requests = f"{columns.num_requests:,} requests"
        start = shown(float(np.median(start_s)))
        note = f"{columns.block_ids.size:,} blocks; starting its process: {start}"
        for name, theirs_s in (("its core", core_s), ("its core, files written", whole_s)):
            print_row(f"{name} / ours", requests, "", ours_s, theirs_s, GOAL, speedup=True, note=note)
        curve(columns, 3 if arguments.quick else 30)
    print(load.report())


if __name__ == "__main__":
    main()
