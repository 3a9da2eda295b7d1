"""Whole runs: how much of the runner's loop is spent inside operations, and how long the command takes."""

import subprocess
import sys
import tempfile
from time import perf_counter

import numpy as np
from table import Goal, print_absolute, print_row
from timing import no_collection

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.model.geometry import KVGeometry
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import run
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Request, Session

ARTICLE = KVGeometry.uniform(num_layers=1, num_heads=32, num_kv_heads=32, head_dim=128, dtype="float32", name="Article")
PROMPT_TOKENS, DECODED_TOKENS = 1000, 300
INSIDE_GOAL = Goal(0.9, at_least=True)

COMMAND = ("-m", "kvbench", "+scenario=short_chat")
COMMAND_GOAL = Goal(12, at_least=False, unit=" s")
LIMIT_S = 600


class TimedPrepare(MeasuredBackend):
    """The measured backend; it also says how long its inputs took to make."""

    prepare_s = 0.0

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """Make the inputs, timed."""
        start = perf_counter()
        super().prepare(max_append_tokens, max_context_tokens)
        self.prepare_s = perf_counter() - start


def inside_operations(quick: bool) -> None:
    """Time inside reserve, append and attend ÷ wall time of the runner's loop; the rest is ours."""
    num_runs = 2 if quick else 9
    _one_run()
    inside_s, wall_s = np.array([_one_run() for _ in range(num_runs)]).T
    tokens = f"{PROMPT_TOKENS:,} + {DECODED_TOKENS:,}"
    note = f"theirs: run() less prepare(); {num_runs} runs, {100 * (wall_s - inside_s).sum() / wall_s.sum():.1f} % ours"
    print_row("inside operations / loop", tokens, "float32", inside_s, wall_s, INSIDE_GOAL, note=note)


def _one_run() -> tuple[float, float]:
    """Seconds inside operations, and of the loop, of one request under dynamic."""
    backend = TimedPrepare(Conditions(geometry=ARTICLE, device="cpu"))
    strategy = Dynamic(initial_capacity=512, growth_factor=1.5, max_capacity=8192, round_to=1)
    request = Session(0, (Request(PROMPT_TOKENS, DECODED_TOKENS),))
    with no_collection():
        start = perf_counter()
        recorder = run(
            {"dynamic": strategy},
            [request],
            backend,
            num_repetitions=1,
            num_warmup=0,
            max_concurrency=1,
            budget_bytes=None,
        )
        wall_s = perf_counter() - start - backend.prepare_s
    steps = steps_frame(recorder)
    return float(steps[["reserve_us", "append_us", "attend_us"]].sum(axis=None) / 1e6), wall_s


def whole_command(quick: bool) -> None:
    """The command on a short chat, default strategies and repetitions, as a process of its own."""
    seconds = []
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            done = subprocess.run(
                [sys.executable, *COMMAND], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            seconds.append(perf_counter() - start)
        if done.returncode:
            print(f"python {' '.join(COMMAND)}: not measured, it failed with {done.returncode}:")
            print("  " + "\n  ".join(done.stderr.strip().splitlines()[-5:]))
            return
    note = f"best {min(seconds):.2f} s of {len(seconds)}; the goal is for two cores"
    print_absolute(f"python {' '.join(COMMAND)}", np.array(seconds), COMMAND_GOAL, note)
