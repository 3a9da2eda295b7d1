"""Record which blocks of a trace's prompts SGLang's RadixCache finds again, and hold kvbench's radix reuse to it.

Run as `python benchmarks/record_sglang.py OUT.json.gz`, with SGLang importable; see README.md beside this file. The
cache is the wheel's own, made by its `create_simulated`. Modules that its file imports and a simulated cache never
calls are left out, since they need a GPU or its libraries: memory pools, kernels and metrics.
"""

import argparse
import gzip
import json
import os
import sys
from array import array
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np

from kvbench.files import write_whole
from kvbench.fleet.prefix.simulate import replay
from kvbench.fleet.prefix.tree import plant
from kvbench.workload.trace import FOLDER_VARIABLE, TraceColumns, read_trace

FILE = "mooncake_synthetic.jsonl"
SIZES = (1024, 2048, 8192, 32768)
NOT_NEEDED = (
    "sglang.kernels.ops.kvcache.mla_buffer",
    "sglang.srt.mem_cache.allocator",
    "sglang.srt.mem_cache.memory_pool",
    "sglang.srt.observability.metrics_collector",
    "sglang.srt.runtime_context",
)


class LeftOut(ModuleType):
    """A module that is named and not used: whatever is asked of it is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


sys.modules.update({name: LeftOut(name) for name in NOT_NEEDED})
from sglang.srt.mem_cache.base_prefix_cache import EvictParams, InsertParams, MatchPrefixParams  # noqa: E402
from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey  # noqa: E402


class Room:
    """What the cache takes for its memory: counts what it gives back.

    Args:
        num_blocks: that there are.
    """

    device = "cpu"

    def __init__(self, num_blocks: int) -> None:
        self.free = num_blocks

    def free_segment(self, freed: object, start_pos: int) -> None:
        """Take back the blocks of an evicted leaf."""
        del start_pos
        self.free += len(freed)


def hits_of(columns: TraceColumns, num_blocks: int) -> list[int]:
    """Blocks that each prompt finds: it is matched, what it found is locked while room is made, and it is inserted.

    A block stands for one of the cache's tokens: the cache asks of them only whether they are equal.
    """
    room = Room(num_blocks)
    cache = RadixCache.create_simulated(mock_allocator=room)
    cache.metrics_collector = None
    hits = []
    for start, end in pairwise(columns.block_offsets):
        key = RadixKey(array("q", columns.block_ids[start:end].tolist()))
        found = cache.match_prefix(MatchPrefixParams(key=key))
        needed = len(key) - found.device_prefix_len
        if needed > room.free:
            cache.inc_lock_ref(found.last_device_node)
            cache.evict(EvictParams(num_tokens=needed - room.free))
            cache.dec_lock_ref(found.last_device_node)
        room.free -= needed
        cache.insert(InsertParams(key=key))
        hits.append(found.device_prefix_len)
    return hits


def main() -> None:
    """Record every size, and say of each whether kvbench finds the same blocks in every request."""
    parser = argparse.ArgumentParser(description="Record what SGLang's RadixCache finds of a trace's prompts.")
    parser.add_argument("out", type=Path, help="gzipped JSON: blocks found of each request, by size; written whole")
    parser.add_argument("--trace", type=Path, help=f"{FILE}; default: in the folder that {FOLDER_VARIABLE} names")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help=f"blocks held: {SIZES}")
    arguments = parser.parse_args()
    path = arguments.trace or Path(os.environ.get(FOLDER_VARIABLE, "traces")) / FILE
    columns = read_trace(path, "mooncake")
    tree = plant(columns)
    longest = int(tree.num_blocks.max())
    if min(arguments.sizes) < longest:
        raise SystemExit(f"sizes hold the longest prompt, of {longest} blocks; got {min(arguments.sizes)}")
    found = {size: hits_of(columns, size) for size in arguments.sizes}
    made = {"engine": "sglang", "version": version("sglang"), "trace": path.name, "policy": "lru", "hit_blocks": found}
    write_whole(arguments.out, lambda out: out.write_bytes(gzip.compress(json.dumps(made).encode(), mtime=0)))
    for size, theirs in found.items():
        ours = replay(tree, sizes=[size], policy="lru", reuse="radix").hit_blocks[0]
        apart = np.flatnonzero(ours != theirs)
        verdict = f"equal in {len(theirs):,} requests"
        if apart.size:
            first = int(apart[0])
            verdict = (
                f"{apart.size:,} requests DIFFER, first request {first}: ours {ours[first]}, theirs {theirs[first]}"
            )
        print(f"{size:,} blocks: {sum(theirs):,} of {tree.nodes.size:,} found; {verdict}")


if __name__ == "__main__":
    main()
