"""A table of end-to-end measurements, a row each: closed loops, static batches, all requests queued at once."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kvbench.calibration.validation.columns import checked_columns
from kvbench.calibration.validation.points import (
    THROUGHPUT,
    ServingPoint,
    System,
    all_at_once,
    closed_loop,
    region_of,
)
from kvbench.workload.trace_columns import TraceColumns

NEEDED = ("model", "hardware", "engine", "input_tokens", "output_tokens")
COUNTS = ("tensor_parallel", "pipeline_parallel", "data_parallel", "concurrency", "max_batch")
TIMES = ("ttft_ms", "tpot_ms", "output_tokens_per_s")
TEXTS = ("engine_version", "weights_dtype", "kv_dtype", "note")
WAITING = {"trtllm": 1}
"""Clients of a closed loop that an engine's batch has no place for, where its size is not said. In TensorRT-LLM's
published loops one of N waits: TTFT is the prompt's time and an N-th of the answer's, for N from 8 to 64 and all
lengths."""
SPARE_TOKENS = {"trtllm": 1_500}
"""Tokens of a step beside those of one prompt and the batch, where its size is not said: so aiconfigurator, which
publishes TensorRT-LLM's loops, sets up its servers (max_num_tokens), since its first version."""
FITTED = {"engine": "trtllm", "hardware": "h100", "tensor_parallel": 1, "weights_dtype": "bfloat16"}
"""Closed loops of such systems, of which half told the host's time of a step and what products reach."""
SHAPE = ("hardware", "model", "tensor_parallel", "input_tokens", "output_tokens", "concurrency")
AS_READ = ("hardware", "model", "concurrency")
"""Columns of it that are hashed as they were read: where some rows have no concurrency it is 8.0."""
_QUEUED = re.compile(r"all ([\d,]+) requests (?:are )?queued at once")
_FRACTION = re.compile(r"KV fraction (0?\.\d+)")
_DOUBTED = re.compile(r"use (?:its |their )?TPOT only")


def read_serving(path: Path, frame: pd.DataFrame) -> tuple[list[ServingPoint], list[str]]:
    """The measurements of a table.

    Args:
        path: for messages.
        frame: as read.
    Returns:
        Those that a simulation can be held against; and of others, and of figures that are left out, why.
    Raises:
        ValueError: a column is missing, or a value is not allowed.
    """
    table = checked_columns(
        path,
        frame,
        "end-to-end measurements",
        whole=(*NEEDED[3:], *COUNTS),
        positive=TIMES,
        texts=(*NEEDED[:3], *TEXTS),
        optional=(*COUNTS, *TIMES, *TEXTS),
    )
    points, not_told, doubted = [], [], []
    for number, record in enumerate(table.to_dict("records"), 1):
        row = {str(key): value for key, value in record.items()}
        name = f"row {number}"
        try:
            points.append(_point(name, row))
        except ValueError as error:
            not_told.append(f"{name} is not told: {error}")
            continue
        if _DOUBTED.search(row["note"]):
            doubted.append(number)
    if doubted:
        rows = f"row{'' if len(doubted) == 1 else 's'} {', '.join(map(str, doubted))}"
        not_told.append(f"TTFT of {rows} is left out, which the note doubts, and what follows from it")
    return points, not_told


def has_even_shape(shape: Sequence[object]) -> bool:
    """Whether a row of such a SHAPE is of the half that fits, and tells how wide intervals are: its values joined by
    commas; of their SHA-256 the first eight hexadecimal digits are even."""
    digest = hashlib.sha256(",".join(map(str, shape)).encode()).hexdigest()
    return int(digest[:8], 16) % 2 == 0


def _is_even(row: Mapping[str, Any]) -> bool:
    return has_even_shape([row[key] if key in AS_READ else int(_or(row[key], 1)) for key in SHAPE])


def _fitted(row: Mapping[str, Any]) -> bool:
    """Whether a row may have told an engine's figures."""
    is_such = all(row[key] == value for key, value in FITTED.items()) and not math.isnan(row["concurrency"])
    return is_such and _is_even(row)


class Load(NamedTuple):
    """How requests come.

    Args:
        region: what tells loads apart.
        columns: the requests.
        step_tokens: of a step, at most; None: as the engine has it.
        share: of the memory that is left for caches; None: as the engine has it.
    """

    region: str
    columns: TraceColumns
    step_tokens: int | None = None
    share: float | None = None


def _point(name: str, row: dict[str, Any]) -> ServingPoint:
    prompt, output = row["input_tokens"], row["output_tokens"]
    if not prompt or not output:
        raise ValueError(f"it has {prompt} input and {output} output tokens")
    reported = dict(_reported(row))
    if not reported:
        raise ValueError("it reports neither TTFT nor TPOT nor output tokens a second")
    system = System(
        model=row["model"],
        hardware=row["hardware"],
        engine=row["engine"].lower(),
        version=row["engine_version"],
        **{name: int(_or(row[f"{name}_parallel"], 1)) for name in ("tensor", "pipeline", "data")},
        weights_dtype=row["weights_dtype"],
        kv_dtype=row["kv_dtype"],
    )
    at_once = int(_or(row["concurrency"], 0))
    queued = _QUEUED.search(row["note"])
    if "static batch" in row["note"] or (at_once == 1 and output == 1):
        if not at_once:
            raise ValueError("it is a static batch of a size that is not said")
        # All prompts are computed before the first token of any; it was there whole, so that memory held it.
        region = "static batch" if at_once > 1 else "one request"
        load = Load(region, all_at_once(prompt, output, at_once), at_once * prompt, 1.0)
    elif queued:
        at_once = int(queued[1].replace(",", ""))
        share = _FRACTION.search(row["note"])
        load = Load("queued", all_at_once(prompt, output, at_once), share=float(share[1]) if share else None)
    elif at_once:
        columns = closed_loop(prompt, output, at_once)
        spare = SPARE_TOKENS.get(system.engine)
        load = Load(region_of(columns), columns, None if spare is None else prompt + at_once + spare)
    else:
        raise ValueError("how requests come is not said: neither a concurrency, nor that all are queued at once")
    max_batch = int(_or(row["max_batch"], 0)) or None
    if max_batch is None and load.columns.num_clients is not None:
        places = load.columns.num_clients - WAITING.get(system.engine, 0)
        max_batch = places if 0 < places < load.columns.num_clients else None
    return ServingPoint(
        what=f"{name}: {prompt:,} + {output:,}, {at_once:,} at once",
        region=load.region,
        system=system,
        columns=load.columns,
        reported=reported,
        max_batch=max_batch,
        step_tokens=load.step_tokens,
        memory_fraction=load.share,
        held_out=not _fitted(row),
        judges=not _is_even(row),
        by_formula=load.columns.num_clients is not None,
    )


def _reported(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Its figures; of a closed loop that gives times alone, the throughput that follows from them."""
    ttft_s, tpot_s = row["ttft_ms"] / 1e3, row["tpot_ms"] / 1e3
    is_doubted = bool(_DOUBTED.search(row["note"]))
    if not math.isnan(ttft_s) and not is_doubted:
        yield "ttft", ttft_s
    if not math.isnan(tpot_s):
        yield "tpot", tpot_s
    if not math.isnan(row["output_tokens_per_s"]):
        yield THROUGHPUT, row["output_tokens_per_s"]
    elif not is_doubted and row["concurrency"] > 1:
        latency_s = ttft_s + tpot_s * (row["output_tokens"] - 1)
        if not math.isnan(latency_s):
            yield THROUGHPUT, row["concurrency"] * row["output_tokens"] / latency_s


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value
