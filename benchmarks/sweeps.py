"""What a sweep costs beside its points: a worker's overhead a point, and the joining of all.

`python -m benchmarks.sweeps` runs 10,000 points that do nothing and joins them, each in a process of its own: processor
time, and memory at its most.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from kvbench.api.collecting import collected
from kvbench.api.points import configuration_of
from kvbench.decide.manifest import Axis, Combination, Manifest
from kvbench.decide.shards import DONE, PointOutcome
from kvbench.decide.work import Places, SweepWorker
from kvbench.results.results import Results

STRATEGIES = ("paged", "dynamic")
NUM_COLUMNS, NUM_REQUESTS = 90, 100
"""Figures of a row of the summary; requests of which each point keeps rows."""
NUM_DRAWN = 16
"""Points whose rows are different; the others have theirs."""


def swept(number: int) -> Manifest:
    """A sweep of so many points over two keys."""
    sizes = {"warmup": number // 100 or 1, "seed": min(number, 100)}
    axes = [
        Axis(key=key, lines=tuple(f"{key}={value}" for value in range(size)), values=tuple(range(size)))
        for key, size in sizes.items()
    ]
    from kvbench.configuration.composed import composed

    configuration = composed({"scenario": "chat_poisson", "hardware": "h100", "backend": "fleet"}, STRATEGIES)
    return Manifest(name="nothing", axes=tuple(axes), configuration=configuration, are_default=False)


@cache
def rows_of(number: int) -> Results:
    """Rows, made up, of one of the points that are different."""
    drawn = np.random.default_rng(number)
    figures = {f"figure_{column}": drawn.random(len(STRATEGIES)) for column in range(NUM_COLUMNS)}
    own = {"strategy": list(STRATEGIES), "scenario": "nothing", "outcome": "completed", "source": "modelled"}
    size = len(STRATEGIES) * NUM_REQUESTS
    times = ("arrival_s", "queue_s", "ttft_s", "tpot_s", "latency_s")
    requests = {"strategy": pd.Categorical(np.repeat(STRATEGIES, NUM_REQUESTS)), "repetition": 0, "warmup": False}
    requests |= {"session": np.arange(size) % NUM_REQUESTS, "turn": 0, "outcome": pd.Categorical(["completed"] * size)}
    requests |= {name: drawn.random(size) for name in times}
    requests |= {name: drawn.integers(1, 1000, size) for name in ("prompt_tokens", "output_tokens", "peak_bytes")}
    environment = {"scenario": "nothing", "header": ["nothing: at all", "on nothing"]}
    return Results(summary=pd.DataFrame({**own, **figures}), requests=pd.DataFrame(requests), environment=environment)


def nothing(manifest: Manifest, point: Combination) -> PointOutcome:
    """A point that is configured, and not run."""
    configuration_of(manifest, point)
    return PointOutcome(state=DONE, results=rows_of(point.number % NUM_DRAWN))


def worked(folder: Path, number: int) -> None:
    """Run points that do nothing, and say what a worker takes a point."""
    manifest = swept(number)
    manifest.write(folder)
    for drawn in range(NUM_DRAWN):
        rows_of(drawn)
    start_s, begun_s = time.process_time(), time.perf_counter()
    SweepWorker(manifest, Places(folder), partial(nothing, manifest)).work()
    spent_s, wall_s = time.process_time() - start_s, time.perf_counter() - begun_s
    print(
        f"a worker: {1000 * spent_s / number:.2f} ms of processor time a point ({1000 * wall_s / number:.1f} ms in all)"
    )


def joined(folder: Path) -> None:
    """Join what is there into files, and say how long it takes."""
    start_s, begun_s = time.process_time(), time.perf_counter()
    found = collected(folder)
    found.results.save(folder, found.writers, replaces=True)
    spent_s, wall_s = time.process_time() - start_s, time.perf_counter() - begun_s
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = len(pd.read_parquet(folder / "requests.parquet", columns=["turn"]))
    shards = len(list(Places(folder).shards.iterdir()))
    print(
        f"joined: {found.num_finished:,} points of {shards:,} shards, {rows:,} rows of requests: {spent_s:.1f} s of "
        f"processor time ({wall_s:.1f} s in all), {peak_gb:.2f} GB at most"
    )


def in_process(call: object, *arguments: object) -> None:
    """Call something in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    process = multiprocessing.get_context("spawn").Process(target=call, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=10_000)
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as folder:
        in_process(worked, Path(folder), points)
        in_process(joined, Path(folder))


if __name__ == "__main__":
    main()
