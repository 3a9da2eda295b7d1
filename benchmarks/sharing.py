"""The fleet where requests share prefixes, over 8 replicas whose router knows what they hold: rows of `fleet.py`."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time, process_time_ns
from typing import Any

import numpy as np
from table import Goal, print_absolute, print_figure
from timing import NS_PER_S, Side, interleaved

from kvbench.configuration.composed import composed
from kvbench.configuration.parts import backend_of, geometry_of
from kvbench.fleet import FleetResult
from kvbench.fleet.state import OUTCOMES
from kvbench.fleet.sums import Objective, RequestSums
from kvbench.strategy.paged import Paged
from kvbench.workload.trace import FOLDER_VARIABLE, TraceColumns, read_trace

REPLICAS = 8
MANY = 10_000_000
SESSION_GAP_S = 60
"""From one agent's beginning to the next: their files have no times."""
BLOCK_TOKENS = 16
KIB, THOUSAND, MILLION = 1024, 1e3, 1e6
GROWTH_GOAL = Goal(1.25, at_least=False)
MEMORY_GOAL = Goal(2.0, at_least=False, unit=" GB")
LOAD_GOAL = Goal(1.0, at_least=False, unit=" s")
PARSED_GOAL = Goal(10.0, at_least=False, unit=" s")
FEWER = {"mooncake": 40, "agentic": 77}
RATE_GOALS = {name: Goal(rate, at_least=True, unit=" k/s") for name, rate in (("mooncake", 300), ("agentic", 200))}


class Shared:
    """A trace whose prompts share what they begin with, on replicas as vLLM serves by default; sums of its requests.

    Args:
        name: mooncake or agentic.
        columns: the trace; None: as it is published.
    """

    def __init__(self, name: str, columns: TraceColumns | None = None) -> None:
        self.columns = TRACES[name]() if columns is None else columns
        hardware = "h100" if name == "mooncake" else "h200"
        chosen = {"scenario": "chat_poisson", "backend": "fleet", "model": "llama3_8b", "hardware": hardware}
        config = composed({**chosen, "engine": "vllm"}, None, None)
        self._server = backend_of(config, geometry_of(config))
        self._server.replicas = REPLICAS
        self._server.chosen = replace(self._server.chosen, replicas=REPLICAS, routing="prefix", keep="summary")

    def served(self, repeats: int) -> FleetResult:
        """The trace so many times."""
        self._server.chosen = replace(self._server.chosen, repeats=repeats)
        sums = RequestSums(OUTCOMES, Objective(1.0, 0.05))
        pool = self._server.fitted(Paged(), self.columns, self._server.memory_bytes)
        result = self._server.run(self.columns, pool, self._server.memory_bytes, sums.add)
        assert sums.num_completed == repeats * self.columns.num_requests
        return result


def _mooncake() -> TraceColumns:
    return read_trace(_folder() / "mooncake_synthetic.jsonl", "mooncake")


def _agentic(times: int = 1) -> TraceColumns:
    """Agents' sessions, each so many times from a file of its own."""
    with tempfile.TemporaryDirectory() as many:
        for number in range(times):
            for path in (_folder() / "agentic").glob("*.json"):
                (Path(many) / f"{number:03d}_{path.name}").symlink_to(path.resolve())
        columns = read_trace(Path(many), "agentic")
    assert columns.sessions is not None
    return replace(columns, arrival_ns=columns.sessions * SESSION_GAP_S * NS_PER_S).by_arrival()


TRACES: dict[str, Callable[[], TraceColumns]] = {"mooncake": _mooncake, "agentic": _agentic}


def _folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, "traces"))


def print_sharing(num_rounds: int, quick: bool) -> None:
    """Print the rows; what a process holds at most is seen first, in processes of their own."""
    _seen("mooncake", True)  # compiles, where nobody has
    loads_s = np.array([_print_many(name, quick) for name in TRACES])
    print_absolute("compiled code, from disk", loads_s, LOAD_GOAL, "a process's first run, less its second")
    served = {name: Shared(name) for name in TRACES}
    sides = [Side(name, lambda _, name=name: served[name].served(FEWER[name])) for name in TRACES]
    notes = [told(served[name].served(FEWER[name])) for name in TRACES]
    times_s = interleaved(sides, num_rounds, clock_ns=process_time_ns)
    for name, own_s, note in zip(TRACES, times_s, notes, strict=True):
        number = served[name].columns.num_requests * FEWER[name]
        print_figure(f"fleet, {name}", f"{number:,}", own_s, number / own_s / THOUSAND, RATE_GOALS[name], note)
    began, times = process_time(), 2 if quick else FEWER["agentic"]
    agents = Shared("agentic", _agentic(times))
    agents.served(1)
    took_s = np.array([process_time() - began])
    note = f"each file {times} times, parsed, and served"
    print_figure("fleet, agentic, files read", f"{agents.columns.num_requests:,}", took_s, took_s, PARSED_GOAL, note)


def told(result: FleetResult) -> str:
    """What a run did, for a note."""
    totals = result.totals
    blocks = totals.num_queried_tokens / BLOCK_TOKENS / MILLION
    found = totals.num_hit_tokens / totals.num_queried_tokens
    return f"{blocks:,.0f} M blocks of prompts; {found:.1%} of their tokens found; {totals.num_iterations:,} iterations"


def _print_many(name: str, quick: bool) -> float:
    """Print what many requests take; seconds in which the compiled code came from disk."""
    seen = _seen(name, quick)
    num_many, many_s = seen["num_many"], np.array([seen["many_s"]])
    row = partial(print_figure, tokens=f"{num_many:,}")
    rate = num_many / many_s / THOUSAND
    row(
        f"fleet, {name}, many", ours_s=many_s, figures=rate, goal=RATE_GOALS[name], note="once, in a process of its own"
    )
    growth = many_s / num_many / np.median(seen["fewer_s"]) * seen["num_fewer"]
    note = f"time a request, over that of {seen['num_fewer']:,}"
    row(f"fleet, {name}, growth", ours_s=None, figures=growth, goal=GROWTH_GOAL, note=note)
    peak_gb = np.array([seen["peak_bytes"] / 1e9])
    row(f"fleet, {name}, memory", ours_s=None, figures=peak_gb, goal=MEMORY_GOAL, note="the whole process, its peak")
    return float(seen["load_s"])


def _seen(name: str, quick: bool) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).parent / "fleet.py"), "--many", name, *["--quick"] * quick]
    seen: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seen


def see_many(name: str, quick: bool) -> None:
    """Serve a trace many times over, and print what this process needed for it, as JSON."""
    own, times_s = Shared(name), []
    fewer = FEWER[name]
    many = fewer if quick else -(-MANY // own.columns.num_requests)
    for repeats in (1, 1, fewer, fewer, many, fewer, fewer):
        began = process_time()
        own.served(repeats)
        times_s.append(process_time() - began)
    first_s, again_s, *fewer_s = times_s
    many_s = fewer_s.pop(2)
    seen = {
        "num_many": own.columns.num_requests * many,
        "num_fewer": own.columns.num_requests * fewer,
        "many_s": many_s,
        "fewer_s": fewer_s,
        "load_s": first_s - again_s,
        "peak_bytes": KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(seen))
