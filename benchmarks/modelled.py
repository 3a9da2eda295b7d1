"""How far modelled times are from measured ones: calibrates this machine, and runs what fitted nothing.

Run as `python benchmarks/modelled.py`; see README.md beside this file.
"""

import argparse
import os
import platform
from dataclasses import replace
from importlib.metadata import version
from time import perf_counter

import torch
from load import OtherLoad

from kvbench.api.calibrating import composed_for
from kvbench.calibration.measure import FULL
from kvbench.calibration.whole import calibrated
from kvbench.results.environment import processor_name

CASES = {"short_chat": None, "parallel_sampling": 4, "mixed": None}
QUICK_CASES = {"short_chat": None, "parallel_sampling": 1}
NUM_REPETITIONS = 2


def main() -> None:
    """Calibrate, validate, and print a row a strategy and scenario; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Hold kvbench's modelled backend against this machine.")
    parser.add_argument("--quick", action="store_true", help="one round: shows that it works, no figures to quote")
    parser.add_argument("--threads", type=int, help="torch's threads; default: its own choice")
    parser.add_argument("--model", default="article", help="whose geometry is measured; default: article")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16; default: the model's")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    sizes = QUICK_CASES if arguments.quick else CASES
    geometry, strategies, cases = composed_for(arguments.model, arguments.dtype, sizes)
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"threads: {torch.get_num_threads()} (torch)")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in ("kvbench", "torch")))
    print(f"{geometry.name}, {geometry.num_layers} layer(s), {geometry.dtype}; attention on, the cache alone")
    if arguments.quick:
        print("quick: one round, figures not to be quoted")
    grid = replace(FULL, num_rounds=1) if arguments.quick else FULL
    load, start = OtherLoad(), perf_counter()
    num_repetitions = 1 if arguments.quick else NUM_REPETITIONS
    found = calibrated(geometry, "auto", grid, strategies, cases, num_repetitions)
    for name, why in found.left_out.items():
        print(f"{name} is left out: {why}")
    print(f"\n{found.text}")
    print(f"in {perf_counter() - start:.0f} s {load.report()}")


if __name__ == "__main__":
    main()
