"""What is told of times: each latency, and the statistics of it that a summary has."""

LATENCIES: dict[str, tuple[str, str, str]] = {
    "step": (
        "µs",
        "time of a step that appends (prefill, recompute or decode); of a whole model, of an iteration",
        "Step time",
    ),
    "decode": (
        "µs",
        "time of a step that decodes one token; of a whole model, of an iteration that decodes only",
        "Decode step",
    ),
    "itl": ("s", "gap between neighbouring output tokens of a turn", "ITL"),
    "ttft": ("s", "time to first token of a completed request", "TTFT"),
    "tpot": ("s", "time per output token of a completed request", "TPOT"),
    "latency": ("s", "end - arrival of a completed request", "Latency"),
    "queue": ("s", "time from arrival to the start of the first iteration that computes it", "Queueing"),
}
"""Each latency: its unit, what is one sample of it, and the label of an axis."""

STATISTICS: dict[str, str] = {
    "mean": "mean",
    "p50": "median",
    "p90": "90th percentile",
    "p99": "99th percentile",
    "max": "maximum",
}
"""Statistics of a latency. A percentile with fewer than ten samples beyond it is left empty."""


def latency_column(latency: str, statistic: str) -> str:
    """The summary's column of a latency's statistic, such as step_p99_us."""
    return f"{latency}_{statistic}_{'us' if LATENCIES[latency][0] == 'µs' else 's'}"
