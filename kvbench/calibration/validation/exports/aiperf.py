"""AIPerf's and GenAI-Perf's summaries, JSON and CSV: a metric's statistics each."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kvbench.calibration.validation.exports.export import Export, reported_of
from kvbench.calibration.validation.points import REQUESTS_PER_S, THROUGHPUT

SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
MEASURES = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "latency": "request_latency"}
RATES = {THROUGHPUT: "output_token_throughput", REQUESTS_PER_S: "request_throughput"}
LENGTHS = ("input_sequence_length", "output_sequence_length")
STATISTICS = ("p50", "p90", "p95", "p99")
PLACES = (("loadgen",), (), ("perf_analyzer", "stimulus"))
"""Where the configuration says how requests come, in versions of both."""
MEAN_ALONE = "requests' own lengths are not told: each has the mean"

Metrics = dict[str, dict[str, Any]]


def is_aiperf(document: object) -> bool:
    """Whether a document is such a summary."""
    found = document.get("request_latency") if isinstance(document, dict) else None
    return isinstance(found, dict) and "avg" in found


def is_aiperf_table(columns: tuple[str, ...]) -> bool:
    """Whether the head of a CSV file is such a summary's."""
    return columns[:1] == ("Metric",) and "avg" in columns


def aiperf_run(document: Mapping[str, Any]) -> Export:
    """A summary in JSON.

    Source: AIPerf, src/aiperf/common/models/export_models.py and docs/reference/json-export-schema.md.
    Departs: an inter-token latency is a request's mean there, which is TPOT here.
    Raises:
        ValueError: lengths or the number of requests are missing, or a unit is unknown.
    """
    config = _flat(document.get("input_config") or {})
    told = {str(key): value for key, value in document.items() if isinstance(value, Mapping)}
    metrics = {key: dict(value) for key, value in told.items() if "unit" in value}
    endpoint = config.get("endpoint") or {}
    models = endpoint.get("model_names") or config.get("model_names") or []
    model = models[0] if isinstance(models, list) and models else models or ""
    run = _run(metrics, str(model), _said(config, "concurrency"), _said(config, "request_rate"))
    is_even = str((config.get("loadgen") or {}).get("request_rate_mode", "")).lower() == "constant"
    return replace(run, burstiness=math.inf if is_even else _said(config, "smoothness") or 1.0)


def _flat(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration as older versions wrote it: of those since 2026 the models by their items, and the one phase that
    is measured as what says how requests come."""
    phases, models = config.get("phases"), config.get("models")
    found = dict(config)
    if isinstance(models, Mapping):
        found["model_names"] = [each.get("name") for each in models.get("items") or []]
    own = [each for each in phases or [] if isinstance(each, Mapping) and _is_measured(each)]
    if len(own) == 1:
        mode = own[0].get("type")
        found["loadgen"] = {**own[0], "request_rate": own[0].get("rate"), "request_rate_mode": mode}
    return found


def _is_measured(phase: Mapping[str, Any]) -> bool:
    return str(phase.get("kind") or phase.get("name")).lower() != "warmup"


def aiperf_table(text: str) -> Export:
    """A summary in CSV, which says neither the model nor how requests came.

    Raises:
        ValueError: lengths or the number of requests are missing, or a number is none.
    """
    metrics: Metrics = {}
    head: list[str] = []
    for row in csv.reader(text.splitlines()):
        if not row or not row[0]:
            continue
        if row[0] == "Metric":
            head = ["avg" if name == "Value" else name for name in row[1:]]
            continue
        found = re.fullmatch(r"(.*?)(?: \(([^)]*)\))?", row[0])
        assert found is not None
        name = found[1].strip().lower().replace(" ", "_")
        values = {key: _number(name, cell) for key, cell in zip(head, row[1:], strict=False) if cell.strip()}
        metrics.setdefault(name, {"unit": found[2] or "", **values})
    return _run(metrics, "", None, None)


def _run(metrics: Metrics, model: str, concurrency: float | None, rate: float | None) -> Export:
    lengths = []
    for name in LENGTHS:
        mean = metrics.get(name, {}).get("avg")
        if not mean:
            raise ValueError(f"it has no {name}")
        lengths.append(np.array([round(float(mean))], np.int64))
    number = metrics.get("request_count", {}).get("avg") or _counted(metrics)
    reported: dict[str, float] = {}
    for measure, name in MEASURES.items():
        own = metrics.get(name)
        if own is not None:
            statistics = {"mean": own.get("avg"), **{key: own.get(key) for key in STATISTICS}}
            reported |= reported_of({measure: statistics}, _seconds(name, own))
    for kind, name in RATES.items():
        value = metrics.get(name, {}).get("avg")
        if value:
            reported[kind] = float(value)
    return Export(
        what="run",
        model=model,
        prompts=lengths[0],
        outputs=lengths[1],
        number=int(number),
        reported=reported,
        concurrency=None if concurrency is None else int(concurrency),
        rate=math.inf if rate is None and concurrency is not None else rate,
        left_out=(MEAN_ALONE,),
    )


def _counted(metrics: Metrics) -> float:
    count = metrics.get("request_latency", {}).get("count")
    if count:
        return float(count)
    rate, duration = (metrics.get(name, {}) for name in ("request_throughput", "benchmark_duration"))
    if rate.get("avg") and duration.get("avg"):
        return round(float(rate["avg"]) * float(duration["avg"]) * _seconds("benchmark_duration", duration))
    raise ValueError("it does not say how many requests ended (request_count)")


def _seconds(name: str, metric: Mapping[str, Any]) -> float:
    unit = str(metric.get("unit") or "ms").lower()
    if unit not in SECONDS:
        raise ValueError(f"{name} is in {', '.join(SECONDS)}, got {unit!r}")
    return SECONDS[unit]


def _said(config: Mapping[str, Any], key: str) -> float | None:
    for place in PLACES:
        node: Any = config
        for part in place:
            node = node.get(part) if isinstance(node, Mapping) else None
        value = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return None


def _number(name: str, cell: str) -> float:
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        raise ValueError(f"{name} is a number, got {cell!r}") from None
