"""Reading traces: agents' sessions by the thousand, Mooncake's, and ten million turns as columns.

Run as `python benchmarks/traces.py`; see README.md beside this file.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from table import Goal, print_figure, print_head

from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_formats import read_trace

TIMES = 77
MANY = 10_000_000
GIB = 1 << 30
FOLDER = Path(os.environ.get("KVBENCH_TRACES") or "traces")


def agentic(folder: Path, times: int) -> TraceColumns:
    """All sessions of the folder so many times, each copy apart."""
    with tempfile.TemporaryDirectory() as many:
        for number in range(times):
            for path in folder.glob("*.json"):
                (Path(many) / f"{number:03d}_{path.name}").symlink_to(path.resolve())
        return read_trace(Path(many), "agentic")


def repeated(folder: Path) -> tuple[float, float]:
    """Seconds of a processor that ten million turns take, and the peak of memory, in GiB."""
    columns = read_trace(folder, "agentic")
    columns = replace(columns, arrival_ns=columns.sessions * 1_000_000_000)
    began = time.process_time()
    columns.repeated(-(-MANY // columns.num_requests))
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, each session twice: no figures to quote")
    parser.add_argument("--repeated", action="store_true", help="ten million turns alone, in a process of their own")
    given = parser.parse_args()
    folder = FOLDER / "agentic"
    if given.repeated:
        print(*repeated(folder))
        return
    rounds, times = (1, 2) if given.quick else (3, TIMES)
    print_head()
    figures, num_calls = [], 0
    for _ in range(rounds):
        began = time.process_time()
        num_calls = agentic(folder, times).num_requests
        figures.append(time.process_time() - began)
    seconds = np.array(figures)
    print_figure(
        "agents' sessions", f"{num_calls:,} calls", seconds, seconds, Goal(10, False, unit=" s"), "of a processor"
    )
    figures = []
    for _ in range(rounds):
        began = time.process_time()
        read_trace(FOLDER / "mooncake_synthetic.jsonl", "mooncake")
        figures.append(time.process_time() - began)
    seconds = np.array(figures)
    print_figure("mooncake_synthetic", "3,993 rows", seconds, seconds, Goal(1, False, unit=" s"), "of a processor")
    told = subprocess.run([sys.executable, __file__, "--repeated"], capture_output=True, text=True, check=True).stdout
    took_s, peak = (np.array([float(word)]) for word in told.split())
    print_figure(
        "repeated, as columns", f"{MANY:,} turns", took_s, peak, Goal(4, False, unit=" GiB"), "peak of the process"
    )


if __name__ == "__main__":
    main()
