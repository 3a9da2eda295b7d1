"""An engine's host time of a step, and what its products reach, fitted to published end-to-end measurements; how far
off they are on others.

Run as `python benchmarks/host_time.py MEASUREMENTS`, the folder of serving.csv and requests_rtx_4090.csv; see README.md
beside this file.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from kvbench.api.held_served import Servers
from kvbench.calibration.validation.points import THROUGHPUT, ServingPoint
from kvbench.calibration.validation.recognised import read_table
from kvbench.calibration.validation.request_log import read_log
from kvbench.calibration.validation.serving_table import read_serving
from kvbench.calibration.validation.simulated import judged_points

STEPS_S = (2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 9e-4)
SHARES = (0.78, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.95, 1.0)
KINDS, MOST_SHOWN = ("tpot", THROUGHPUT), 3
"""By which a fit is judged: throughput follows from both times. A first token hangs on how clients meet."""
Shown = dict[str, object]
LOG = {
    "hardware": "rtx_4090",
    "model": "llama3_8b",
    "engine": "vllm",
    "engine.version": "0.19.0",
    "engine.max_num_seqs": 256,
    "engine.max_num_batched_tokens": 2048,
    "engine.max_model_len": 32768,
    "engine.num_gpu_blocks": 2588,
}
"""What the log's README says of its engine: 41,408 tokens in blocks of 16."""


def errors(points: Sequence[ServingPoint], said: Shown, folder: Path) -> dict[str, float]:
    """MAPE by kind of figure."""
    rows = judged_points(points, Servers(said, folder).of, replays=0).rows
    off = (rows["ours"] / rows["published"] - 1).abs()
    return {kind: 100 * float(off[rows["kind"] == kind].mean()) for kind in dict.fromkeys(rows["kind"])}


def tables(folder: Path) -> Iterator[tuple[str, list[ServingPoint], list[ServingPoint], Shown]]:
    """Each group of measurements: those that fit, those that judge, and what is said of the system."""
    path = folder / "serving.csv"
    points, _ = read_serving(path, read_table(path))
    loops = [point for point in points if point.columns.num_clients is not None]
    for tensor in (1, 2):
        own = [point for point in loops if point.system.tensor == tensor]
        parts = [[point for point in own if point.held_out == wanted] for wanted in (False, True)]
        yield f"trtllm, 8B, H100, TP {tensor}", parts[0], parts[1], {}
    yield "trtllm, 8B FP8, H100, queued", [], [point for point in points if point.region == "queued"], {}
    log, inputs = (folder / f"requests_rtx_4090{end}.csv" for end in ("", "_inputs"))
    run = read_log(log, read_table(log), read_table(inputs), inputs)
    run = replace(run, by_request=None)
    yield "vllm, 8B, RTX 4090, replayed", [], [run], LOG


def main() -> None:
    """Print errors over host times and shares, and of those that fit best on rows that fitted nothing."""
    parser = argparse.ArgumentParser(description="Fit engines' host time of a step, and what their products reach.")
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--hardware", help="a folder of hardware files, instead of conf/hardware")
    arguments = parser.parse_args()
    for name, fitting, judging, said in tables(arguments.measurements):
        if arguments.hardware:
            machine = str(said.get("hardware", "h100"))
            said = said | {"hardware": f"{arguments.hardware}/{machine}.yaml"}
        print(f"\n{name}: {len(fitting)} fit, {len(judging)} judge")
        folder, fits = arguments.measurements / "configs", []
        for step_s, share in product(STEPS_S, SHARES) if fitting else ():
            tried: Shown = said | {"engine.step_s": step_s, "engine.compute_share": share}
            found = errors(fitting, tried, folder)
            fits.append((float(np.mean([found[kind] for kind in KINDS])), step_s, share, tried, found))
        for loss, step_s, share, tried, found in sorted(fits, key=lambda each: each[0])[:MOST_SHOWN]:
            print(f"  {1e3 * step_s:.1f} ms, {share:.2f}: {loss:.2f} %: {_told(found)}")
            print(f"    judged: {_told(errors(judging, tried, folder))}")
        print(f"  judged, as engines have it: {_told(errors(judging, said, folder))}")


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{kind} {off:.1f} %" for kind, off in found.items())


if __name__ == "__main__":
    main()
