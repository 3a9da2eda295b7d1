"""What must be known of a device before its figures are read: a line of JSON each. `make gpu` begins with it.

Run as `python benchmarks/probe.py [--device cpu]`; on a CPU the same lines with less to do, which shows that they work.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

from kvbench.backend import device as devices
from kvbench.backend.attention import attention, packed
from kvbench.backend.choice import Conditions
from kvbench.backend.clock import late_clock_of
from kvbench.backend.measured import MeasuredBackend
from kvbench.configuration.catalogue import own_node
from kvbench.configuration.targets import build
from kvbench.model.geometry import KVGeometry
from kvbench.runner.busy import busy_facts
from kvbench.runner.run import limits_of
from kvbench.workload.request import Request, Session

STRATEGIES = ("dynamic", "concat", "chunked", "paged", "heavy_hitters", "int4", "hierarchical")
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
US_PER_S, MS_PER_S = 1e6, 1e3
NUM_MARKS, NUM_COPIES, LENGTHS = 1000, 20, (1100, 1101, 1102, 1103, 1100, 1101)
"""The last two lengths were met before."""


class Probe:
    """Measures on a device, and prints.

    Args:
        device: where.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_small = device.type == "cpu"

    def seconds(self, work: Callable[[], object]) -> float:
        """Of work, from an idle device to an idle device."""
        devices.wait_for(self.device)
        start = perf_counter()
        work()
        devices.wait_for(self.device)
        return perf_counter() - start

    def machine(self) -> dict[str, object]:
        """Versions, the L2 and the clocks."""
        return {"torch": torch.__version__, "python": sys.version.split()[0], **devices.about(self.device)}

    def copies(self) -> dict[str, float]:
        """TB/s of copying, read and written: as kvbench reads it, and a tensor of 2 GiB."""
        read = devices.copy_bandwidth(self.device)
        source = torch.ones(1 << (24 if self.is_small else 31), dtype=torch.uint8, device=self.device)
        target = source.clone()
        taken_s = self.seconds(lambda: [target.copy_(source) for _ in range(NUM_COPIES)])
        return {"as_read": _tb(read), "large": _tb(2 * NUM_COPIES * source.numel() / taken_s)}

    def marks(self) -> dict[str, float]:
        """µs that a mark takes of the host, and between two with nothing between them, median and most."""
        clock = late_clock_of(self.device)
        clock.mark()
        found = []
        host_s = self.seconds(lambda: found.extend(clock.mark() for _ in range(NUM_MARKS)))
        for start, end in pairwise(found):
            clock.times([(0, start, end)])
        spans_us = [times.reserve_ns / 1000 for times in clock.drain()]
        return {"host": _round(host_s / NUM_MARKS * US_PER_S), "empty": median(spans_us), "most": max(spans_us)}

    def kernels(self) -> dict[str, list[float]]:
        """ms of a decode step's attention in one layer, at lengths that are new and two that are not."""
        held = torch.randn(1, KV_HEADS, max(LENGTHS), HEAD_DIM, device=self.device).bfloat16()
        queries = packed(torch.randn(1, HEADS, 1, HEAD_DIM, device=self.device).bfloat16(), KV_HEADS)
        calls = {
            "as_kvbench_calls_it": lambda keys: attention(queries, [(keys, keys)], None),
            "as_torch_chooses": lambda keys: F.scaled_dot_product_attention(queries, keys, keys),
        }
        found = {}
        for name, call in calls.items():
            cut = [held.narrow(2, 0, length) for length in LENGTHS]
            found[name] = [_round(self.seconds(lambda: call(keys)) * MS_PER_S) for keys in cut]  # noqa: B023
        return found

    def decode(self, name: str) -> dict[str, float]:
        """µs of a decode step of a strategy at the end of a prompt, in which the device is busy, and the host's."""
        layers, num_tokens = (1, 300) if self.is_small else (32, 4000)
        shape = KVGeometry.uniform(
            num_layers=layers, num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM, dtype="bfloat16"
        )
        backend = MeasuredBackend(Conditions(geometry=shape, device=self.device.type))
        if self.is_small:  # the host's time stands for the device's
            backend.busy_ns = lambda work: round(self.seconds(work) * 1e9)
        sessions = [Session(0, (Request(num_tokens, 41),))]
        strategy = build(own_node("strategy", name), "strategy", f"strategy.{name}")
        strategy = strategy.fitted(limits_of(sessions, backend, 1, None))
        backend.prepare(num_tokens, num_tokens + 41)
        return {key: _round(value) for key, value in busy_facts(strategy, sessions, backend, None).items()}


def _tb(bytes_per_s: float) -> float:
    return _round(bytes_per_s / 1e12)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> int:
    """Measure everything; what fails is told and does not end the rest.

    Returns:
        0 where nothing failed, else 1.
    """
    parser = argparse.ArgumentParser(description="Say what must be known of a device before its figures are read.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    probe, status = Probe(torch.device(parser.parse_args().device)), 0
    parts = {name: getattr(probe, name) for name in ("machine", "copies", "marks", "kernels")}
    parts |= {name: lambda name=name: probe.decode(name) for name in STRATEGIES}
    for name, part in parts.items():
        try:
            found = part()
        except Exception as error:  # whatever a device that was never met gives
            traceback.print_exc()
            found, status = {"failed": f"{type(error).__name__}: {error}"}, 1
        print(json.dumps({name: found}), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
