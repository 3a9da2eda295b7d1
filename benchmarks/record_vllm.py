"""Record step by step what an installed vLLM's scheduler and block pool do, without a GPU.

Run as `python benchmarks/record_vllm.py OUT.json.gz`, with vLLM importable; see README.md beside this file. Scheduler,
KV cache manager and the configurations of scheduling, cache and parallelism are the wheel's own, and no module of it is
replaced. What a model and a GPU would say is said here: that nothing is multimodal, pooled or speculated, that steps do
not overlap, and which token each request gets next.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import vllm
from record_workload import Asked, Shape, drawn, interned, recorded
from vllm.config import CacheConfig, ObservabilityConfig, ParallelConfig, SchedulerConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, MambaSpec, SlidingWindowSpec
from vllm.v1.metrics.stats import PrefixCacheStats
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from kvbench.files import write_whole

Step = list[Any]

_LEAST = {
    "num_blocks": 2,
    "block_size": 1,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "max_model_len": 2,
    "window": 0,
    "states": 0,
    "state_interval": 0,
    "window_interval": 0,
}
_UNSAID = {"states": 0, "state_interval": 0, "window_interval": 1}
"""What a recording does not say, as it is of most."""
_MODEL_IS_NOT = (
    "uses_mrope",
    "is_encoder_decoder",
    "is_diffusion",
    "supports_multimodal_inputs",
    "return_sampling_mask",
)
_CONFIGURED_NOT = (
    "lora_config",
    "kv_events_config",
    "kv_transfer_config",
    "ec_transfer_config",
    "speculative_config",
)
_TOKENS_AHEAD = (
    "num_speculative_tokens",
    "num_lookahead_tokens",
    "num_prefill_lookahead_tokens",
    "num_hash_lookahead_tokens",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """How the engine is set up; the fields are the keys of a recording.

    Args:
        num_blocks: of the pool, the null block among them.
        block_size: tokens of a block.
        max_num_seqs: requests that run at most.
        max_num_batched_tokens: tokens of a step at most.
        max_model_len: of a prompt and its answer at most.
        window: 0 for one group of full attention; else a second group that sees so many tokens.
        states: 1 for a second group that holds states, in blocks as large as the first one's; else 0.
        state_interval: tokens between states that are kept beside those that prompts are gone on from, a multiple of a
            block's; 0: none.
        window_interval: tokens between ends of windows that are kept beside those that prompts are gone on from, as of
            states; fewer than a block's: all, 0: none.
        prefix_caching: whether blocks are found again by content.
    """

    num_blocks: int = 120
    block_size: int = 16
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 256
    max_model_len: int = 2048
    window: int = 0
    states: int = 0
    state_interval: int = 0
    window_interval: int = 1
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}, got {getattr(self, name)}")
        if self.states > 1 or (self.states and self.window):
            raise ValueError(f"a second group has states or a window, got states={self.states}, window={self.window}")
        for name in ("state_interval", "window_interval"):
            interval = getattr(self, name)
            if interval >= self.block_size and interval % self.block_size:
                raise ValueError(f"{name} is a multiple of block_size, or less, got {interval}")


def scheduler_of(engine: Engine) -> Scheduler:
    """vLLM's own scheduler over its own pool, with its defaults but for steps that overlap, and windows as said."""
    cache = CacheConfig(block_size=engine.block_size, enable_prefix_caching=engine.prefix_caching)
    cache.num_gpu_blocks = engine.num_blocks
    if engine.states:
        cache.mamba_cache_mode = "align" if engine.prefix_caching else "none"
    model = SimpleNamespace(
        max_model_len=engine.max_model_len, runner_type="generate", **dict.fromkeys(_MODEL_IS_NOT, False)
    )
    config = SimpleNamespace(
        **dict.fromkeys(_CONFIGURED_NOT),
        **dict.fromkeys(_TOKENS_AHEAD, 0),
        scheduler_config=SchedulerConfig(
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=engine.max_model_len,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=cache,
        model_config=model,
        parallel_config=ParallelConfig(),
        observability_config=ObservabilityConfig(),
        ec_manager_config=SimpleNamespace(get_encoder_cache_manager_obj=lambda: None),
        aux_output_config=SimpleNamespace(enabled=False),
        is_mm_encoder_only=False,
        use_v2_model_runner=False,
        max_concurrent_batches=1,
        max_in_flight_tokens=engine.max_num_batched_tokens,
    )
    sizes = {"block_size": engine.block_size, "num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    groups = [KVCacheGroupSpec(["full"], FullAttentionSpec(**sizes))]
    if engine.window:
        groups.append(KVCacheGroupSpec(["window"], SlidingWindowSpec(**sizes, sliding_window=engine.window)))
    if engine.states:
        groups.append(KVCacheGroupSpec(["state"], _states(engine, groups[0].kv_cache_spec.page_size_bytes)))
    pool = KVCacheConfig(num_blocks=engine.num_blocks, kv_cache_tensors=[], kv_cache_groups=groups)
    interval = engine.state_interval if engine.states else engine.window_interval
    if len(groups) > 1 and not 0 < interval < engine.block_size:  # else every full block keeps its name
        pool.prefix_cache_retention_interval = interval
    return Scheduler(config, pool, SimpleNamespace(accept_tokens=lambda *_: True), engine.block_size, log_stats=True)


def _states(engine: Engine, page_bytes: int) -> MambaSpec:
    """States of one number, in pages as large as others; with one block for the longest request if none is kept."""
    return MambaSpec(
        block_size=engine.block_size if engine.prefix_caching else engine.max_model_len,
        shapes=((1,),),
        dtypes=(torch.float32,),
        page_size_padded=page_bytes,
        mamba_cache_mode="align" if engine.prefix_caching else "none",
    )


def steps_of(scheduler: Scheduler, asked: list[Asked], engine: Engine) -> Iterator[tuple[Step, PrefixCacheStats]]:
    """Serve a workload: of each step tokens scheduled a request, requests preempted, free blocks after it; its hits."""
    init_none_hash(sha256)
    hasher = get_request_block_hasher(engine.block_size, sha256) if engine.prefix_caching else None
    coming = list(enumerate(asked))[::-1]
    step = 0
    while coming or scheduler.has_unfinished_requests():
        while coming and coming[-1][1].arrival_step <= step:
            number, request = coming.pop()
            sampling = SamplingParams(max_tokens=len(request.answer), ignore_eos=True)
            scheduler.add_request(Request(str(number), list(request.prompt), sampling, None, block_hasher=hasher))
        decided = scheduler.schedule()
        scheduled = decided.num_scheduled_tokens
        found = scheduler.kv_cache_manager.make_prefix_cache_stats()
        _answer(scheduler, decided, asked)
        preempted = sorted(int(name) for name in decided.preempted_req_ids)
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        yield [[[int(name), tokens] for name, tokens in scheduled.items()], preempted, free], found
        if not (coming or scheduled or preempted):
            print(f"{scheduler.get_num_unfinished_requests()} requests will never be admitted: nothing runs any more")
            return
        step += 1


def _answer(scheduler: Scheduler, decided: Any, asked: list[Asked]) -> None:
    """What a model would give: the next token of each request that has computed all that it has."""
    names = list(decided.num_scheduled_tokens)
    chosen = []
    for name in names:
        request = scheduler.requests[name]
        ready = request.num_computed_tokens == request.num_tokens
        chosen.append([asked[int(name)].answer[request.num_output_tokens]] if ready else [])
    places = {name: place for place, name in enumerate(names)}
    scheduler.update_from_output(decided, ModelRunnerOutput(names, places, chosen))


def record(engine: Engine, asked: list[Asked]) -> dict:
    """A whole recording, as a file holds it."""
    steps, found = zip(*steps_of(scheduler_of(engine), asked, engine), strict=True)
    return {
        "engine": "vllm",
        "version": vllm.__version__,
        **{name: value for name, value in asdict(engine).items() if value != _UNSAID.get(name)},
        "queried_tokens": sum(step.queries for step in found),
        "hit_tokens": sum(step.hits for step in found),
        "requests": [
            {
                "arrival_step": request.arrival_step,
                "prompt_tokens": len(request.prompt),
                "output_tokens": len(request.answer),
                "block_ids": ids,
            }
            for request, ids in zip(asked, interned(asked, engine.block_size), strict=True)
        ],
        "steps": list(steps),
    }


def bounds(text: str) -> tuple[int, int]:
    """Fewest and most: `30,400`."""
    low, high = (int(part) for part in text.split(","))
    if not 1 <= low <= high:
        raise argparse.ArgumentTypeError(f"fewest and most, as in 30,400, at least 1 and in order; got {text}")
    return low, high


def _arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Record what vLLM's scheduler and block pool do, step by step.")
    parser.add_argument("out", type=Path, help="the recording, gzipped JSON; written whole or not at all")
    parser.add_argument("--like", type=Path, help="take workload and engine from a recording, and say if all is equal")
    for kind in (Engine, Shape):
        for field in fields(kind):
            if field.name in ("prefix_caching", "max_tokens"):
                continue
            many = isinstance(field.default, tuple)
            shown = ",".join(map(str, field.default)) if many else str(field.default)
            reads = bounds if many else type(field.default)
            flag = f"--{field.name.replace('_', '-')}"
            parser.add_argument(flag, type=reads, default=field.default, metavar="N,N" if many else "N", help=shown)
    parser.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false", help="reuse nothing")
    return vars(parser.parse_args())


def main() -> None:
    """Record one workload."""
    chosen = _arguments()
    out, like = chosen.pop("out"), chosen.pop("like")
    given = json.loads(gzip.decompress(like.read_bytes())) if like else chosen
    try:
        engine = Engine(**{field.name: given[field.name] for field in fields(Engine) if field.name in given})
        shape = {field.name: chosen[field.name] for field in fields(Shape) if field.name in chosen}
        asked = (
            recorded(given["requests"], engine.block_size)
            if like
            else drawn(Shape(**shape, max_tokens=engine.max_model_len))
        )
    except ValueError as error:
        raise SystemExit(str(error)) from None
    made = record(engine, asked)
    text = json.dumps(made, separators=(",", ":"))
    write_whole(out, lambda path: path.write_bytes(gzip.compress(text.encode(), mtime=0)))
    preemptions = sum(len(step[1]) for step in made["steps"])
    hits = f"{made['hit_tokens']:,} of {made['queried_tokens']:,} tokens hit"
    print(f"{out}: {len(asked):,} requests, {len(made['steps']):,} steps, {preemptions:,} preemptions, {hits}")
    if like:
        print(f"{'equal to' if made == given else 'DIFFERS from'} {like}")


if __name__ == "__main__":
    main()
