"""Results of `vllm bench serve` and of SGLang's bench_serving, which have one root: JSON, a document a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.calibration.validation.exports.export import Export, engine_of, reported_of
from kvbench.calibration.validation.points import REQUESTS_PER_S, THROUGHPUT

MEASURES = {"ttft": ("ttft",), "tpot": ("tpot",), "latency": ("e2el", "e2e_latency")}
"""Ours, and how theirs are called."""
STATISTICS = ("mean", "median", "p90", "p95", "p99")
GAPS = "itl"
MS = 1e-3


def is_bench(document: object) -> bool:
    """Whether a document is such a run."""
    return isinstance(document, dict) and {"completed", "total_input_tokens", "request_rate"} <= set(document)


def bench_run(what: str, document: Mapping[str, Any]) -> Export:
    """A run.

    Source: vLLM, vllm/benchmarks/serve.py; SGLang, python/sglang/bench_serving.py.
    Raises:
        ValueError: a number is none, or lists are not of one length.
    """
    number = int(_number(document, "completed"))
    totals = [_number(document, f"total_{which}_tokens") for which in ("input", "output")]
    means = [np.array([round(total / max(number, 1))], np.int64) for total in totals]
    found = {ours: _statistics(document, theirs) for ours, theirs in MEASURES.items()}
    reported = reported_of(found, MS)
    for kind, key in ((THROUGHPUT, "output_throughput"), (REQUESTS_PER_S, "request_throughput")):
        if document.get(key):
            reported[kind] = _number(document, key)
    details = _details(document)
    left_out = [] if details else ["requests' own lengths are not told: each has the mean"]
    if any(str(key).endswith(f"_{GAPS}_ms") for key in document):
        left_out.append("gaps between single tokens (ITL) are not told")
    failed = details.pop("failed", 0)
    if failed:
        left_out.append(f"{failed:,} requests that failed are left out")
    return Export(
        what=what,
        model=str(document.get("model_id") or ""),
        engine=engine_of(document.get("backend")),
        prompts=details.get("prompts", means[0]),
        outputs=details.get("outputs", means[1]),
        number=number,
        reported=reported,
        concurrency=_optional(document, "max_concurrency"),
        rate=_rate(document["request_rate"]),
        burstiness=float(document.get("burstiness") or 1.0),
        starts_s=details.get("starts"),
        by_request=details.get("times", {}),
        left_out=tuple(left_out),
    )


def _details(document: Mapping[str, Any]) -> dict[str, Any]:
    """Lengths and times of each request that ended, in the order in which they were sent; {}: they were not saved."""
    if not {"input_lens", "output_lens", "ttfts"} <= set(document):
        return {}
    columns = {name: _column(document, name) for name in ("input_lens", "output_lens", "ttfts")}
    if "start_times" in document:
        columns["start_times"] = _column(document, "start_times")
    gaps = document.get("itls")
    nothing = np.full_like(columns["ttfts"], np.nan)
    columns["gaps"] = np.array([float(np.sum(each)) for each in gaps]) if isinstance(gaps, list) else nothing
    sizes = {name: values.size for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"lists of requests are of one length, got {sizes}")
    ended = (columns["output_lens"] > 0) & (columns["input_lens"] > 0)
    order = np.flatnonzero(ended)
    if "start_times" in columns:
        order = order[np.argsort(columns["start_times"][order], kind="stable")]
    prompts, outputs, ttft, waited = (columns[name][order] for name in ("input_lens", "output_lens", "ttfts", "gaps"))
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(outputs > 1, waited / (outputs - 1), np.nan)
    found: dict[str, Any] = {
        "prompts": prompts.astype(np.int64),
        "outputs": outputs.astype(np.int64),
        "times": {"ttft": ttft, "tpot": tpot},
        "failed": int((~ended).sum()),
    }
    return found | ({"starts": columns["start_times"][order]} if "start_times" in columns else {})


def _column(document: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(document[name], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a list of numbers") from error


def _statistics(document: Mapping[str, Any], theirs: Sequence[str]) -> dict[str, Any]:
    found = {name: f"{name}_{their}_ms" for their in theirs for name in STATISTICS if f"{name}_{their}_ms" in document}
    return {name: document[key] for name, key in found.items()}


def _number(document: Mapping[str, Any], key: str) -> float:
    value = document.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{key} is a number of at least 0, got {value!r}")
    return float(value)


def _optional(document: Mapping[str, Any], key: str) -> int | None:
    return None if document.get(key) is None else max(int(_number(document, key)), 1)


def _rate(value: object) -> float:
    rate = float(value) if isinstance(value, int | float | str) else math.nan
    if not rate > 0:
        raise ValueError(f"request_rate is a number above 0, or inf, got {value!r}")
    return rate
