"""Lines that serving engines printed of their cache, and what the same memory becomes by their rules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kvbench.calibration.public_shapes import public_shape, with_drafter_of
from kvbench.engine.base import Engine
from kvbench.engine.pool import Pool
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.version import since
from kvbench.engine.vllm import VLLM
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import kv_dtype
from kvbench.model.groups import LATENT, STATE
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.ranks import rank_of

Row = Mapping[str, str]
GIB = 2**30
SHARE = 0.003
"""Of a figure, by which what is told may be off where the printed memory has more digits than that."""
VERSION = re.compile(r"(?<![\w.])(\d+\.\d+(?:\.\d+)*(?:rc\d+)?(?:\.dev\d+)?)")
DATE = re.compile(r"(20\d\d)(?:-(\d\d))?")
RELEASES = (
    ("2024-09", "0.6"),
    ("2025-01", "0.7"),
    ("2025-03", "0.8"),
    ("2025-06", "0.9"),
    ("2025-08", "0.10"),
    ("2025-10", "0.11"),
    ("2025-12", "0.12"),
    ("2026-01", "0.14"),
    ("2026-02", "0.16"),
    ("2026-03", "0.18"),
    ("2026-04", "0.19"),
    ("2026-06", "0.22"),
    ("2026-07", "0.25"),
    ("2026-08", "0.26"),
    ("2026-10", "0.30"),
)
"""Of vLLM, by the month from which on a line without a version is taken to be of it."""
STATES_CACHED = "0.20"
OLD_COUNT, NEW_COUNT, CHANGED = "0.19", "0.22", "2026-05"
"""Versions before the count of tokens changed and after, for lines of that month, and of a year alone."""
PER_HEAD = "_per_token_head"
"""What a cache's dtype is called where each head of a token has scales of its own."""
UNKNOWN_LEN = 131_072
MEMORY_OF = {"H100": 79, "H200": 140, "A100": 79, "L40S": 44, "B200": 178, "MI300X": 192, "GH200": 95, "GB10": 119}


STATED_BLOCKS = re.compile(r"prints ([\d,]+) blocks|([\d,]+) blocks printed")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a line, beside what is told.

    Args:
        name: "blocks", "tokens" or "concurrency".
        told: by the engine's rules.
        printed: by the engine.
        digits: that it printed after the point.
        share: how far off it may be.
    """

    name: str
    told: float
    printed: float
    digits: int
    share: float

    @property
    def error(self) -> float:
        """How far what is told is from all that would print so, as a share."""
        half = 0.5 * 10**-self.digits if self.digits else 0.0
        beyond = max(abs(self.told - self.printed) - half, 0.0)
        return beyond / self.printed if self.told > self.printed else -beyond / self.printed

    @property
    def is_within(self) -> bool:
        """Whether that is no more than it may be."""
        return abs(self.error) <= self.share


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of a printed line.

    Args:
        engine: with the settings that the line states.
        rank: the model of a rank.
        parallel: how it is laid over accelerators.
        pool: what the printed memory becomes; None where none is printed.
        share: how far off it may be: 0.3 %, or half of the last digit of the printed memory.
    """

    engine: Engine
    rank: Model
    parallel: Parallel
    pool: Pool | None
    share: float

    def figures(self, row: Row) -> list[Figure]:
        """The figures that the line has, beside these; none where no memory is printed."""
        if self.pool is None:
            return []
        stated = STATED_BLOCKS.search(row["doubt"])
        blocks = next(filter(None, stated.groups())).replace(",", "") if stated else ""
        found = {
            "blocks": (self.pool.num_blocks, blocks),
            "tokens": (self.pool.num_tokens, row["num_tokens"]),
            "concurrency": (self.pool.max_concurrency, row["max_concurrency"]),
        }
        return [
            Figure(name=name, told=told, printed=float(text), digits=len(text.partition(".")[2]), share=self.share)
            for name, (told, text) in found.items()
            if text and float(text)
        ]


def told_of(row: Row, model: Model | None = None) -> Told:
    """What a line's memory becomes by the rules of its engine.

    Args:
        row: columns of capacity.csv by name.
        model: the line's model, where its configuration is at hand; None: by its name or the shape that it states.
    Raises:
        ValueError: the model's shape is not known, or the engine holds something that is not modelled.
    """
    text = row["model"]
    model = model or public_shape(text)
    if model is None:
        raise ValueError(f"the shape of {text} is not known here")
    engine = engine_of_row(row, model)
    model, drafts = with_drafter_of(text, _in_dtype(model, row))
    if drafts and isinstance(engine, VLLM):
        engine = replace(engine, num_speculative_tokens=drafts, speculative_method="dflash")
    parallel = parallel_of_row(row)
    rank = rank_of(model, parallel, engine.divides)
    num_bytes = bytes_of(row)
    if num_bytes is None:
        return Told(engine=engine, rank=rank, parallel=parallel, pool=None, share=SHARE)
    held = rank
    if isinstance(engine, SGLang):  # which prints states apart
        held = replace(rank, groups=tuple(group for group in rank.groups if group.kind != STATE))
    pool = engine.resolved(accelerator_of_row(row), held, parallel).pool(held, num_bytes, parallel)
    return Told(engine=engine, rank=rank, parallel=parallel, pool=pool, share=max(SHARE, _half_digit(row)))


def engine_of_row(row: Row, model: Model) -> Engine:
    """The engine of a line, with the settings that it states.

    Raises:
        ValueError: it is another engine, or has pools that are not modelled.
    """
    name, text = row["engine"].casefold(), f"{row['model']}; {row['doubt']}".casefold()
    if any(each in text for each in ("deepseek-v4", "flash-next")) and not name.startswith("sglang"):
        raise ValueError(f"the pools of {row['model']} in {row['engine']} are not modelled")
    length = _number(row, "max_model_len") or model.max_tokens or UNKNOWN_LEN
    block = _number(row, "block_size")
    if name.startswith("sglang"):
        latents = any(group.kind == LATENT for group in model.groups)
        raw = latents and re.search(r"b[23]00|sm_10", row["hardware"].casefold()) is not None
        return SGLang(
            context_length=length,
            page_size=block,
            dsa_decode_backend="trtllm" if raw else None,
            speculative_algorithm="EAGLE" if "eagle" in text else None,
        )
    if name.startswith("tensorrt"):
        stated = VERSION.search(row["version"])
        return TensorRTLLM(version=stated[1] if stated else None, max_seq_len=length, tokens_per_block=block)
    if not name.startswith("vllm"):
        raise ValueError(f"the engine is vLLM, SGLang or TensorRT-LLM, got {row['engine']}")
    drafts = re.search(r"\b(?:mtp|eagle3?)\D{1,3}(\d+)\b|(\d+) (?:mtp|draft) tokens", text)
    off = re.search(r"prefix caching off|no prefix caching", text)
    version = version_of_row(row)
    # Recipes for models with states turn it on since it works, before it was the default.
    caches = False if off else True if since(version or NEW_COUNT, STATES_CACHED) else None
    return VLLM(
        version=version,
        max_model_len=length,
        max_num_batched_tokens=_number(row, "max_num_batched_tokens"),
        max_num_seqs=_number(row, "max_num_seqs"),
        block_size=block or (64 if "xpu" in name else 128 if "ascend" in name else None),
        enable_prefix_caching=caches,
        num_speculative_tokens=int(next(filter(None, drafts.groups()))) if drafts else 0,
        speculative_method="eagle3" if drafts and "eagle" in text else None,
    )


def version_of_row(row: Row) -> str | None:
    """vLLM's version: as stated, or by month; by a year alone, what its own count and concurrency say of it."""
    if found := VERSION.search(row["version"].partition("(")[0]):
        return found[1]
    if "before the printed count changed" in row["version"]:
        return OLD_COUNT
    date = DATE.search(row["version"])
    month = "-".join(filter(None, date.groups())) if date else ""
    if month in ("", CHANGED, CHANGED[:4]):
        return NEW_COUNT if _counts_by_concurrency(row) else OLD_COUNT
    return next((version for start, version in reversed(RELEASES) if start <= month), RELEASES[0][1])


def parallel_of_row(row: Row) -> Parallel:
    """How a line's model is laid over accelerators."""
    context = re.search(r"decode context parallel (\d+)", row["doubt"])
    return Parallel(
        tensor=_number(row, "tensor_parallel") or 1,
        pipeline=_number(row, "pipeline_parallel") or 1,
        decode_context=int(context[1]) if context else 1,
    )


def accelerator_of_row(row: Row) -> Accelerator | None:
    """The accelerator, by its printed memory or its name; None where neither is known."""
    hardware = row["hardware"]
    gib = float(row["gpu_memory_gib"] or 0)
    if not gib and (stated := re.search(r"(\d+) GB", hardware)):
        gib = 0.99 * int(stated[1])
    if not gib:
        gib = next((size for name, size in MEMORY_OF.items() if name in hardware), 0)
    return Accelerator(name=hardware, memory_bytes=int(gib * GIB)) if gib else None


def bytes_of(row: Row) -> int | None:
    """Bytes of the cache; None where they are not printed. Where bytes are printed beside GiB, those."""
    if exact := re.search(r"bytes printed: ([\d,]+)", row["doubt"]):
        return int(exact[1].replace(",", ""))
    return int(float(row["available_kv_gib"]) * GIB) if row["available_kv_gib"] else None


def _in_dtype(model: Model, row: Row) -> Model:
    """The model with the cache's dtype that a line states; "auto" and none are the model's."""
    stated = re.split(r"[ (]", row["kv_dtype"])[0]
    if stated in ("", "auto"):
        return model
    plain = stated.removesuffix(PER_HEAD)
    dtype = "fp8_e4m3" if plain == "fp8_ds_mla" else kv_dtype(plain)
    scales = 2 if plain != stated else 0
    groups = (
        group if group.kind == STATE else replace(group, dtype=dtype, scales_per_head=scales) for group in model.groups
    )
    return replace(model, groups=tuple(groups))


def _half_digit(row: Row) -> float:
    """Half of the last printed digit of the memory, as a share of it; of a sum of two figures, of both."""
    printed = row["available_kv_gib"]
    digits = len(printed.partition(".")[2])
    figures = 2 if re.search(r"K [\d.]+ (?:GB )?\+ V", row["doubt"]) else 1
    return float(figures * 0.5 * 10**-digits / abs(float(printed))) if float(printed) else 0.0


def _counts_by_concurrency(row: Row) -> bool:
    """Whether a line's tokens are its concurrency times its longest sequence; true where it does not say both."""
    if not (row["num_tokens"] and row["max_concurrency"] and row["max_model_len"]):
        return True
    product = float(row["max_concurrency"]) * int(row["max_model_len"])
    return abs(product - int(row["num_tokens"])) <= 0.006 * int(row["max_model_len"])


def _number(row: Row, column: str) -> int | None:
    return int(float(row[column])) if row[column] else None
