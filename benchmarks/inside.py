"""What a decode step of a real model takes, and how much memory its K and V, by the cache that holds them.

Run as `python benchmarks/inside.py`; see README.md beside this file.
"""

import argparse
import os
import platform
from importlib.metadata import version

import numpy as np
import torch
from load import OtherLoad
from timing import Side, interleaved
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import Cache

from kvbench.configuration.catalogue import file_of
from kvbench.configuration.targets import build
from kvbench.integrations.models import PACKAGE, Loaded, load_model
from kvbench.integrations.peers import peer_of
from kvbench.integrations.text import default_text
from kvbench.integrations.transformers import KVBenchCache
from kvbench.results.environment import processor_name

STRATEGIES = ("dynamic", "static", "paged", "concat")
MAX_TOKENS = 8192
"""Slots of a static cache, kvbench's own default and the model's longest context."""
STEP = 8
"""Tokens by which caches are filled for the count of bytes."""
GOAL = 1.0


def main() -> None:
    """Time and count, and print a row a cache; a missed goal is no failure."""
    parser = argparse.ArgumentParser(description="Time caches inside SmolLM2.")
    parser.add_argument("--quick", action="store_true", help="short: shows that it works, no figures to quote")
    parser.add_argument("--threads", type=int, help="torch's threads; default: its own choice")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of context; default: 2048")
    parser.add_argument("--rounds", type=int, default=60, help="decode steps of each cache; default: 60")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    num_tokens, num_rounds = (128, 4) if arguments.quick else (arguments.tokens, arguments.rounds)
    loaded = load_model(PACKAGE)
    print(f"machine: {processor_name()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"threads: {torch.get_num_threads()} (torch)")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in ("kvbench", "torch", "transformers")))
    print(f"{loaded.about}; attention {loaded.model.config._attn_implementation}")
    if arguments.quick:
        print("quick: few steps, figures not to be quoted")
    load_meanwhile = OtherLoad()
    print_times(loaded, num_tokens, num_rounds)
    print_bytes(loaded, num_tokens)
    print(load_meanwhile.report())


def caches(loaded: Loaded) -> dict[str, Cache]:
    """The caches that are timed, empty; transformers' own first."""
    config = loaded.model.config
    made: dict[str, Cache] = {
        "transformers DynamicCache": DynamicCache(config=config),
        "transformers StaticCache": StaticCache(config=config, max_cache_len=MAX_TOKENS),
    }
    return made | {name: KVBenchCache(strategy(name), config) for name in STRATEGIES}


def strategy(name: str) -> object:
    import yaml

    return build(yaml.safe_load(file_of("strategy", name).read_text(encoding="utf-8")), "strategy", name)


@torch.inference_mode()
def print_times(loaded: Loaded, num_tokens: int, num_rounds: int) -> None:
    """Decode with every cache in turn, each beginning after the same prompt."""
    ids = torch.tensor([loaded.tokenizer(default_text().text[: 16 * num_tokens])["input_ids"][:num_tokens]])
    sides, logits = [], {}
    for name, cache in caches(loaded).items():
        loaded.model(input_ids=ids, past_key_values=cache, logits_to_keep=1)

        def step(number: int, name: str = name, cache: Cache = cache) -> None:
            token = ids[:, number % num_tokens][:, None]
            logits[name] = loaded.model(input_ids=token, past_key_values=cache).logits

        sides.append(Side(name, step))
    for side in sides:
        side.call(0)  # what is made at the first step, such as staging buffers
    times = dict(zip([side.name for side in sides], interleaved(sides, num_rounds), strict=True))
    base = times["transformers DynamicCache"]
    print(f"\na decode step after {num_tokens:,} tokens, {num_rounds} of each cache in turn")
    print(f"{'cache':<28}{'median ms':>11}{'mean ms':>10}{'ratio':>8}{'ratio, mean':>13}   goal")
    for name, own in times.items():
        ratio, of_means = np.median(own) / np.median(base), own.mean() / base.mean()
        goal = f"<= {GOAL} {'met' if ratio <= GOAL else 'MISSED'}" if name == "dynamic" else ""
        median, mean = 1e3 * np.median(own), 1e3 * own.mean()
        print(f"{name:<28}{median:>11.2f}{mean:>10.2f}{ratio:>8.3f}{of_means:>13.3f}   {goal}")
    furthest = max((logits[name] - logits["transformers DynamicCache"]).abs().max().item() for name in logits)
    print(f"largest difference of a logit from DynamicCache's at the last step: {furthest:.1e}")


def print_bytes(loaded: Loaded, num_tokens: int) -> None:
    """Fill every cache with a prompt of a quarter and then little by little, without the model."""
    geometry, config = loaded.geometry, loaded.model.config
    ideal = num_tokens * geometry.bytes_per_token
    print(f"\nK and V of {num_tokens:,} tokens, a quarter at once and then {STEP} at a time")
    print(f"ideal: {ideal / 2**20:.1f} MiB")
    print(f"{'cache':<28}{'peak MiB':>10}{'÷ ideal':>9}{'held MiB':>10}{'resizes':>9}")
    figures = {}
    for name in ("dynamic", "static"):
        peer = peer_of(name, config, MAX_TOKENS)
        fill(peer.cache, geometry, num_tokens)
        figures[f"transformers {name}"] = peer.figures()
    for name in STRATEGIES:
        cache = KVBenchCache(strategy(name), config)
        fill(cache, geometry, num_tokens)
        figures[name] = cache.figures()
        cache.close()
    for name, own in figures.items():
        peak, held = own.peak_bytes / 2**20, own.held_bytes / 2**20
        print(f"{name:<28}{peak:>10.1f}{own.peak_bytes / ideal:>9.2f}{held:>10.1f}{own.num_resizes:>9}")
    below = figures["dynamic"].peak_bytes / figures["transformers static"].peak_bytes
    print(f"peak of dynamic over that of a StaticCache of {MAX_TOKENS:,} tokens: {below:.2f} (goal: below 1)")


def fill(cache: Cache, geometry: object, num_tokens: int) -> None:
    """Put random K and V in, layer by layer as a model does."""
    shape = (1, geometry.plain.num_kv_heads, num_tokens, geometry.plain.head_dim)
    keys = torch.randn(shape)
    first = max(num_tokens // 4, 1)
    for start, count in [(0, first), *((number, STEP) for number in range(first, num_tokens, STEP))]:
        new = keys[:, :, start : start + count]
        for layer in range(geometry.num_layers):
            cache.update(new, new, layer)


if __name__ == "__main__":
    main()
