"""An engine's host time of a step, fitted to published end-to-end measurements; how far off it is on others.

Run as `python benchmarks/host_time.py MEASUREMENTS`, the folder of serving.csv and requests_rtx_4090.csv; see README.md
beside this file.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kvbench.api.held_served import Servers
from kvbench.calibration.validation.points import THROUGHPUT, ServingPoint
from kvbench.calibration.validation.recognised import read_table
from kvbench.calibration.validation.request_log import read_log
from kvbench.calibration.validation.serving_table import SHAPE, has_even_shape, read_serving
from kvbench.calibration.validation.simulated import judged_points

STEPS_S = (0.0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 2.5e-3, 3e-3)
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


def errors(
    points: Sequence[ServingPoint], said: dict[str, object], folder: Path, step_s: float | None
) -> "dict[str, float]":
    """MAPE by kind of figure, with a step that takes so long on the host; None: what engines take."""
    settings = said if step_s is None else said | {"engine.step_s": step_s}
    rows = judged_points(points, Servers(settings, folder).of).rows
    off = (rows["ours"] / rows["published"] - 1).abs()
    return {kind: 100 * float(off[rows["kind"] == kind].mean()) for kind in dict.fromkeys(rows["kind"])}


def tables(folder: Path) -> Iterator[tuple[str, list[ServingPoint], list[ServingPoint], dict[str, object]]]:
    """Each group of measurements: those that fit, those that judge, and what is said of the system."""
    path = folder / "serving.csv"
    frame = read_table(path)
    points, _ = read_serving(path, frame)
    own = [index for index in range(len(frame)) if str(frame["source"][index]).startswith("aiconfigurator")]
    by_row = {point.what.split(":")[0]: point for point in points}
    for tensor in (1, 2):
        chosen = [index for index in own if frame["tensor_parallel"][index] == tensor]
        is_fit = [has_even_shape([frame[name][index] for name in SHAPE]) for index in chosen]
        parts = [
            [by_row[f"row {index + 1}"] for index, each in zip(chosen, is_fit, strict=True) if each == wanted]
            for wanted in (True, False)
        ]
        yield (
            f"trtllm, 8B, H100, TP {tensor}",
            parts[0] if tensor == 1 else [],
            parts[1] if tensor == 1 else parts[0] + parts[1],
            {},
        )
    queued = [by_row[f"row {index + 1}"] for index in range(len(frame)) if f"row {index + 1}" in by_row]
    yield "trtllm, 8B FP8, H100, queued", [], [point for point in queued if point.region == "queued"], {}
    log, inputs = (folder / f"requests_rtx_4090{end}.csv" for end in ("", "_inputs"))
    run = read_log(log, read_table(log), read_table(inputs), inputs)
    run = replace(run, by_request=None)
    yield "vllm, 8B, RTX 4090, replayed", [run], [run], LOG


def main() -> None:
    """Print the errors over host times, and of the one that fits best on rows that fitted nothing."""
    parser = argparse.ArgumentParser(description="Fit engines' host time of a step.")
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--hardware", help="a folder of hardware files, instead of conf/hardware")
    arguments = parser.parse_args()
    for name, fitting, judging, said in tables(arguments.measurements):
        if arguments.hardware:
            machine = str(said.get("hardware", "h100"))
            said = said | {"hardware": f"{arguments.hardware}/{machine}.yaml"}
        print(f"\n{name}: {len(fitting)} fit, {len(judging)} judge")
        best: tuple[float, float | None] = (np.inf, None)
        for step_s in STEPS_S if fitting else ():
            found = errors(fitting, said, arguments.measurements / "configs", step_s)
            told = {kind: off for kind, off in found.items() if not kind.startswith("ttft") and kind != THROUGHPUT}
            loss = float(np.mean(list(told.values())))
            best = min(best, (loss, step_s), key=lambda each: each[0])
            print(f"  {1e3 * step_s:5.2f} ms: " + ", ".join(f"{kind} {off:.1f} %" for kind, off in found.items()))
        for step_s in dict.fromkeys((best[1], None)):
            found = errors(judging, said, arguments.measurements / "configs", step_s)
            label = "as engines have it" if step_s is None else f"{1e3 * step_s:.2f} ms"
            print(f"  judged, {label}: " + ", ".join(f"{kind} {off:.1f} %" for kind, off in found.items()))


if __name__ == "__main__":
    main()
