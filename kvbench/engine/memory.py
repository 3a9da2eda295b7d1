"""Where a rank's memory goes in a serving engine, and what it leaves for the cache."""

import math
from dataclasses import dataclass
from fractions import Fraction

from kvbench.engine.profiling import body_bytes, expert_width, graphs_bytes, sampler_bytes
from kvbench.engine.version import since
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.groups import LATENT
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.weights import WeightPart

MIB, GIB = 2**20, 2**30
TRITON_SAMPLER, GRAPHS_BUDGETED = "0.17", "0.21"
SORTED_LOGIT_BYTES, LOGIT_BYTES = 38, 10
"""Of a logit while a token is sampled. Sorted: itself in 16 and 32 bits, values and places sorted, the sort's copies of
both, shares, and their sums. Without a sort: itself in 16 and 32 bits, and its share.
"""
WORKSPACE_BYTES = 64 * MIB
"""Of matrix products on Hopper and later: cuBLAS's 32 MiB, and as much of its light form. Before that it is 8 MiB."""
PER_NEIGHBOUR_BYTES, MOST_NEIGHBOURS = int(0.42 * GIB), 4
"""What ranks' communication takes a neighbour, in vLLM, after it looked at what is free first: printed 0.55 GiB of 2
ranks, 1.84 of 4, 1.63 of 8. Fitted to these, within 0.4 GiB.
"""
KERNELS_BYTES = int(0.14 * GIB)
"""What loading kernels takes beyond torch's books: printed 0.13 and 0.14 GiB on H100 (0.02 to 0.35 elsewhere)."""
SGLANG_CONTEXT_BYTES, TRTLLM_CONTEXT_BYTES = int(0.75 * GIB), int(1.25 * GIB)
"""What a process has taken before the engine looks at what is free: SGLang printed 78.43 of 79.18 GiB free; that of
TensorRT-LLM is from one printed cache. In both so much a neighbour beside it:
"""
NEIGHBOUR_BYTES = GIB // 2


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """A rank's memory: available_bytes is budget_bytes less all that stands between.

    Args:
        total_bytes: the accelerator's, as a process is told.
        budget_bytes: what the engine shares out of it.
        weights_bytes: weights as loaded, with their scales and tables of positions.
        activation_bytes: the peak of a profiled step; 0 where the engine leaves it to what is outside the budget.
        graphs_bytes: CUDA graphs, the same.
        runtime_bytes: what is outside torch's books: context, kernels, communication.
        available_bytes: left for the cache; below 0 where the rest does not fit.
    """

    total_bytes: int
    budget_bytes: int
    weights_bytes: int
    activation_bytes: int = 0
    graphs_bytes: int = 0
    runtime_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        """Left for the cache; below 0 where the rest does not fit."""
        taken = self.weights_bytes + self.activation_bytes + self.graphs_bytes + self.runtime_bytes
        return self.budget_bytes - taken


def loaded_bytes(rank: Model) -> int:
    """Weights of a rank as they lie in memory: its parameters, what kernels pad, and sines and cosines of positions.

    Source: vLLM, model_executor/layers/rotary_embedding: Llama-3.1-8B printed 14.9888 GiB, of which 0.0313 are these;
        layers/quantization/mxfp4.py: experts of MXFP4 are padded to 256 of the hidden state and 128 of their width,
        which makes those of gpt-oss an eleventh larger.
    """
    widths = [
        group.key_dim - group.value_dim if group.kind == LATENT else group.key_dim
        for group in rank.groups
        if group.holds_tokens
    ]
    padding = sum(_padding_bytes(part, rank.hidden_size) for part in rank.weights if part.dtype == "mxfp4")
    return (
        rank.weights_bytes
        + math.ceil(padding)
        + (rank.max_tokens or 0) * max(widths, default=0) * DTYPE_BYTES[rank.dtype]
    )


def drafter_bytes(rank: Model, num_layers: int) -> int:
    """Weights of a drafter of layers like the model's own, in 16 bits: a mean layer's, and a product of its two inputs.

    Embedding and head are the model's. Source: vLLM, model_executor/models/deepseek_mtp.py and qwen3_next_mtp.py.
    """
    size = DTYPE_BYTES[rank.dtype]
    of_layers = sum(part.total for part in rank.weights if part.layers)
    each = of_layers // max(rank.num_layers, 1) + 2 * rank.hidden_size**2
    return num_layers * size * each


def _padding_bytes(part: WeightPart, hidden_size: int) -> Fraction:
    width = expert_width(part, hidden_size)
    if not width:
        return Fraction()
    padded = -(-hidden_size // 256) * 256 * -(-width // 128) * 128
    return part.num_bytes * (Fraction(padded, hidden_size * width) - 1)


def vllm_memory(
    rank: Model,
    hardware: Accelerator,
    parallel: Parallel,
    *,
    version: str,
    gpu_memory_utilization: float,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    enforce_eager: bool = False,
    drafter_layers: int = 0,
) -> RankMemory:
    """A share of all memory, less weights, the peak of a profiled step, what is outside torch, and since 0.21 graphs.

    Args:
        rank: the model of the rank that holds most.
        hardware: the accelerator.
        parallel: how the model is laid over several.
        version: whose rules hold.
        gpu_memory_utilization: the share.
        max_num_batched_tokens: tokens of the profiled step.
        max_num_seqs: sequences that it samples for.
        enforce_eager: no graphs are captured.
        drafter_layers: layers of a drafter like the model's own.
    Source: vLLM, vllm/v1/worker/gpu_worker.py (determine_available_memory) and vllm/utils/mem_utils.py at 35d5cda1.
    Departs: encoders of images are not profiled; adapters are not regarded.
    """
    a_logit = LOGIT_BYTES if since(version, TRITON_SAMPLER) else SORTED_LOGIT_BYTES
    sampled = sampler_bytes(rank, max_num_seqs, max_num_batched_tokens, a_logit)
    has_graphs = since(version, GRAPHS_BUDGETED) and not enforce_eager
    neighbours = min(parallel.num_ranks - 1, MOST_NEIGHBOURS)
    return RankMemory(
        total_bytes=hardware.memory_bytes,
        budget_bytes=int(hardware.memory_bytes * gpu_memory_utilization),
        weights_bytes=loaded_bytes(rank) + drafter_bytes(rank, drafter_layers),
        activation_bytes=max(body_bytes(rank, max_num_batched_tokens), sampled) + WORKSPACE_BYTES,
        graphs_bytes=graphs_bytes(rank, max_num_seqs) if has_graphs else 0,
        runtime_bytes=KERNELS_BYTES + neighbours * PER_NEIGHBOUR_BYTES,
    )


def sglang_memory(
    rank: Model,
    hardware: Accelerator,
    parallel: Parallel,
    *,
    mem_fraction_static: float,
    drafter_layers: int = 0,
) -> RankMemory:
    """What is free after loading, less the share of what was free before that is left for steps and graphs.

    Args:
        rank: the model of the rank that holds most.
        hardware: the accelerator.
        parallel: how the model is laid over several.
        mem_fraction_static: the share for weights and cache.
        drafter_layers: layers of a drafter like the model's own.
    Source: SGLang 0.5.23, srt/model_executor/pool_configurator.py.
    Departs: nothing is kept for encoders of images.
    """
    runtime_bytes = SGLANG_CONTEXT_BYTES + (parallel.num_ranks - 1) * NEIGHBOUR_BYTES
    free_bytes = hardware.memory_bytes - runtime_bytes
    return RankMemory(
        total_bytes=hardware.memory_bytes,
        budget_bytes=hardware.memory_bytes - int(free_bytes * (1 - mem_fraction_static)),
        weights_bytes=loaded_bytes(rank) + drafter_bytes(rank, drafter_layers),
        runtime_bytes=runtime_bytes,
    )


def trtllm_memory(
    rank: Model, hardware: Accelerator, parallel: Parallel, *, free_gpu_memory_fraction: float, max_num_tokens: int
) -> RankMemory:
    """A share of what weights and a profiled step leave free.

    Args:
        rank: the model of the rank that holds most.
        hardware: the accelerator.
        parallel: how the model is laid over several.
        free_gpu_memory_fraction: the share.
        max_num_tokens: tokens of the profiled step.
    Source: TensorRT-LLM 1.0, tensorrt_llm/_torch/pyexecutor/_util.py (KvCacheCreator).
    Departs: logits of the profiled step are those of its last tokens, and not regarded.
    """
    weights_bytes, activation_bytes = loaded_bytes(rank), body_bytes(rank, max_num_tokens) + WORKSPACE_BYTES
    runtime_bytes = TRTLLM_CONTEXT_BYTES + (parallel.num_ranks - 1) * NEIGHBOUR_BYTES
    free_bytes = hardware.memory_bytes - weights_bytes - activation_bytes - runtime_bytes
    return RankMemory(
        total_bytes=hardware.memory_bytes,
        budget_bytes=hardware.memory_bytes - int(max(free_bytes, 0) * (1 - free_gpu_memory_fraction)),
        weights_bytes=weights_bytes,
        activation_bytes=activation_bytes,
        runtime_bytes=runtime_bytes,
    )


def ideal_memory(rank: Model, hardware: Accelerator) -> RankMemory:
    """All that weights leave."""
    return RankMemory(
        total_bytes=hardware.memory_bytes, budget_bytes=hardware.memory_bytes, weights_bytes=rank.weights_bytes
    )
