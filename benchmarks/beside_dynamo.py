"""The fleet beside Dynamo's offline replay: one trace, as many workers, pools of one size, in one interleaved run.

Run as `python benchmarks/beside_dynamo.py`, with `ai-dynamo-runtime` importable; see README.md beside this file.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import yaml
from fleet import GEOMETRY, WEIGHTS
from load import OtherLoad
from table import Goal, print_head, print_row, shown
from timing import NS_PER_S, Side, interleaved

os.environ.setdefault("DYN_LOG", "error")  # else its router prints a line a request
from dynamo._core import MockEngineArgs, run_mocker_trace_replay

from kvbench.configuration.catalogue import file_of
from kvbench.engine.vllm import VLLM
from kvbench.fleet import FleetResult, simulate
from kvbench.model.hardware import Hardware
from kvbench.plan.area import STAGING_TOKENS
from kvbench.results.environment import processor_name
from kvbench.strategy.paged import Paged
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.trace import FOLDER_VARIABLE, TraceColumns, read_trace

FILE, AGENTS = "mooncake_synthetic.jsonl", "agentic"
AGENT_GAP_MS = 60_000
"""From one agent's beginning to the next: their files have no times."""
WORKERS = 4
BLOCK_TOKENS = 16
POOL_BLOCKS = 16_384
ENGINE = VLLM(max_num_seqs=256, max_num_batched_tokens=8192)
ROUTERS = {"round_robin": "round_robin", "prefix": "kv_router"}
"""Ours, and what is called so there."""
GOAL = Goal(100, at_least=True)


class Ours:
    """The fleet, with an H100's times of Llama-3.1-8B; blocks have names, and are found again."""

    def __init__(self) -> None:
        hardware = Hardware(**yaml.safe_load(file_of("hardware", "h100").read_text(encoding="utf-8")))
        self._prices = prices_of(hardware, work_of_parameters(GEOMETRY, WEIGHTS))
        self._paged = Paged(block_size=BLOCK_TOKENS, pool_tokens=POOL_BLOCKS * BLOCK_TOKENS, prefix_caching=True)
        num_slots = POOL_BLOCKS * BLOCK_TOKENS + STAGING_TOKENS // GEOMETRY.num_layers
        self._budget_bytes = num_slots * GEOMETRY.bytes_per_token

    def served(self, columns: TraceColumns, routing: str) -> FleetResult:
        """A trace from memory."""
        return simulate(
            columns,
            self._paged,
            self._prices,
            geometry=GEOMETRY,
            budget_bytes=self._budget_bytes,
            max_batch=ENGINE.max_num_seqs,
            scheduling=ENGINE.scheduling,
            replicas=WORKERS,
            routing=routing,
            split=False,
        )


def write_agents(folder: Path, path: Path) -> int:
    """Write agents' sessions as both sides read them, whole blocks alone and without subagents; tokens of a block."""
    block_tokens = 0
    with path.open("w", encoding="utf-8") as lines:
        for number, file in enumerate(sorted(folder.glob("*.json"))):
            session = json.loads(file.read_text(encoding="utf-8"))
            calls = [call for call in session["requests"] if call["type"] != "subagent" and call["hash_ids"]]
            block_tokens = session["block_size"]
            for turn, call in enumerate(calls):
                when = {"delay": 1000 * call.get("think_time", 0.0)} if turn else {"timestamp": number * AGENT_GAP_MS}
                ids = [number * 10**6 + own for own in call["hash_ids"]]
                row = {"session_id": file.stem, **when, "input_length": block_tokens * len(ids)}
                print(json.dumps(row | {"output_length": max(call["out"], 1), "hash_ids": ids}), file=lines)
    return block_tokens


def replayed(path: Path, router: str, block_tokens: int) -> dict:
    """Dynamo's report of a trace, read from its file, with the step times that it comes with."""
    engine = MockEngineArgs(
        num_gpu_blocks=POOL_BLOCKS,
        block_size=BLOCK_TOKENS,
        max_num_seqs=ENGINE.max_num_seqs,
        max_num_batched_tokens=ENGINE.max_num_batched_tokens,
    )
    return run_mocker_trace_replay(
        [path], engine, num_workers=WORKERS, router_mode=router, trace_block_size=block_tokens
    )


def cpu_s(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the processor time that it takes, in all threads."""
    start = process_time()
    result = call()
    return result, process_time() - start


def told(result: FleetResult, report: dict) -> str:
    """What both sides found and how long they took to serve it, so that it can be seen what is compared."""
    ours = result.totals.num_hit_tokens / result.prompt_tokens.sum()
    makespan_s = (result.finish_ns.max() - result.arrival_ns.min()) / NS_PER_S
    theirs = report["prefix_cache_reused_ratio"]
    hits = f"prompt tokens found: ours {ours:.1%}, theirs {theirs:.1%}"
    ended = f"{(result.finish_ns >= 0).sum():,} and {report['completed_requests']:,} requests"
    return f"{hits}; {ended} in {makespan_s:,.0f} and {report['duration_ms'] / 1000:,.0f} simulated seconds"


def main() -> None:
    """Print a row for each router; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time the fleet beside Dynamo's offline replay.")
    parser.add_argument("--quick", action="store_true", help="one round: shows that it works, no figures to quote")
    parser.add_argument("--trace", type=Path, help=f"{FILE}; default: in the folder that {FOLDER_VARIABLE} names")
    arguments = parser.parse_args()
    path = arguments.trace or Path(os.environ.get(FOLDER_VARIABLE, "traces")) / FILE
    ours = Ours()
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in ("kvbench", "numba", "ai-dynamo-runtime")))
    print(f"{WORKERS} workers of {POOL_BLOCKS:,} blocks of {BLOCK_TOKENS} tokens; after compilation")
    print_head()
    load = OtherLoad()
    num_rounds = 1 if arguments.quick else 3
    print_rows(ours, path, "mooncake", 512, num_rounds)
    with tempfile.TemporaryDirectory() as made:
        agents = Path(made) / "agents.jsonl"
        block_tokens = write_agents(path.parent / AGENTS, agents)
        print_rows(ours, agents, "aiperf", block_tokens, num_rounds)
    print(load.report())


def print_rows(ours: Ours, path: Path, form: str, block_tokens: int, num_rounds: int) -> None:
    """Print a trace's rows, of each router two."""

    def read() -> TraceColumns:
        return read_trace(path, form, block_tokens=block_tokens)

    columns = read()
    for own, router in ROUTERS.items():
        reports: list[dict] = []
        sides = [
            Side("read", lambda _, own=own: ours.served(read(), own)),
            Side("ours", lambda _, own=own: ours.served(columns, own)),
            Side("theirs", lambda _, to=router, kept=reports: kept.append(replayed(path, to, block_tokens))),
        ]
        sides[1].call(0)
        result, own_cpu_s = cpu_s(lambda own=own: ours.served(columns, own))
        report, their_cpu_s = cpu_s(lambda router=router: replayed(path, router, block_tokens))
        read_s, own_s, whole_s = interleaved(sides, num_rounds)
        replay_s = np.array([kept["wall_time_ms"] / 1000 for kept in reports])
        requests = f"{columns.num_requests:,}"
        note = f"{told(result, report)}; processor time {shown(own_cpu_s)} and {shown(their_cpu_s)}"
        what = f"{path.stem}, {own}"
        print_row(f"its replay / ours, {what}", requests, "", own_s, replay_s, GOAL, speedup=True, note=note)
        print_row(f"the same, file read, {what}", requests, "", read_s, whole_s, speedup=True)


if __name__ == "__main__":
    main()
