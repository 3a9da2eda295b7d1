"""vLLM: one pool of blocks for all groups of layers, with pages made equal."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from kvbench.checks import check_bound, check_flag, check_int, check_one_of, check_share
from kvbench.engine.base import Engine, capped
from kvbench.engine.blocks import layers_of, pool_of, with_drafter
from kvbench.engine.memory import RankMemory, vllm_memory
from kvbench.engine.pool import Pool
from kvbench.engine.scheduling import STEP_SEQUENCES, STEP_TOKENS, Scheduling
from kvbench.engine.version import since
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import KV_BITS
from kvbench.model.groups import CHUNKED, LATENT, STATE
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.tried import Tried

NEWEST = "0.33"
V1, V1_BY_DEFAULT = "0.6.6", "0.8"
HYBRID_POOL, CHUNKS_WHOLE = "0.9.1", "0.10.1"
PROMPTS_FIT = "0.19"
SHARE_RAISED = "0.20"
TOKENS_BY_CONCURRENCY = "0.20.2rc1.dev129"
STATES_CACHED = "0.26"
STATES_CHECKED = "0.17"
STATES_SPARSE = "0.29"
EVERY_ONE = 1
"""Tokens between states and windows that are kept, fewer than a block's."""
ASYNC_BY_DEFAULT, IN_FLIGHT_HELD = "0.14", "0.26"
BATCHES_AHEAD = 2
"""Steps that are under way at once where the next is scheduled before the last is done."""
LARGE_BYTES, LARGEST_BYTES = 70 * 2**30, 160 * 2**30
LARGEST_STEPS, GB10_IS_SMALL = "0.29", "0.33"
LATENT_PAGES, GROUPS_RELAXED = "0.27", "0.18"
LATENT_PAGE_TOKENS = 128
"""Of which a block is a multiple where latents and states share pages."""
MOST_RATIO, OLD_MOST_RATIO = 1.5, 1.25
STATE_BLOCKS = {"none": 1, "align": 2, "all": 0}
"""Of a sequence, by mamba_cache_mode: the state; one before it, to go back to; one every block of tokens."""
SWITCHES = ("enable_chunked_prefill", "async_scheduling", "enable_prefix_caching", "disable_hybrid_kv_cache_manager")
METHODS = ("mtp", "eagle", "eagle3", "ngram", "dflash", "draft_model")
OF_ONE_LAYER = ("mtp", "eagle", "eagle3")
KERNEL_TOKENS, LATENT_KERNEL_TOKENS = 16, 64
SCAN_TOKENS = 256
"""Tokens that a state's kernel takes at once, which checkpoints keep to."""


@dataclass(frozen=True, kw_only=True)
class VLLM(Engine):
    """vLLM, with its flags; None is what its server takes for that version and hardware.

    Args:
        version: whose rules hold, such as "0.20.2"; None: the newest that is known here.
        step_s: host time of a step that the device waits for, in seconds; with async_scheduling none.
        compute_share: of the rate at which measured kernels multiply 16 bits, what its own reach; all.
        gpu_memory_utilization: share of the accelerator's memory that it may use; 0.9, since 0.20 0.92.
        max_model_len: the longest sequence; the model's own limit.
        max_num_batched_tokens: tokens of a step; 8,192 from 70 GiB up and not on an A100, else 2,048; since 0.29 16,384
            from 160 GiB up.
        max_num_seqs: sequences of a step; 1,024 there, else 256.
        enable_chunked_prefill: compute a prompt that a step has no room for in several; on since 0.8.
        async_scheduling: schedule a step before the last is done; on since 0.14.
        block_size: tokens of a block; 16, of latent caches 64. Layers with states raise it.
        num_gpu_blocks: blocks of the pool, whatever the memory (--num-gpu-blocks-override).
        enable_prefix_caching: keep blocks for later requests; on, but of models with states before 0.26.
        enforce_eager: capture no graphs.
        disable_hybrid_kv_cache_manager: keep the whole of windows and chunks beside full attention; before 0.9.1,
            and of chunks since 0.10.1.
        mamba_cache_mode: what a sequence holds of a state: "none", the state; "align", a checkpoint too; "all", one
            every block. "align" with prefix caching.
        mamba_block_size: tokens between the checkpoints of "all", before rounding; 256.
        prefix_cache_retention_interval: tokens between states, and between windows' ends, that prefix caching keeps
            beside those that prompts are gone on from; a block's, or fewer: all; 0: none. 0 since 0.29, before all.
        mamba_ssm_cache_dtype: of recurrent states; the model's.
        num_speculative_tokens: tokens that a drafter proposes.
        speculative_method: the drafter: "mtp" and "eagle" have a layer like the model's own of full attention, "ngram"
            has none; layers of others are groups of the model.
    Raises:
        ValueError: a value is out of its range.
    Source: vLLM, vllm/engine/arg_utils.py, vllm/config/cache.py and model.py, vllm/v1/core/kv_cache_utils.py,
        vllm/v1/kv_cache_interface.py and vllm/platforms/interface.py, at 001cabc1 and as of 0.13, 0.18 to 0.20, 0.22,
        0.25.1 to 0.27, 0.29, 0.31 and 0.33; of tokens in flight, vllm-project/vllm#47728 and #49878; of prompts that
        fit whole, #37307; of steps, what vLLM 0.33's own scheduler recorded of six workloads.
    Departs: no packed layout of unequal pages.
    """

    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: Annotated[int | None, Tried(choices=STEP_TOKENS)] = None
    max_num_seqs: Annotated[int | None, Tried(choices=STEP_SEQUENCES)] = None
    enable_chunked_prefill: Annotated[bool | None, Tried(choices=(True, False))] = None
    async_scheduling: bool | None = None
    block_size: Annotated[int | None, Tried(choices=(16, 32, 64, 128))] = None
    num_gpu_blocks: int | None = None
    enable_prefix_caching: bool | None = None
    enforce_eager: bool = False
    disable_hybrid_kv_cache_manager: bool | None = None
    mamba_cache_mode: str | None = None
    mamba_block_size: int | None = None
    prefix_cache_retention_interval: int | None = None
    mamba_ssm_cache_dtype: str | None = None
    num_speculative_tokens: int = 0
    speculative_method: str | None = None

    name: ClassVar[str] = "vllm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpu_memory_utilization is not None:
            check_share("engine.gpu_memory_utilization", self.gpu_memory_utilization)
        for key in ("max_model_len", "max_num_batched_tokens", "max_num_seqs", "block_size", "num_gpu_blocks"):
            check_bound(f"engine.{key}", getattr(self, key))
        check_bound("engine.mamba_block_size", self.mamba_block_size)
        if self.prefix_cache_retention_interval is not None:
            check_int("engine.prefix_cache_retention_interval", self.prefix_cache_retention_interval, 0)
        check_int("engine.num_speculative_tokens", self.num_speculative_tokens, 0)
        check_flag("engine.enforce_eager", self.enforce_eager)
        for key in SWITCHES:
            if getattr(self, key) is not None:
                check_flag(f"engine.{key}", getattr(self, key))
        for key, allowed in (
            ("mamba_cache_mode", tuple(STATE_BLOCKS)),
            ("mamba_ssm_cache_dtype", tuple(KV_BITS)),
            ("speculative_method", METHODS),
        ):
            if getattr(self, key) is not None:
                check_one_of(f"engine.{key}", getattr(self, key), allowed)

    @property
    def host_s(self) -> float | None:
        """What is said; where a step is scheduled while the last one runs, nothing.

        So it is in a log of vLLM 0.19.0 on an RTX 4090 (LLMServingSim's), see `benchmarks/host_time.py`.
        """
        hides = _first(self.async_scheduling, since(self.version or NEWEST, ASYNC_BY_DEFAULT))
        return 0.0 if self.step_s is None and hides else self.step_s

    @property
    def scheduling(self) -> Scheduling:
        """Decoding sequences first, and prompts in what they leave of a step's tokens."""
        version = self.version or NEWEST
        return Scheduling(
            tokens=self.max_num_batched_tokens,
            sequences=self.max_num_seqs,
            chunks=self.enable_chunked_prefill is not False,
            mixes=self.enable_chunked_prefill is not False,
            counts_decode=True,
            waits_for_end=not since(version, V1_BY_DEFAULT),
            fits_prompts=since(version, PROMPTS_FIT),
            plans_steps=since(version, V1_BY_DEFAULT),
        )

    @property
    def caches_prefixes(self) -> bool:
        """As --enable-prefix-caching says."""
        return self.enable_prefix_caching is True

    @property
    def state_interval(self) -> int:
        """As --prefix-cache-retention-interval says."""
        return self.prefix_cache_retention_interval or 0

    @property
    def window_interval(self) -> int:
        """As of states."""
        return self.state_interval

    def resolved(self, hardware: Accelerator | None, model: Model, parallel: Parallel | None = None) -> Self:
        """The same with a value for each setting that was left to vLLM; max_model_len where the model says it."""
        version = self.version or NEWEST
        has_state = any(group.kind == STATE for group in model.groups)
        has_latent = any(group.kind == LATENT for group in model.groups)
        # Chunks were slower with blocks of their own.
        has_chunks = any(group.kind == CHUNKED for group in model.groups) and since(version, CHUNKS_WHOLE)
        has_hybrid_pool = since(version, HYBRID_POOL) and not has_chunks
        max_model_len = self.max_model_len or model.max_tokens
        num_tokens, num_seqs = _step_limits(version, hardware, max_model_len)
        prefixes = _first(
            self.enable_prefix_caching, since(version, V1) and (not has_state or since(version, STATES_CACHED))
        )
        return replace(
            self,
            version=version,
            gpu_memory_utilization=self.gpu_memory_utilization or (0.92 if since(version, SHARE_RAISED) else 0.9),
            max_model_len=max_model_len,
            max_num_batched_tokens=self.max_num_batched_tokens or num_tokens,
            max_num_seqs=self.max_num_seqs or num_seqs,
            enable_chunked_prefill=_first(self.enable_chunked_prefill, since(version, V1_BY_DEFAULT)),
            async_scheduling=_first(self.async_scheduling, since(version, ASYNC_BY_DEFAULT)),
            block_size=self.block_size or _block_size(version, has_latent, has_state),
            enable_prefix_caching=prefixes,
            disable_hybrid_kv_cache_manager=_first(self.disable_hybrid_kv_cache_manager, not has_hybrid_pool),
            mamba_cache_mode=self.mamba_cache_mode or ("align" if prefixes else "none"),
            mamba_block_size=self.mamba_block_size or SCAN_TOKENS,
            prefix_cache_retention_interval=(
                (0 if since(version, STATES_SPARSE) else EVERY_ONE)
                if self.prefix_cache_retention_interval is None
                else self.prefix_cache_retention_interval
            ),
            speculative_method=self.speculative_method or ("mtp" if self.num_speculative_tokens else None),
        )

    def memory(self, rank: Model, hardware: Accelerator, parallel: Parallel | None = None) -> RankMemory:
        """A share of all memory, less weights, a profiled step, what is outside torch, and since 0.21 graphs."""
        parallel = parallel or Parallel()
        settings = self.resolved(hardware, rank, parallel)
        return vllm_memory(
            rank,
            hardware,
            parallel,
            version=settings.version or NEWEST,
            gpu_memory_utilization=settings.gpu_memory_utilization or 1.0,
            max_num_batched_tokens=settings.max_num_batched_tokens or 0,
            max_num_seqs=settings.max_num_seqs or 0,
            enforce_eager=settings.enforce_eager,
            drafter_layers=int(settings.speculative_method in OF_ONE_LAYER),
        )

    def pool(self, rank: Model, available_bytes: int, parallel: Parallel | None = None) -> Pool:
        """The pool: blocks of equal pages, of which each group of layers takes its own.

        Raises:
            ValueError: the model's longest context is not known, or windows and ranks that divide tokens meet.
        """
        resolved, parallel = self.resolved(None, rank, parallel), parallel or Parallel()
        max_model_len = capped(resolved.max_model_len, rank)
        rank = with_drafter(rank, int(resolved.speculative_method in OF_ONE_LAYER))
        layers = layers_of(
            rank,
            max_model_len=max_model_len,
            block_size=resolved.block_size or KERNEL_TOKENS,
            mode=resolved.mamba_cache_mode or "none",
            mamba_block_size=resolved.mamba_block_size or SCAN_TOKENS,
            state_dtype=resolved.mamba_ssm_cache_dtype,
            num_drafts=resolved.num_speculative_tokens,
            whole_windows=resolved.disable_hybrid_kv_cache_manager or False,
        )
        version = resolved.version or NEWEST
        batches = max(BATCHES_AHEAD if resolved.async_scheduling else 1, parallel.pipeline)
        batches = batches if since(version, IN_FLIGHT_HELD) else 1
        return pool_of(
            rank,
            layers,
            available_bytes,
            num_blocks=resolved.num_gpu_blocks,
            max_model_len=max_model_len,
            scheduled_tokens=batches * (resolved.max_num_batched_tokens or 0),
            state_blocks=STATE_BLOCKS[resolved.mamba_cache_mode or "none"],
            num_drafts=resolved.num_speculative_tokens,
            ranks=parallel.decode_context,
            most_ratio=MOST_RATIO if since(version, GROUPS_RELAXED) else OLD_MOST_RATIO,
            held_back=int(since(version, V1_BY_DEFAULT)),
            by_concurrency=since(version, TOKENS_BY_CONCURRENCY),
        )

    def notes(self, pool: Pool) -> tuple[str, ...]:
        """Each sequence of a graph needs a block for its states: more sequences than blocks are refused."""
        limit, has_state = self.max_num_seqs or 0, any(group.kind == STATE for group in pool.rank.groups)
        is_checked = has_state and not self.enforce_eager and since(self.version or NEWEST, STATES_CHECKED)
        if not is_checked or not 0 < pool.num_blocks < limit:
            return ()
        return (
            f"vLLM does not start with max_num_seqs {limit:,} and {pool.num_blocks:,} blocks, since each sequence has "
            f"one for its states: set engine.max_num_seqs={pool.num_blocks} at most, or engine.enforce_eager=true",
        )


def _first(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _block_size(version: str, has_latent: bool, has_state: bool) -> int:
    """Tokens of a block, or what a block's are a multiple of where states raise it."""
    if not has_latent:
        return KERNEL_TOKENS
    return LATENT_PAGE_TOKENS if has_state and since(version, LATENT_PAGES) else LATENT_KERNEL_TOKENS


def _step_limits(version: str, hardware: Accelerator | None, max_model_len: int | None) -> tuple[int, int]:
    """Tokens and sequences of a step."""
    if not since(version, V1_BY_DEFAULT):
        # Whole prompts in a step, up to the length from which they are cut.
        whole = max_model_len is not None and max_model_len <= 32_768  # noqa: PLR2004
        return max(max_model_len or 0, 2_048) if whole else 2_048, 256
    name = "" if hardware is None else hardware.name.lower()
    memory_bytes = 0 if hardware is None else hardware.memory_bytes
    if memory_bytes >= LARGEST_BYTES and since(version, LARGEST_STEPS):
        return 16_384, 1_024
    is_small = "a100" in name or ("gb10" in name and since(version, GB10_IS_SMALL))
    return (8_192, 1_024) if memory_bytes >= LARGE_BYTES and not is_small else (2_048, 256)
