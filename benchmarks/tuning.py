"""What a search costs, and how near it comes to the best of a grid that is known whole.

`python -m benchmarks.tuning` tries all of a grid of 10,560 deployments of Llama-3.1-8B on an hour of Azure's
conversations in two processes, then lets searches of 500 look for its best, each with a seed of its own. KVBENCH_TRACES
names the folder that holds the trace.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import kvbench as kv
from benchmarks.load import OtherLoad
from kvbench.api.tuning import Tuned

MACHINES = ("h100", "h200", "a100_80", "l40s", "rtx_4090")
SUBJECT_TO = ("ttft_p99_s<=1", "tpot_p99_s<=0.05")
GRID = {
    "backend.replicas": [1, 2, 3, 4],
    "backend.routing": ["round_robin", "least_loaded"],
    "engine.max_num_batched_tokens": [1024, 2048, 4096, 8192],
    "engine.max_num_seqs": [64, 128, 256],
    "strategy.dynamic.growth_factor": [1.25, 1.5, 2.0],
    "strategy.dynamic.initial_capacity": [256, 512, 1024],
}
QUICK = {
    "backend.replicas": [1, 2],
    "engine.max_num_seqs": [64, 128, 256],
    "strategy.dynamic.growth_factor": [1.25, 2.0],
}


def tuned(
    grid: Mapping[str, Sequence[object]], folder: Path, trials: int, seed: int, workers: int, machines: Sequence[str]
) -> Tuned:
    """A search of the grid, for the least that a million tokens cost where requests are served in time."""
    return kv.tune(
        "azure_conv",
        ["paged", "dynamic", "static"],
        hardware=list(machines),
        model="llama3_8b",
        engine="vllm",
        parallel={"tensor": [1, 2]},
        subject_to=SUBJECT_TO,
        search=(),
        settings={**grid, "backend.rate_scale": 3, "backend.replays": 8, "seed": seed},
        trials=trials,
        workers=workers,
        folder=folder,
    )


def spent_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in own)


def least(found: Tuned) -> float:
    """What the best costs by its figure alone, as constraints were searched for: inf where nothing holds."""
    rows = found.rows[found.rows["error"] == ""]
    for text in SUBJECT_TO:
        column, _, limit = text.partition("<=")
        rows = rows[rows[column] <= float(limit)]
    return float(rows["cost_per_million_tokens"].min())


def main() -> None:
    """Search, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small grid: shows that it works, no figures to quote")
    parser.add_argument("--trials", type=int, default=500, help="deployments that a search may try")
    parser.add_argument("--seeds", type=int, default=3, help="searches")
    parser.add_argument("--workers", type=int, default=2, help="processes that try the grid")
    parser.add_argument("--machines", nargs="+", default=MACHINES, help="a fifth of the grid each")
    asked = parser.parse_args()
    grid, machines = (QUICK, MACHINES[:2]) if asked.quick else (GRID, asked.machines)
    trials = 20 if asked.quick else asked.trials
    load = OtherLoad()
    with tempfile.TemporaryDirectory() as place:
        tuned(QUICK, Path(place) / "first", 10_000, 0, 1, MACHINES[:1])  # the kernel, where it was never compiled
        begun, spent = time.perf_counter(), spent_s()
        every = tuned(grid, Path(place) / "all", 100_000, 0, asked.workers, machines)
        took, number = spent_s() - spent, len(every.rows)
        print(
            f"all {number:,} deployments, {asked.workers} processes: {time.perf_counter() - begun:.0f} s, "
            f"{took:.0f} s of processor time ({1000 * took / number:.1f} ms each)\n"
            f"best: {least(every):.5g} a million tokens\n{every.text}\n",
            flush=True,
        )
        for seed in range(asked.seeds):
            begun, spent = time.perf_counter(), spent_s()
            found = tuned(grid, Path(place) / f"search{seed}", trials, seed, 1, machines)
            print(
                f"a search of {trials}, seed {seed}: {100 * (least(found) / least(every) - 1):.2f} % above that; "
                f"{time.perf_counter() - begun:.0f} s, {spent_s() - spent:.0f} s of processor time",
                flush=True,
            )
    print(load.report())


if __name__ == "__main__":
    main()
