"""The memory that an engine would leave for its cache, from a model's configuration and the flags of a line alone."""

import re
from dataclasses import replace

from kvbench.calibration.capacity_rows import Row, engine_of_row, parallel_of_row
from kvbench.calibration.printed.named import weights_dtype_of
from kvbench.engine.base import Engine
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.groups import STATE
from kvbench.model.model import Model
from kvbench.model.precision import in_precision
from kvbench.model.published.read import LANGUAGE_ALONE
from kvbench.model.ranks import rank_of

DATED = re.compile(r"\d+\.\d+|20\d\d-\d\d")
"""Versions by which an engine's default share is known."""


def from_flags(row: Row, model: Model | None, hardware: Accelerator | None) -> int:
    """Bytes for the cache, in SGLang for that of tokens; the line's printed GiB are not looked at.

    Args:
        row: columns of a line, by name.
        model: its model; None: none is at hand.
        hardware: its accelerator; None: none is at hand.
    Raises:
        ValueError: what is missing, or not modelled.
    """
    dtype = weights_dtype_of(row["weights_dtype"])
    stated = {"configuration": model, "gpu_memory_gib": hardware, "weights_dtype": dtype}
    lacking = [what for what, value in stated.items() if value is None]
    lacking += [] if row["tensor_parallel"] else ["tensor_parallel"]
    if model is not None and not model.vocab_size:
        lacking.append("vocabulary")
    if model is not None and LANGUAGE_ALONE in model.assumed:
        lacking.append("encoders of images")
    if not row["memory_fraction"] and not DATED.search(row["version"]):
        lacking.append("memory_fraction")
    if model is None or hardware is None or dtype is None or lacking:
        raise ValueError(", ".join(lacking))
    engine, parallel = _with_share(row, engine_of_row(row, model)), parallel_of_row(row)
    rank = rank_of(_in_weights(model, dtype), parallel, engine.divides)
    available_bytes = engine.memory(rank, hardware, parallel).available_bytes
    if isinstance(engine, SGLang) and any(group.kind == STATE for group in rank.groups):
        pool = engine.resolved(hardware, rank, parallel).pool(rank, available_bytes, parallel)
        return pool.num_bytes - sum(part.num_blocks * part.block_bytes for part in pool.parts if part.name == "states")
    return available_bytes


def _in_weights(model: Model, dtype: str) -> Model:
    """The model with the line's weights: a configuration that has parts of that dtype says itself which they are."""
    return model if dtype in {part.dtype for part in model.weights} - set(DTYPE_BYTES) else in_precision(model, dtype)


def _with_share(row: Row, engine: Engine) -> Engine:
    share = float(row["memory_fraction"]) if row["memory_fraction"] else None
    if isinstance(engine, VLLM):
        return replace(engine, gpu_memory_utilization=share)
    if isinstance(engine, SGLang):
        return replace(engine, mem_fraction_static=share)
    assert isinstance(engine, TensorRTLLM), engine
    return replace(engine, free_gpu_memory_fraction=share)
