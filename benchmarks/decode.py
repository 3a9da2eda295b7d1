"""What decoding costs in kvbench, beside the least that it could cost and beside a peer: ratios from one run.

Run as `python benchmarks/decode.py`; see README.md beside this file.
"""

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from ahead import beside_the_steps
from appends import against_slices, against_transformers
from attending import against_best_call
from driven import Place
from layouts import appends_apart, reads_apart
from load import OtherLoad
from table import print_head
from whole import inside_operations, whole_command

from kvbench.backend.device import device_name
from kvbench.results.environment import processor_name

PARTS = {
    "slices": against_slices,
    "transformers": against_transformers,
    "attention": against_best_call,
    "layouts": appends_apart,
    "reads": reads_apart,
    "async": beside_the_steps,
    "loop": inside_operations,
    "command": whole_command,
}


def main() -> None:
    """Measure the parts asked for, and print a row for each figure; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time kvbench's decode step against a bare copy and against peers.")
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works, no figures to quote")
    parser.add_argument("--only", choices=PARTS, nargs="+", metavar="PART", help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, help="torch's threads; default: its own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where tensors live; default: cpu")
    arguments = parser.parse_args()
    Place.device = arguments.device
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"threads: {torch.get_num_threads()} (torch); all on {device_name(torch.device(Place.device))}")
    print("versions:", ", ".join(f"{name} {_version(name)}" for name in ("kvbench", "torch", "transformers")))
    print(f"python {platform.python_version()}; batch 1, 1 layer, 32 query heads on 8 KV heads × 128")
    if arguments.quick:
        print("quick: few steps, figures not to be quoted")
    print_head()
    for name, measure in PARTS.items():
        if arguments.only is None or name in arguments.only:
            load = OtherLoad()
            measure(arguments.quick)
            print(load.report(), flush=True)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
