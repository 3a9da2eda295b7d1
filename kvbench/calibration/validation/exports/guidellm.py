"""GuideLLM's benchmarks.json: a report of several benchmarks, each of requests that came in one way."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kvbench.calibration.validation.exports.export import Export, engine_of, reported_of
from kvbench.calibration.validation.points import THROUGHPUT

MS = 1e-3
DONE = "successful"
CLOSED = {"synchronous": "", "concurrent": "streams", "throughput": "max_concurrency"}
"""Ways in which the next request is sent when another has ended, and what says how many there are."""


def is_guidellm(document: object) -> bool:
    """Whether a document is such a report."""
    benchmarks = document.get("benchmarks") if isinstance(document, dict) else None
    first = benchmarks[0] if isinstance(benchmarks, list) and benchmarks else None
    return isinstance(first, dict) and "metrics" in first


def guidellm_runs(document: Mapping[str, Any]) -> Iterator[Export]:
    """Its benchmarks.

    Source: GuideLLM, src/guidellm/benchmark/schemas and src/guidellm/schemas/request_stats.py.
    Departs: TPOT is its inter_token_latency_ms, without the first token, which time_per_output_token_ms has in it.
    Raises:
        ValueError: a benchmark lacks what tells how requests came, or their lengths.
    """
    config = document.get("config") or document.get("args") or {}
    backend = config.get("backend") if isinstance(config, Mapping) else None
    model = _first(config, "model") or (backend.get("model") if isinstance(backend, Mapping) else None)
    for number, benchmark in enumerate(document["benchmarks"], 1):
        yield _run(f"benchmark {number}", benchmark, str(model or ""))


def _run(what: str, benchmark: Mapping[str, Any], model: str) -> Export:
    metrics = benchmark.get("metrics") or {}
    found = {
        "ttft": _statistics(metrics, "time_to_first_token_ms", 1.0),
        "tpot": _statistics(metrics, "inter_token_latency_ms", 1.0),
        "latency": _statistics(metrics, "request_latency", 1 / MS),
    }
    reported = reported_of(found, MS)
    throughput = _statistics(metrics, "output_tokens_per_second", 1.0).get("mean")
    if throughput:
        reported[THROUGHPUT] = float(throughput)
    config = benchmark.get("config") or benchmark.get("args") or {}
    strategy = config.get("strategy") or {}
    backend = config.get("backend") or {}
    kind = strategy.get("type_", "")
    rate = {"throughput": math.inf, "synchronous": math.inf, "concurrent": math.inf}.get(kind, strategy.get("rate"))
    at_once = 1 if kind == "synchronous" else strategy.get(CLOSED.get(kind, "max_concurrency") or "max_concurrency")
    requests = ((benchmark.get("requests") or {}).get(DONE)) or []
    details = _details(requests)
    counts = [_statistics(metrics, f"{which}_token_count", 1.0) for which in ("prompt", "output")]
    if details is None and not all(each.get("mean") for each in counts):
        raise ValueError(f"{what}: neither its requests nor their mean lengths are there")
    prompts, outputs = details or tuple(np.array([round(each["mean"])], np.int64) for each in counts)
    # Of many requests a report may hold a sample.
    total = int((metrics.get("request_totals") or {}).get(DONE) or counts[0].get("count") or 0)
    return Export(
        what=f"{what} ({kind or 'of no kind'})",
        model=str(backend.get("model") or model),
        engine=engine_of(backend.get("type_")),
        prompts=prompts,
        outputs=outputs,
        number=max(len(requests), total),
        reported=reported,
        concurrency=None if at_once is None else int(at_once),
        rate=None if rate is None else float(rate),
        burstiness=math.inf if kind == "constant" else 1.0,
        starts_s=None,
        left_out=() if details else ("requests' own lengths are not told: each has the mean",),
    )


def _details(requests: list[Mapping[str, Any]]) -> "tuple[np.ndarray, np.ndarray] | None":
    rows = [(each.get("prompt_tokens"), each.get("output_tokens")) for each in requests if isinstance(each, Mapping)]
    if not rows or any(not prompt or not output for prompt, output in rows):
        return None
    prompts, outputs = np.array(rows, np.int64).T
    return prompts, outputs


def _statistics(metrics: Mapping[str, Any], name: str, scale: float) -> dict[str, float]:
    own = (metrics.get(name) or {}).get(DONE) or {}
    percentiles = own.get("percentiles") or {}
    found = {"mean": own.get("mean"), "count": own.get("count")}
    found |= {name: percentiles.get(name) for name in ("p50", "p90", "p95", "p99")}
    return {key: float(value) * scale for key, value in found.items() if isinstance(value, int | float)}


def _first(config: object, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else None
