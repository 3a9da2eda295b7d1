"""The fleet on published traces, repeated: requests a second on one core, how time grows, and the memory it takes.

Run as `python benchmarks/fleet.py`; see README.md beside this file.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from time import process_time_ns

import numpy as np
import yaml
from load import OtherLoad
from sharing import TRACES, print_sharing, see_many
from table import Goal, print_figure, print_head, print_row
from timing import Side, interleaved

from kvbench.configuration.catalogue import file_of
from kvbench.configuration.composed import composed
from kvbench.configuration.parts import backend_of, geometry_of
from kvbench.fleet import FleetResult, simulate
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters
from kvbench.plan.area import STAGING_TOKENS
from kvbench.results.environment import processor_name
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.paged import Paged
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.trace import FOLDER_VARIABLE, TraceColumns, read_trace

FILE = "AzureLLMInferenceTrace_conv.csv"
REPEATS, MANY_REPEATS = 50, 517
MAX_BATCH = 256
MILLION = 1e6
KIB = 1024
MEMORY_FRACTION = 0.9
TIGHT_SLOTS = 24_000
GEOMETRY = KVGeometry.uniform(
    num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, dtype="bfloat16", name="Llama-3.1-8B"
)
WEIGHTS = ModelParameters(
    num_parameters=8_030_261_248, num_active_parameters=8_030_261_248, hidden_size=4096, bytes_per_parameter=2
)
ENGINE_GOAL = Goal(1.5, at_least=True, unit=" M/s")
RATE_GOAL = Goal(1.0, at_least=True, unit=" M/s")
FULL_GOAL = Goal(0.3, at_least=True, unit=" M/s")
GROWTH_GOAL = Goal(1.2, at_least=False)
MEMORY_GOAL = Goal(2.0, at_least=False, unit=" GB")


class Served:
    """A trace, and the machine that serves it.

    Args:
        columns: the trace.
    """

    def __init__(self, columns: TraceColumns) -> None:
        self.columns = columns
        hardware = Hardware(**yaml.safe_load(file_of("hardware", "h100").read_text(encoding="utf-8")))
        self._prices = prices_of(hardware, work_of_parameters(GEOMETRY, WEIGHTS))
        chosen = {"scenario": "chat_poisson", "backend": "fleet", "model": "llama3_8b", "hardware": "h100"}
        config = composed({**chosen, "engine": "vllm"}, None, None)
        self._server = backend_of(config, geometry_of(config))
        self.num_slots = (int(hardware.memory_bytes * MEMORY_FRACTION) - WEIGHTS.num_bytes) // GEOMETRY.bytes_per_token

    def engine(self) -> FleetResult:
        """As vLLM serves by default: prompts in chunks, decoding sequences first, parts of memory told apart."""
        pool = self._server.fitted(Paged(), self.columns, self._server.memory_bytes)
        return self._server.run(self.columns, pool, self._server.memory_bytes)

    def paged(self) -> FleetResult:
        """Blocks of 16 on all of the machine's memory, its parts not told apart."""
        pool_tokens = (self.num_slots - STAGING_TOKENS // GEOMETRY.num_layers) // 16 * 16
        return self._run(Paged(block_size=16, pool_tokens=pool_tokens), self.num_slots, split=False)

    def dynamic(self) -> FleetResult:
        """Growth, with so little memory that requests are preempted, and its parts told apart."""
        growing = Dynamic(initial_capacity=512, growth_factor=1.5, max_capacity=TIGHT_SLOTS, round_to=1)
        return self._run(growing, TIGHT_SLOTS, split=True)

    def _run(self, strategy: Strategy, num_slots: int, *, split: bool) -> FleetResult:
        budget_bytes = num_slots * GEOMETRY.bytes_per_token
        chosen = {"geometry": GEOMETRY, "budget_bytes": budget_bytes, "max_batch": MAX_BATCH, "split": split}
        return simulate(self.columns, strategy, self._prices, **chosen)


def told(result: FleetResult) -> str:
    """What a run did, for a note."""
    totals, shares = result.totals, result.shares()
    return (
        f"mean batch {shares.mean_batch:.1f}, {totals.num_iterations:,} iterations, {totals.num_preemptions:,} "
        f"preemptions, {totals.num_resizes:,} resizes; used {shares.used:.1%} of slots"
    )


def speed(served: Served, num_rounds: int) -> np.ndarray:
    """All ways to serve, in turn; the first one's seconds."""
    sides = [
        Side("vllm", lambda _: served.engine()),
        Side("paged", lambda _: served.paged()),
        Side("dynamic", lambda _: served.dynamic()),
    ]
    notes = [told(side.call(0)) for side in sides]
    times_s = interleaved(sides, num_rounds, clock_ns=process_time_ns)
    for side, goal, own_s, note in zip(sides, (ENGINE_GOAL, RATE_GOAL, FULL_GOAL), times_s, notes, strict=True):
        num_requests = served.columns.num_requests
        print_figure(f"fleet, {side.name}", f"{num_requests:,}", own_s, num_requests / own_s / MILLION, goal, note)
    return times_s[0]


def memory(path: Path, num_requests: int) -> None:
    """The most memory of a process that serves the trace once."""
    command = [sys.executable, __file__, "--once", "--trace", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak_gb = np.array([float(done.stdout) / 1e9])
    print_figure("fleet, vllm: memory", f"{num_requests:,}", None, peak_gb, MEMORY_GOAL, "the whole process, its peak")


def main() -> None:
    """Print a row for each measurement; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time the fleet on published traces.")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works, no figures to quote")
    parser.add_argument("--trace", type=Path, help=f"{FILE}; default: in the folder that {FOLDER_VARIABLE} names")
    parser.add_argument("--once", action="store_true", help="serve it once, and print the process's peak memory, bytes")
    parser.add_argument("--many", choices=TRACES, help="serve it many times over, and print what it took, as JSON")
    parser.add_argument("--only", choices=("plain", "prefixes"), help="one part: Azure's trace, or those with prefixes")
    arguments = parser.parse_args()
    if arguments.many:
        see_many(arguments.many, arguments.quick)
        return
    path = arguments.trace or Path(os.environ.get(FOLDER_VARIABLE, "traces")) / FILE
    if arguments.once:
        Served(read_trace(path, "azure").repeated(REPEATS)).engine()
        print(KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in ("kvbench", "numba")))
    print(f"{GEOMETRY.name}; one core, after compilation")
    print_head()
    load, num_rounds = OtherLoad(), 2 if arguments.quick else 15
    # First: a process begins with its parent's peak.
    if arguments.only != "plain":
        print_sharing(num_rounds, arguments.quick)
    if arguments.only != "prefixes":
        print_plain(path, num_rounds)
    print(load.report())


def print_plain(path: Path, num_rounds: int) -> None:
    """Print the rows of Azure's trace, whose requests share nothing."""
    columns = read_trace(path, "azure")
    served = Served(columns.repeated(REPEATS))
    memory(path, served.columns.num_requests)
    million_s = speed(served, num_rounds)
    many = Served(columns.repeated(MANY_REPEATS))
    sides = [Side("many", lambda _: many.engine())]
    (many_s,) = interleaved(sides, max(num_rounds // 5, 2), num_primes=1, clock_ns=process_time_ns)
    each_s, many_each_s = million_s / served.columns.num_requests, many_s / many.columns.num_requests
    requests = f"{many.columns.num_requests:,} / {served.columns.num_requests:,}"
    print_row("time a request, many / fewer", requests, "", many_each_s, each_s, GROWTH_GOAL)


if __name__ == "__main__":
    main()
