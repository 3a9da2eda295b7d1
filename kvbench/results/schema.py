"""What every recorded column means: its unit and its meaning, and the frame that it stands in.

The tables of docs/results.md are made from here (`python -m kvbench metrics`).
"""

from collections.abc import Iterable

from kvbench.results.columns import FROM, PERCENT, ends
from kvbench.results.columns import REQUESTS as REQUESTS
from kvbench.results.columns import SESSIONS as SESSIONS
from kvbench.results.columns import STEPS as STEPS
from kvbench.results.columns import Column as Column
from kvbench.results.latencies import LATENCIES as LATENCIES
from kvbench.results.latencies import STATISTICS as STATISTICS
from kvbench.results.latencies import latency_column as latency_column
from kvbench.results.quality_columns import QUALITY_OF_MODEL
from kvbench.results.tier_columns import tier_columns

_SUMMARY: dict[str, Column] = {
    "scenario": Column("", "the scenario's name"),
    "strategy": STEPS["strategy"],
    "source": Column("", "measured: on tensors; modelled: priced by a machine's figures"),
    "scope": Column(
        "",
        "cache: times are of the cache and its attention alone; model: of a whole model, weights and projections "
        "included; only rows of one source, scope and simulated_by are compared",
    ),
    "simulated_by": Column(
        "", "runner: step by step, every operation booked; fleet: event by event, a strategy's decisions as integers"
    ),
    "engine": Column("", "the serving engine whose rules were followed, such as vllm; empty where none"),
    "hardware": Column("", "the machine that was modelled; empty where measured"),
    "num_accelerators": Column(
        "", "machines that were modelled, of all replicas; bytes are those of one of each replica; empty where measured"
    ),
    "step_error": Column(
        "",
        "how far modelled times a step are off: distance from the measured one / the measured one, mean over measured "
        "runs that fitted nothing; empty where that was never measured",
    ),
    "step_noise": Column("", "the same between two measurements of one thing: no model can be nearer"),
    FROM: Column(
        "",
        f"what the ends of intervals (x_low and x_high, {PERCENT} %) come from: repetitions (Student's t of their own "
        "means or percentiles), validation (of a modelled time, as wide as step_error says), residuals (replays with "
        "other times of work, drawn from what measured kernels of the machine were off by) or data sheets (the same, "
        "of a machine that nobody measured: the widest that data sheets of others were off by); empty: there are none",
    ),
    "num_repetitions": Column(
        "",
        "repetitions that finished, warm-up left out; of a run that was stopped, fewer than its header says it was for",
    ),
    "num_sessions": Column("", "sessions (conversations) run in a repetition"),
    "num_requests": Column("", "requests (turns of sessions) run in a repetition"),
    "num_completed": Column("", "requests completed, mean over repetitions", "Completed requests"),
    "outcome": Column("", "completed, or what befell the requests that were not"),
    "num_preemptions": Column("", "preemptions in a repetition, mean over repetitions", "Preemptions"),
    "recomputed_tokens": Column("tokens", "tokens computed again after preemptions, mean over repetitions"),
    "hit_share": Column(
        "",
        "prompt tokens found in the prefix cache and not computed / prompt tokens looked for, of each request as it is "
        "first admitted; empty where no blocks are shared",
        "Hit rate",
    ),
    **tier_columns(),
    "num_iterations": Column(
        "", "passes over the live requests in a repetition, of all replicas, mean over repetitions"
    ),
    "arrivals_share": Column("", "share of makespan_s in which no request waited: more load would have been served"),
    "batch_share": Column("", "share of makespan_s in which the next request waited for a place: max_concurrency"),
    "memory_share": Column("", "share of makespan_s in which the next request waited for memory"),
    "pool_share": Column("", "share of makespan_s in which the next request waited for a pool smaller than the budget"),
    "computing_share": Column("", "share of makespan_s in which the next request waited only for the steps at hand"),
    "mean_batch": Column("", "requests computed on a replica, averaged over the time of all steps", "Mean batch"),
    "makespan_s": Column("s", "last step's end - first arrival, mean over repetitions", "Makespan", has_interval=True),
    "requests_per_s": Column("requests/s", "num_completed / makespan_s", "Completed", has_interval=True),
    "goodput_per_s": Column(
        "requests/s",
        "completed requests within both objectives / makespan_s; a time that one lacks is within",
        "Goodput",
        has_interval=True,
    ),
    "attained_share": Column(
        "",
        "completed requests within both objectives / num_requests",
        "Requests within the objectives",
        has_interval=True,
    ),
    "ttft_objective_s": Column("s", "the most TTFT that goodput counts; empty: any"),
    "tpot_objective_s": Column("s", "the most TPOT that goodput counts; empty: any"),
    "num_tokens": Column(
        "tokens",
        "prompt tokens computed, and output tokens, of a repetition; those computed again after a preemption left out; "
        "mean over repetitions; of a fleet, of completed requests",
    ),
    "num_steps": Column(
        "",
        "steps that append in a repetition, those computed again left out, mean over repetitions; more, and smaller, "
        "where a strategy splits appends",
    ),
    "peak_bytes": Column(
        "bytes",
        "the most device bytes live at any time, a resize's second buffer and staging buffers included: "
        "max(allocated + transient + workspace)",
        "Peak",
    ),
    "peak_least_bytes": Column("bytes", "the least of the repetitions' own peaks; less where requests met otherwise"),
    "peak_allocated_bytes": Column("bytes", "max(allocated_bytes) after a step", "Peak allocated"),
    "workspace_bytes": STEPS["workspace_bytes"],
    "peak_host_bytes": Column("bytes", "max(host_bytes) after a step", "Peak host"),
    "peak_disk_bytes": Column("bytes", "max(disk_bytes) after a step", "Peak disk"),
    "peak_remote_bytes": Column("bytes", "max(remote_bytes) after a step", "Peak remote"),
    "available_bytes": Column("bytes", "memory that caches may hold together, of all replicas", "Available"),
    "pool_bytes": Column("bytes", "bytes set aside once for blocks; peak and allocated count those handed out", "Pool"),
    "seen_tokens": Column("tokens", "tokens that the requests' caches were given, summed at their last steps"),
    "kept_tokens": Column("tokens", "tokens that attention could still read, summed at the requests' last steps"),
    "kept_fraction": Column("", "kept_tokens / seen_tokens", "Kept fraction"),
    "altered_tokens": Column(
        "tokens", "tokens evicted, moved out of attention's sight, or rounded; a lossy strategy with none never acted"
    ),
    "lossless": Column("", "whether attention reads every token, unchanged"),
    "reference": Column(
        "", "whether the strategy knows the future, or is there to compare with: shown, on no front, never the best"
    ),
    "eviction": Column(
        "", "which blocks of the prefix cache go first, of those that nobody holds; empty where no blocks are shared"
    ),
    "error_relative": Column(
        "",
        "length of (output - exact output) / length of the exact output, of attention of all heads, exact being that "
        "over every token unchanged; mean over the queries asked of the probed request",
        "Relative error of attention's output",
    ),
    "error_rounding": Column(
        "", "relative errors that rounding to the probe's dtype alone gives; differences within it decide nothing"
    ),
    "cosine": Column("", "cosine of the same two outputs, mean over the same queries", "Cosine to the exact output"),
    "mass_kept": Column(
        "", "share of exact attention on tokens that are still attended, mean over the same queries", "Attention kept"
    ),
    "needle_recall": Column(
        "",
        "share of heads and planted needles for which the value nearest (by cosine) to the output, of all ever given, "
        "is the needle's; asked after all was appended, mean over depths; empty for recorded K and V",
        "Needles found",
    ),
    "probed_tokens": Column("tokens", "tokens of the probed request: the longest within quality_tokens, or cut to it"),
    "probed_queries": Column("", "tokens whose queries were held against exact attention, over the probed layers"),
    "probed_altered_tokens": Column("tokens", "altered_tokens of the probed request"),
    **QUALITY_OF_MODEL,
    "mean_allocated_bytes": Column(
        "bytes", "allocated_bytes + workspace_bytes, averaged over appended tokens", "Mean allocated"
    ),
    "cumulative_bytes": Column(
        "bytes", "the article's figure: every allocation ever made, summed; not memory in use", "Cumulative allocations"
    ),
    "utilization_peak": Column("", "max(used / allocated) over steps", "Peak utilization"),
    "utilization_final": Column("", "used / allocated at the last append", "Final utilization"),
    "utilization_mean": Column(
        "",
        "sum of used / sum of allocated, over appended tokens; of a fleet (as in the next three), over time",
        "Mean utilization",
    ),
    "reserved_share": Column("", "sum of reserved / sum of allocated", "Reserved share"),
    "waste_share": Column("", "sum of internal waste / sum of allocated", "Internal waste share"),
    "external_share": Column(
        "",
        "external: memory that is free but not usable, while a request waits for memory; sum of external / sum of "
        "(allocated + external)",
        "External waste share",
    ),
    "num_resizes": Column("", "storages replaced in a repetition, mean over repetitions", "Resizes"),
    "copied_bytes": Column(
        "bytes", "live bytes copied within their area in a repetition, mean over repetitions", "Copied"
    ),
    "moved_bytes": Column("bytes", "bytes moved to other areas in a repetition, mean over repetitions", "Moved"),
    "stall_s": Column(
        "s",
        "time of reserve in steps that resized, summed in a repetition, mean over them",
        "Stall",
        has_interval=True,
    ),
    "admit_s": Column("s", "time of reserve at admissions, summed in a repetition, mean over them", "Admission"),
    "allocation_s": Column(
        "s",
        "stall_s and admit_s together: time of reserve in resizes and at admissions",
        "Stalls and admissions",
        has_interval=True,
    ),
    "total_s": Column(
        "s",
        "time of all steps of a repetition, idle time left out, mean over repetitions",
        "Total time",
        has_interval=True,
    ),
    "tokens_per_s": Column(
        "tokens/s",
        "num_tokens / time of all steps, mean over repetitions; of a fleet, num_tokens / makespan_s",
        "Throughput",
        has_interval=True,
    ),
    "cost_per_million_tokens": Column(
        "",
        "price_per_hour of all accelerators / tokens_per_s, for a million tokens of num_tokens; in what the hardware's "
        "price is in (dollars where it is kvbench's); empty where it has none, and where no fleet was simulated",
        "Cost of a million tokens",
        has_interval=True,
    ),
    "energy_per_million_tokens": Column(
        "Wh",
        "power_w of all accelerators / tokens_per_s, for a million tokens: boards at full load throughout, so the most",
        "Energy of a million tokens",
        has_interval=True,
    ),
    "efficiency": Column(
        "per 1000 MiB",
        "the article's score: utilization_peak / (cumulative_bytes in MiB / 1000)",
        "Efficiency",
    ),
    "roofline_share": Column(
        "",
        "time to move the bytes of all decode steps at the measured copy bandwidth / time that they took (on a GPU, "
        "busy_bytes and busy_us: a device that waits for launches is not slow); "
        "above 1 where a processor's cache is faster than its memory; empty where reads go through staging buffers, "
        "and where modelled",
    ),
    "busy_us": Column(
        "µs",
        "time that the device was busy in a decode step, copies included, by its profiler: mean of the last steps of "
        "one request alone, driven apart from the timed run; empty on a CPU, where the host does the work",
        "Device busy",
    ),
    "busy_host_us": Column(
        "µs",
        "host time of as many steps before those, each given to an idle device; well above busy_us, steps are bound by "
        "launches",
    ),
    "busy_bytes": Column("bytes", "bytes that those steps move at least: what they attend, write and copy, a step"),
    "spread": Column("", "standard deviation / mean of total_s over repetitions"),
    "allocator_allocated_bytes": Column(
        "bytes",
        "the device allocator's own peak of allocated bytes, with what attention holds in passing (attend=false leaves "
        "that out); empty on a CPU, and where none is modelled",
    ),
    "allocator_reserved_bytes": Column(
        "bytes", "its peak of bytes reserved from the driver: allocated, and kept for later", "Reserved"
    ),
    "allocator_split_bytes": Column("bytes", "its peak of inactive split bytes"),
    "allocator_unused_share": Column(
        "",
        "external fragmentation: 1 - allocator_allocated_bytes / allocator_reserved_bytes, what it reserved beyond the "
        "most that was ever allocated",
        "Reserved, never used",
    ),
}

MORE_IS_BETTER = {
    *("num_completed", "hit_share", "requests_per_s", "goodput_per_s", "attained_share", "tokens_per_s", "mean_batch"),
    *("kept_fraction", "cosine", "mass_kept", "needle_recall", "quality_needle_share", "efficiency", "roofline_share"),
    *("utilization_peak", "utilization_final", "utilization_mean"),
}
"""Figures of the summary of which more is better; of the others that have a label, less is."""

LEAST_ERROR = 1e-4
"""Relative errors below count as 0: those of rounding in float32 mean nothing, and decide nothing."""


def _latency_columns() -> dict[str, Column]:
    columns = {}
    for latency, (unit, sample, label) in LATENCIES.items():
        for statistic, words in STATISTICS.items():
            name = latency_column(latency, statistic)
            meaning = f"{words} over repetitions of: {sample}"
            columns[name] = Column(unit, meaning, f"{label}, {words}", has_interval=statistic != "max")
    return columns


def _with_ends(columns: dict[str, Column]) -> dict[str, Column]:
    """Columns, each with those of its interval behind it."""
    found = {}
    for name, column in columns.items():
        found[name] = column
        if column.has_interval:
            found |= {end: Column(column.unit, f"an end of the interval of {name}") for end in ends(name)}
    return found


WITH_INTERVAL = [name for name, column in (_SUMMARY | _latency_columns()).items() if column.has_interval]
"""Columns of the summary whose intervals are told."""

SUMMARY: dict[str, Column] = _with_ends(_SUMMARY | _latency_columns())

TIMELINE: dict[str, Column] = {
    "strategy": STEPS["strategy"],
    "time_s": Column(
        "s", "start of a stretch of time, all as long, after the run's start; the rest is over it", "Time"
    ),
    "used_bytes": Column("bytes", "slots that hold tokens, of all replicas; here and below, the mean", "Used"),
    "reserved_bytes": Column("bytes", "allocated slots that tokens still to come will fill", "Reserved"),
    "waste_bytes": Column("bytes", "allocated slots that no token will ever fill (internal waste)", "Internal waste"),
    "external_bytes": Column("bytes", "free but not usable memory while a request waits for memory", "External waste"),
    "allocated_bytes": Column("bytes", "used + reserved + internal waste", "Allocated"),
    "num_live": Column("", "requests live, of all replicas", "Batch"),
    "num_waiting": Column("", "requests that have arrived and are not live, of all replicas", "Queue"),
    "used_max_bytes": Column("bytes", "the most used at any time in it; here and below, each replica's own, summed"),
    "allocated_max_bytes": Column("bytes", "the most allocated at any time in the stretch", "Most allocated"),
    "live_max": Column("", "the most requests live at any time in the stretch", "Largest batch"),
    "waiting_max": Column("", "the most requests that waited at any time in the stretch", "Longest queue"),
    "queried_tokens": Column(
        "tokens",
        "prompt tokens looked for among blocks with names, of requests first admitted in iterations that begin in the "
        "stretch; here and below, a sum, and of all replicas",
    ),
    "hit_tokens": Column("tokens", "of these, tokens found on the device", "Device"),
    "host_tokens": Column("tokens", "and tokens loaded from the host's memory", "Host"),
    "disk_tokens": Column("tokens", "and from the disk", "Disk"),
    "remote_tokens": Column("tokens", "and from a remote store", "Remote store"),
    "host_loads": Column(
        "",
        "loads from the host that wait for its link, or are on their way: their time from their iteration's begin to "
        "when they are on the device, where it begins, / the stretch's",
        "Loads, host",
    ),
    "disk_loads": Column("", "the same of the disk", "Loads, disk"),
    "remote_loads": Column("", "the same of a remote store", "Loads, remote store"),
}

REPLICAS: dict[str, Column] = {
    "strategy": STEPS["strategy"],
    "replica": Column("", "the replica's number, from 0; of several, up to 1,024, as all below", "Replica"),
    "time_s": TIMELINE["time_s"],
    "num_live": Column("", "requests live on it, the mean over the stretch, as all below", "Batch"),
    "num_waiting": Column("", "requests that have arrived at it and are not live", "Queue"),
    "allocated_bytes": Column("bytes", "bytes set aside for requests", "Held"),
    "queried_tokens": Column("tokens", "as in timeline: a sum, as the next"),
    "found_tokens": Column("tokens", "of these, tokens found on the device or loaded from tiers below it"),
}

QUALITY: dict[str, Column] = {
    "strategy": STEPS["strategy"],
    "metric": Column("", "needle_recall"),
    "depth": Column("", "where a needle stands: 0 the sequence's start, 1 its end", "Depth of the needle"),
    "value": Column("", "the metric at that depth"),
}

FRAMES = {
    "summary": SUMMARY,
    "requests": REQUESTS,
    "sessions": SESSIONS,
    "steps": STEPS,
    "timeline": TIMELINE,
    "replicas": REPLICAS,
    "quality": QUALITY,
}


def parameter_applies(parameter: str, strategy: str, strategies: Iterable[str]) -> bool:
    """Whether a sweep's column can change a strategy: any can, but for another strategy's own (strategy.NAME.…).

    Args:
        parameter: the column, named as its override.
        strategy: the strategy in question.
        strategies: all strategies of the sweep.
    """
    parts = parameter.split(".")
    is_own = len(parts) > 2 and parts[0] == "strategy" and parts[1] in strategies  # noqa: PLR2004
    return not is_own or parts[1] == strategy


def _names(name: str, column: Column) -> str:
    return ", ".join(f"`{each}`" for each in (name, *(ends(name) if column.has_interval else ())))


def markdown_table() -> str:
    """All columns as Markdown tables, one a frame; the latencies' statistics in one row each."""
    parts = []
    for frame, columns in FRAMES.items():
        rows = [f"**{frame}**", "", "| column | unit | meaning |", "| --- | --- | --- |"]
        shown = _SUMMARY if frame == "summary" else columns
        rows += [f"| {_names(name, column)} | {column.unit} | {column.meaning} |" for name, column in shown.items()]
        if frame == "summary":
            for latency, (unit, sample, _) in LATENCIES.items():
                names = ", ".join(f"`{latency_column(latency, statistic)}`" for statistic in STATISTICS)
                rows.append(f"| {names}; all but max with `_low` and `_high` | {unit} | {sample} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)
