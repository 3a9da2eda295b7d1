"""SGLang: a pool of tokens for full attention, one for windows, and slots for states."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from kvbench.checks import check_bound, check_flag, check_int, check_number, check_one_of, check_share
from kvbench.engine.base import Engine, capped
from kvbench.engine.blocks import GROWING, SPARSE_FP8_BYTES, state_bytes, with_drafter
from kvbench.engine.memory import RankMemory, sglang_memory
from kvbench.engine.pool import Need, Pool, SubPool
from kvbench.engine.scheduling import STEP_SEQUENCES, STEP_TOKENS, Scheduling
from kvbench.model.accelerator import Accelerator
from kvbench.model.groups import FULL, LATENT, SHARING, STATE, LayerGroup
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.tried import Tried

NEWEST = "0.5.23"
MIB = 2**20
BY_MEMORY = (
    (20, 2_048, 8, 8),
    (35, 4_096, 48, 160),
    (60, 4_096, 32, 160),
    (90, 8_192, 256, 512),
    (160, 8_192, 256, 512),
)
"""Below so many GiB: tokens of a chunk, sequences of the largest graph below 4 tensor ranks, and from 4 on."""
OF_MORE = (16_384, 512)
UNKNOWN = (4_096, 160)
EVICTION_TOKENS = 128
"""Tokens beyond a window after which it is cut (SGLANG_SWA_EVICTION_INTERVAL)."""
SLOTS_OF_SEQUENCE = 3
"""States of a sequence beside a prefix cache: its own, and checkpoints of what is cached."""
ALGORITHMS = ("EAGLE", "EAGLE3", "NEXTN", "NGRAM")
OF_ONE_LAYER = ("EAGLE", "EAGLE3", "NEXTN")
RAW, SCALED = "trtllm", "flashmla_kv"


@dataclass(frozen=True, kw_only=True)
class SGLang(Engine):
    """SGLang, with its flags; None is what its server takes for that version and hardware.

    Args:
        version: whose rules hold, such as "0.5.9"; None: the newest that is known here.
        step_s: host time of a step, in seconds; what the hardware's file says.
        compute_share: of the rate at which vLLM's measured kernels multiply 16 bits, what its own reach; all.
        mem_fraction_static: share of the free memory for weights and cache; what chunks and graphs leave.
        context_length: the longest sequence; the model's own limit.
        page_size: tokens of a page; 1.
        chunked_prefill_size: prompt tokens computed in a step; 2,048 to 16,384 by the accelerator's memory.
        enable_mixed_chunk: compute prompts beside decoding sequences, not alone.
        cuda_graph_max_bs: sequences of the largest graph; 8 to 512 by that memory.
        max_running_requests: sequences of a step; as many as fit.
        max_total_tokens: tokens of the pool, at most.
        swa_full_tokens_ratio: tokens of the windows' pool, a token of the full one; 0.8.
        disable_hybrid_swa_memory: keep the whole of windows.
        mamba_full_memory_ratio: memory for states over memory for tokens; 0.9.
        max_mamba_cache_size: slots for states, whatever that gives.
        disable_radix_cache: keep no prefixes: a sequence has one state.
        mamba_ssm_dtype: of recurrent states; the model's.
        dsa_decode_backend: of latent caches with an indexer: "trtllm", of Blackwell, keeps fp8 as it is, others with
            scales, 656 bytes.
        speculative_algorithm: the drafter: EAGLE and NEXTN have a layer of full attention, NGRAM has none.
        speculative_num_draft_tokens: tokens that are verified at once.
    Raises:
        ValueError: a value is out of its range.
    Source: SGLang 0.5.23, srt/model_executor/pool_configurator.py, srt/mem_cache/kv_cache_configurator.py and
        srt/arg_groups/memory_hook.py.
    Departs: no pool of DeepSeek V4's; no drafter with a shape of its own.
    """

    mem_fraction_static: float | None = None
    context_length: int | None = None
    page_size: Annotated[int | None, Tried(choices=(1, 16, 64))] = None
    chunked_prefill_size: Annotated[int | None, Tried(choices=STEP_TOKENS)] = None
    enable_mixed_chunk: Annotated[bool, Tried(choices=(False, True))] = False
    cuda_graph_max_bs: int | None = None
    max_running_requests: Annotated[int | None, Tried(choices=STEP_SEQUENCES)] = None
    max_total_tokens: int | None = None
    swa_full_tokens_ratio: float | None = None
    disable_hybrid_swa_memory: bool = False
    mamba_full_memory_ratio: float | None = None
    max_mamba_cache_size: int | None = None
    disable_radix_cache: bool = False
    mamba_ssm_dtype: str | None = None
    dsa_decode_backend: str | None = None
    speculative_algorithm: str | None = None
    speculative_num_draft_tokens: int = 0

    name: ClassVar[str] = "sglang"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("mem_fraction_static", "swa_full_tokens_ratio"):
            if getattr(self, key) is not None:
                check_share(f"engine.{key}", getattr(self, key))
        for key in ("context_length", "page_size", "chunked_prefill_size", "cuda_graph_max_bs", "max_running_requests"):
            check_bound(f"engine.{key}", getattr(self, key))
        for key in ("max_total_tokens", "max_mamba_cache_size"):
            check_bound(f"engine.{key}", getattr(self, key))
        for key in ("enable_mixed_chunk", "disable_hybrid_swa_memory", "disable_radix_cache"):
            check_flag(f"engine.{key}", getattr(self, key))
        if self.mamba_full_memory_ratio is not None:
            check_number("engine.mamba_full_memory_ratio", self.mamba_full_memory_ratio, 0, above=True)
        if self.speculative_algorithm is not None:
            check_one_of("engine.speculative_algorithm", self.speculative_algorithm, ALGORITHMS)
        check_int("engine.speculative_num_draft_tokens", self.speculative_num_draft_tokens, 0)

    @property
    def scheduling(self) -> Scheduling:
        """Prompts first and alone, unless their chunks are mixed with decoding sequences."""
        return Scheduling(
            tokens=self.chunked_prefill_size,
            sequences=self.max_running_requests,
            mixes=self.enable_mixed_chunk,
            counts_decode=self.enable_mixed_chunk,
        )

    @property
    def caches_prefixes(self) -> bool:
        """Unless --disable-radix-cache says no."""
        return not self.disable_radix_cache

    def resolved(self, hardware: Accelerator | None, model: Model, parallel: Parallel | None = None) -> Self:
        """The same with a value for each setting that was left to SGLang; context_length where the model says it."""
        parallel = parallel or Parallel()
        chunk, graph = _by_memory(hardware, parallel.tensor)
        chunk, graph = self.chunked_prefill_size or chunk, self.cuda_graph_max_bs or graph
        is_blackwell = hardware is not None and any(each in hardware.name for each in ("B200", "B300", "GB10"))
        return replace(
            self,
            version=self.version or NEWEST,
            mem_fraction_static=self.mem_fraction_static or _static_share(hardware, parallel, chunk, graph),
            context_length=self.context_length or model.max_tokens,
            page_size=self.page_size or 1,
            chunked_prefill_size=chunk,
            cuda_graph_max_bs=graph,
            swa_full_tokens_ratio=self.swa_full_tokens_ratio or 0.8,
            mamba_full_memory_ratio=self.mamba_full_memory_ratio or 0.9,
            dsa_decode_backend=self.dsa_decode_backend or (RAW if is_blackwell else SCALED),
        )

    def memory(self, rank: Model, hardware: Accelerator, parallel: Parallel | None = None) -> RankMemory:
        """What is free after loading, less what steps and graphs are left."""
        parallel = parallel or Parallel()
        share = self.resolved(hardware, rank, parallel).mem_fraction_static or 1.0
        drafter_layers = int(self.speculative_algorithm in OF_ONE_LAYER)
        return sglang_memory(rank, hardware, parallel, mem_fraction_static=share, drafter_layers=drafter_layers)

    def pool(self, rank: Model, available_bytes: int, parallel: Parallel | None = None) -> Pool:
        """The pools: states first, then tokens of full attention and of windows in their ratio.

        Raises:
            ValueError: the model's longest context is not known, or no layer holds a token.
        """
        settings = self.resolved(None, rank, parallel)
        ranks = (parallel or Parallel()).decode_context
        max_model_len = capped(settings.context_length, rank)
        rank = with_drafter(rank, int(settings.speculative_algorithm in OF_ONE_LAYER))
        available_bytes = max(available_bytes, 0)
        states = _states(settings, rank, available_bytes)
        if states is not None:
            available_bytes = max(available_bytes - states.num_blocks * states.block_bytes, 0)
        parts, num_tokens = _tokens(settings, rank, available_bytes, ranks)
        parts = parts if states is None else (*parts, states)
        return Pool(
            parts=parts,
            rank=rank,
            ranks=ranks,
            block_tokens=settings.page_size or 1,
            num_groups=len(parts),
            num_tokens=num_tokens * ranks,
            max_concurrency=min(part.num_blocks / part.blocks_of(max_model_len) for part in parts),
            max_model_len=max_model_len,
        )


def _by_memory(hardware: Accelerator | None, tensor: int) -> tuple[int, int]:
    """Tokens of a chunk and sequences of the largest graph."""
    if hardware is None:
        return UNKNOWN
    for below, chunk, few, many in BY_MEMORY:
        if hardware.memory_bytes < below * 2**30:
            return chunk, few if tensor < 4 else many  # noqa: PLR2004
    return OF_MORE


def _static_share(hardware: Accelerator | None, parallel: Parallel, chunk: int, graph: int) -> float:
    """What is kept free, in MiB: 1.5 a token of a chunk, 2 a sequence of a graph, 128 a rank; from 60 GiB up 10 GiB."""
    if hardware is None:
        return 0.88
    total = hardware.memory_bytes / MIB
    reserved = 512 + 1.5 * max(chunk, 2_048) + 2 * graph + 128 * parallel.num_ranks
    if total > 60 * 1_024:
        reserved = max(reserved, 10 * 1_024)
    return round((total - reserved) / total, 3)


def cell_bytes(groups: tuple[LayerGroup, ...], backend: str | None) -> int:
    """Bytes of a token in all layers of some groups."""
    return sum(group.num_layers * _layer_bytes(group, backend) for group in groups)


def _layer_bytes(group: LayerGroup, backend: str | None) -> int:
    if group.kind == LATENT and group.index_bytes and group.dtype.startswith("fp8") and backend != RAW:
        return SPARSE_FP8_BYTES + group.index_bytes
    return group.layer_token_bytes


def _states(settings: SGLang, rank: Model, available_bytes: int) -> SubPool | None:
    """Slots for states, of which one is no sequence's; None where there are none."""
    slot_bytes = sum(group.num_layers * state_bytes(group.state, settings.mamba_ssm_dtype) for group in rank.groups)
    if not slot_bytes:
        return None
    a_sequence = 1 if settings.disable_radix_cache else SLOTS_OF_SEQUENCE
    # A sequence that is being verified holds a state for each of its drafts beside these.
    drafts = settings.speculative_num_draft_tokens
    ratio = settings.mamba_full_memory_ratio or 0.0
    budget = int(available_bytes * ratio / (1 + ratio))
    slots = settings.max_mamba_cache_size
    if slots is None and settings.disable_radix_cache:
        slots = settings.max_running_requests
    if slots is None:
        slots = max(budget // slot_bytes - 1, 0) * a_sequence // (a_sequence + drafts)
    sequences, rest = divmod(slots, a_sequence)
    need = Need(kind=STATE, num_groups=1, block_tokens=0, extra=a_sequence + drafts)
    return SubPool(
        name="states",
        num_blocks=sequences * (a_sequence + drafts) + rest + 1 if slots else 0,
        block_bytes=slot_bytes,
        needs=(need,),
        held_back=1,
    )


def _tokens(settings: SGLang, rank: Model, available_bytes: int, ranks: int) -> tuple[tuple[SubPool, ...], int]:
    """Pools of tokens, and the tokens of the first."""
    page, backend = settings.page_size or 1, settings.dsa_decode_backend
    held = tuple(group for group in rank.groups if group.kind not in (STATE, SHARING))
    full = tuple(group for group in held if group.kind in GROWING or settings.disable_hybrid_swa_memory)
    windows = tuple(group for group in held if group not in full)
    if not held:
        raise ValueError(f"model {rank.name}: no layer of it holds tokens, so SGLang has no pool of them")
    most = settings.max_total_tokens or 2**62
    window_cell = cell_bytes(windows, backend)
    if not full:
        tokens = min(available_bytes // window_cell, most) // page * page
        return (_part("window", tokens, window_cell, page, ranks, windows),), tokens
    ratio = settings.swa_full_tokens_ratio or 0.0
    cell = cell_bytes(full, backend)
    tokens = min(int(available_bytes // (cell + ratio * window_cell)), most) // page * page
    parts = [_part("full", tokens, cell, page, ranks)]
    if windows:
        parts.append(_part("window", int(tokens * ratio) // page * page, window_cell, page, ranks, windows))
    return tuple(parts), tokens


def _part(name: str, tokens: int, cell: int, page: int, ranks: int, windows: tuple[LayerGroup, ...] = ()) -> SubPool:
    """A pool of pages; a sequence keeps its window, what lies beyond it until it is cut, and a page at each end."""
    longest = max((group.tokens or 0 for group in windows), default=0)
    most = longest + EVICTION_TOKENS + 2 * page if windows else None
    need = Need(kind=name if windows else FULL, num_groups=1, block_tokens=page, most_tokens=most, ranks=ranks)
    return SubPool(name=name, num_blocks=tokens // page, block_bytes=page * cell, needs=(need,))
