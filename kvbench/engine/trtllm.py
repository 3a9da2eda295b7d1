"""TensorRT-LLM: blocks over all layers, of a share of what is free."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from kvbench.checks import check_bound, check_flag, check_share
from kvbench.engine.base import Engine, capped
from kvbench.engine.memory import RankMemory, trtllm_memory
from kvbench.engine.pool import Need, Pool, SubPool
from kvbench.engine.scheduling import STEP_SEQUENCES, STEP_TOKENS, Scheduling
from kvbench.engine.version import since
from kvbench.model.accelerator import Accelerator
from kvbench.model.groups import FULL, STATE
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.tried import Tried

NEWEST = "1.2"
STEP_S, COMPUTE_SHARE = 5e-4, 0.84
"""Host time of a step, and what products reach of the rate of vLLM's: of Llama-3.1-8B in bfloat16 on an H100 by
TensorRT-LLM 1.0.0rc3, in half of the closed loops that aiconfigurator publishes; fitted by `benchmarks/host_time.py`.
"""
TORCH = "1.0"
COMPILED_BEFORE = "1.0.0rc1"
"""Versions that run torch's modules; what the engines before them reach, those loops do not say."""


@dataclass(frozen=True, kw_only=True)
class TensorRTLLM(Engine):
    """TensorRT-LLM, with its flags; None is what its server takes for that version.

    Args:
        version: whose rules hold, such as "1.0"; None: the newest that is known here.
        step_s: host time of a step that the device waits for, in seconds; 5e-4.
        compute_share: of the rate at which vLLM's measured kernels multiply 16 bits, what its own reach; 0.84, of
            versions before 1.0 all.
        free_gpu_memory_fraction: of the memory that weights and a profiled step leave free; 0.9.
        tokens_per_block: 32; before 1.0 64.
        max_seq_len: the longest sequence; the model's own limit.
        max_batch_size: sequences of a step; 2,048. Layers with states have room for as many.
        max_num_tokens: tokens of a step; 8,192.
        enable_chunked_prefill: compute a prompt that a step has no room for in several.
        max_tokens: tokens of the pool, at most.
        enable_block_reuse: keep blocks for later requests.
    Raises:
        ValueError: a value is out of its range.
    Source: TensorRT-LLM 1.0, tensorrt_llm/llmapi/llm_args.py (KvCacheConfig) and
        tensorrt_llm/_torch/pyexecutor/resource_manager.py.
    Departs: windows are kept whole, as without max_attention_window.
    """

    free_gpu_memory_fraction: float | None = None
    tokens_per_block: Annotated[int | None, Tried(choices=(16, 32, 64, 128))] = None
    max_seq_len: int | None = None
    max_batch_size: Annotated[int | None, Tried(choices=STEP_SEQUENCES)] = None
    max_num_tokens: Annotated[int | None, Tried(choices=STEP_TOKENS)] = None
    enable_chunked_prefill: Annotated[bool, Tried(choices=(False, True))] = False
    max_tokens: int | None = None
    enable_block_reuse: bool = True

    name: ClassVar[str] = "trtllm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.free_gpu_memory_fraction is not None:
            check_share("engine.free_gpu_memory_fraction", self.free_gpu_memory_fraction)
        for key in ("tokens_per_block", "max_seq_len", "max_batch_size", "max_num_tokens", "max_tokens"):
            check_bound(f"engine.{key}", getattr(self, key))
        for key in ("enable_chunked_prefill", "enable_block_reuse"):
            check_flag(f"engine.{key}", getattr(self, key))

    @property
    def host_s(self) -> float | None:
        """What is said, or STEP_S."""
        return STEP_S if self.step_s is None else self.step_s

    @property
    def reaches(self) -> float:
        """What is said, or COMPUTE_SHARE."""
        is_told = self.compute_share is not None or not since(self.version or NEWEST, COMPILED_BEFORE)
        return super().reaches if is_told else COMPUTE_SHARE

    @property
    def scheduling(self) -> Scheduling:
        """Decoding sequences, and prompts in what they leave of a step's tokens; whoever is admitted stays
        (GUARANTEED_NO_EVICT)."""
        return Scheduling(
            tokens=self.max_num_tokens,
            sequences=self.max_batch_size,
            chunks=self.enable_chunked_prefill,
            counts_decode=True,
            evicts=False,
        )

    @property
    def caches_prefixes(self) -> bool:
        """As enable_block_reuse says."""
        return self.enable_block_reuse

    def resolved(self, hardware: Accelerator | None, model: Model, parallel: Parallel | None = None) -> Self:
        """The same with a value for each setting that was left to TensorRT-LLM; max_seq_len where the model says it."""
        version = self.version or NEWEST
        return replace(
            self,
            version=version,
            free_gpu_memory_fraction=self.free_gpu_memory_fraction or 0.9,
            tokens_per_block=self.tokens_per_block or (32 if since(version, TORCH) else 64),
            max_seq_len=self.max_seq_len or model.max_tokens,
            max_batch_size=self.max_batch_size or 2_048,
            max_num_tokens=self.max_num_tokens or 8_192,
        )

    def memory(self, rank: Model, hardware: Accelerator, parallel: Parallel | None = None) -> RankMemory:
        """A share of what weights and a profiled step leave free."""
        parallel = parallel or Parallel()
        settings = self.resolved(hardware, rank, parallel)
        return trtllm_memory(
            rank,
            hardware,
            parallel,
            free_gpu_memory_fraction=settings.free_gpu_memory_fraction or 1.0,
            max_num_tokens=settings.max_num_tokens or 0,
        )

    def pool(self, rank: Model, available_bytes: int, parallel: Parallel | None = None) -> Pool:
        """The pool: states of max_batch_size sequences, the rest in blocks of all layers.

        Raises:
            ValueError: the model's longest context is not known, or no layer holds a token.
        """
        settings, ranks = self.resolved(None, rank, parallel), (parallel or Parallel()).decode_context
        max_model_len, block_tokens = capped(settings.max_seq_len, rank), settings.tokens_per_block or 1
        available_bytes, parts = max(available_bytes, 0), []
        if rank.state_bytes:
            slots = min(settings.max_batch_size or 0, available_bytes // rank.state_bytes)
            need = Need(kind=STATE, num_groups=1, block_tokens=0, extra=1)
            parts.append(SubPool(name="states", num_blocks=slots, block_bytes=rank.state_bytes, needs=(need,)))
            available_bytes -= slots * rank.state_bytes
        block_bytes = block_tokens * rank.bytes_per_token
        if not block_bytes:
            raise ValueError(f"model {rank.name}: no layer of it holds tokens, so TensorRT-LLM has no blocks of them")
        need = Need(kind=FULL, num_groups=1, block_tokens=block_tokens, ranks=ranks)
        num_blocks = available_bytes // block_bytes
        if settings.max_tokens is not None:
            num_blocks = min(num_blocks, settings.max_tokens // block_tokens)
        parts.insert(0, SubPool(name="blocks", num_blocks=num_blocks, block_bytes=block_bytes, needs=(need,)))
        return Pool(
            parts=tuple(parts),
            rank=rank,
            ranks=ranks,
            block_tokens=block_tokens,
            num_groups=1,
            num_tokens=num_blocks * block_tokens * ranks,
            max_concurrency=min(part.num_blocks / part.blocks_of(max_model_len) for part in parts),
            max_model_len=max_model_len,
        )
