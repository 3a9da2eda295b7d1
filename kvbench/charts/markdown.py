"""The report as Markdown: the table, outcomes, warnings, and each chart with what it shows."""

from collections.abc import Iterable, Mapping

import pandas as pd

from kvbench.charts.cautions import failures, warnings
from kvbench.charts.jobs import row_names
from kvbench.charts.limits import bound_by, is_bound
from kvbench.charts.modelled import apart
from kvbench.charts.pools import pool_notes
from kvbench.charts.sentences import chart_sentences
from kvbench.charts.table import is_lossy, parameters_of, table_markdown
from kvbench.charts.text import markdown_escape
from kvbench.results.intervals import sentence
from kvbench.results.provenance import any_fleet, is_fleet, model_notes

TITLES = {
    "memory": "Memory over tokens",
    "latency": "Step time",
    "panels": "Memory, utilization, resizes, efficiency",
    "pareto": "Memory against time",
    "quality": "What lossy strategies cost",
    "workload": "Workload",
    "fleet_service": "Service",
    "fleet_memory": "Where memory goes",
    "fleet_load": "Batch and queue",
    "fleet_times": "Times of requests",
    "model_error": "Modelled against measured",
}
OF_STEPS = (
    "Peak is the most bytes live at any time, a resize's second buffer and staging buffers (through which blocks, few "
    "bits and slower tiers are read) included; of a pool it counts the blocks handed out. Util. is used over allocated "
    "bytes of slots, averaged over tokens; waste is slots that no token ever fills; admit is the time of allocating at "
    "admission (on a CPU the kernel's, to give pages, is in it), stall that of resizing. TTFT, TPOT and queue are "
    "means over requests (TTFT and TPOT over completed ones); throughput is prompt and output tokens over the "
    "time of all steps. "
)
OF_FLEET = (
    "Peak is the most bytes that one replica held at any time. Util. is used over allocated bytes, averaged over time; "
    "waste is slots that no token ever fills, both as shares of what is allocated; external is memory that is free but "
    "not usable while a request waits for it, as a share of allocated and external together. Batch is requests live on "
    "a replica, averaged over the time of all steps; queue the mean time from arrival to admission; TTFT and TPOT are "
    "of completed requests, and a percentile with fewer than ten of them beyond it is left empty. Throughput is prompt "
    "and output tokens of completed requests, served those requests, and goodput those of them within the objectives, "
    "all over the time from the first arrival to the last end; attained is the share of all requests that goodput "
    "counts. "
)
SCOPES = {
    "cache": "All times are of the cache and its attention alone, not of a whole model.",
    "model": "All times are of a whole model, its weights and projections included.",
}

OF_ALLOCATOR = (
    "Reserved is the most that the device's allocator, or the model of one, took from the driver; unused what of that "
    "is beyond the most that was ever allocated: external fragmentation. "
)
OF_LOSSY = (
    "Kept is tokens that attention still reads over tokens seen, at the run's end. The columns after it come from one "
    "request, driven apart from the timed run: error is the distance of attention's output from the exact one, over "
    "every token unchanged, as a share of that one's length; cosine is that of the two; mass is the share of exact "
    "attention on what is still read; recall is the share of needles that are found when all was appended, of which no "
    "strategy knows beforehand."
)


def report_markdown(
    title: str,
    header_lines: list[str],
    summary: pd.DataFrame,
    charts: Iterable[str] | Mapping[str, str | list[str]],
    parameters: list[str] | None = None,
    cautions: Iterable[str] = (),
) -> str:
    """The report of a run or a sweep.

    Args:
        title: plain text.
        header_lines: what was run, on what; plain text.
        summary: a row a strategy, or a row a strategy and job.
        charts: names of the charts, in order, each in charts/<name>.png; a mapping adds sentences (Markdown) to those
            that are computed from the rows.
        parameters: columns that tell jobs apart; None finds them.
        cautions: warnings that are not computed from the rows.
    """
    swept = parameters_of(summary, parameters)
    bound = bound_by(summary, row_names(summary, swept)) if is_bound(summary) else []
    bound = [*pool_notes(summary, swept), *bound]
    parts = [f"# {markdown_escape(title)}", _items([*bound, *map(markdown_escape, header_lines)])]
    notes = _items(markdown_escape(note) for note in [*model_notes(summary), *apart(summary)])
    parts += ["## Results", notes, table_markdown(summary, parameters), _explained(summary)]
    if is_lossy(summary).any() and summary["error_relative"].notna().any():
        parts.append(OF_LOSSY)
    for heading, lines in (
        ("Not completed", failures(summary, parameters)),
        ("Warnings", [*cautions, *warnings(summary, parameters)]),
    ):
        if lines:
            parts += [f"## {heading}", _items(lines)]
    if charts:
        parts.append("## Charts")
    computed = chart_sentences(summary, parameters)
    for name in charts:
        given = charts[name] if isinstance(charts, Mapping) else []
        sentences = [*computed.get(name, []), *([given] if isinstance(given, str) else given)]
        heading = TITLES.get(name, name.replace("_", " ").capitalize())
        parts += [f"### {heading}", f"![{heading}](charts/{name}.png)", _items(filter(None, sentences))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _explained(summary: pd.DataFrame) -> str:
    """What the table's figures are."""
    text = f"{sentence([summary])} ".lstrip()
    text += "" if is_fleet(summary) else OF_STEPS
    text += OF_FLEET if any_fleet(summary) else ""
    text += OF_ALLOCATOR if summary["allocator_reserved_bytes"].notna().any() else ""
    scopes = summary["scope"].unique()
    return (text + (SCOPES.get(scopes[0], "") if len(scopes) == 1 else "")).strip()


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
