"""How long it takes to read a configuration and to answer 1,000 questions of what fits.

Run as `python benchmarks/capacity.py [config.json …]`; see README.md beside this file.
"""

import argparse
import os
import platform
from itertools import cycle, islice, product
from time import perf_counter

from load import OtherLoad

from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.model import accelerator_of, model_of
from kvbench.engine.capacity import CONTEXTS, capacity
from kvbench.engine.ideal import Ideal
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.model.parallel import Parallel
from kvbench.results.environment import processor_name

NUM_QUESTIONS, GOAL_S = 1_000, 1.0
ENGINES = (VLLM(), SGLang(), TensorRTLLM(), Ideal())
DEGREES = (1, 2, 4, 8)
MODELS = ("llama3_8b", "gemma3_27b", "deepseek_v3")


def main() -> None:
    """Print a row a configuration; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time kvbench's answers to what fits.")
    parser.add_argument("models", nargs="*", default=MODELS, help="names, or published configurations")
    asked = parser.parse_args().models
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    machines = [accelerator_of(composed({"hardware": name}, ())) for name in names("hardware")]
    questions = list(islice(cycle(product(machines, ENGINES, DEGREES)), NUM_QUESTIONS))
    answers = f"{NUM_QUESTIONS:,} answers"
    print(f"\n{'configuration':<32} {'read':>8} {answers:>14} {'refused':>8}   goal: {GOAL_S:g} s together")
    load = OtherLoad()
    for name in asked:
        start = perf_counter()
        model = model_of(composed({"model": name}, ()))
        read = perf_counter()
        refused = 0
        for machine, engine, degree in questions:
            try:
                found = capacity(model, machine, engine, Parallel(tensor=degree))
                for tokens in CONTEXTS:
                    found.requests(tokens)
            except ValueError:
                refused += 1
        end = perf_counter()
        print(f"{model.name[:32]:<32} {1e3 * (read - start):>5.1f} ms {1e3 * (end - read):>11.0f} ms {refused:>8}")
    print(load.report())


if __name__ == "__main__":
    main()
