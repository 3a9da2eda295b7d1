"""The report as Markdown: the table, outcomes, warnings, and each chart with what it shows."""

from collections.abc import Iterable, Mapping

import pandas as pd

from kvbench.report.sentences import chart_sentences, failures, warnings
from kvbench.report.table import is_lossy, table_markdown
from kvbench.report.text import markdown_escape

TITLES = {
    "memory": "Memory over tokens",
    "latency": "Step time",
    "panels": "Memory, utilization, resizes, efficiency",
    "pareto": "Memory against time",
    "quality": "What lossy strategies cost",
    "workload": "Workload",
}
INTERVALS = (
    "± is the half width of the 95 % confidence interval, from repetitions. Peak is the most bytes live at any time, "
    "a resize's second buffer and staging buffers (through which blocks, few bits and slower tiers are read) "
    "included; of a pool it counts the blocks handed out. Util. is used over allocated bytes of slots, averaged over "
    "tokens; waste is slots that no token ever fills; admit is the time of allocating at admission (on a CPU the "
    "kernel's, to give pages, is in it), stall that of resizing. TTFT, TPOT and queue are means over requests (TTFT "
    "and TPOT over completed ones); throughput is tokens appended over the time of all steps. All times are of the "
    "cache and its attention alone, not of a whole model."
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
) -> str:
    """The report of a run or a sweep.

    Args:
        title: plain text.
        header_lines: what was run, on what; plain text.
        summary: a row a strategy, or a row a strategy and job.
        charts: names of the charts, in order, each in charts/<name>.png; a mapping adds sentences (Markdown) to those
            that are computed from the rows.
        parameters: columns that tell jobs apart; None finds them.
    """
    parts = [f"# {markdown_escape(title)}", _items(markdown_escape(line) for line in header_lines)]
    parts += ["## Results", table_markdown(summary, parameters), INTERVALS]
    if is_lossy(summary).any() and summary["error_relative"].notna().any():
        parts.append(OF_LOSSY)
    for heading, lines in (
        ("Not completed", failures(summary, parameters)),
        ("Warnings", warnings(summary, parameters)),
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


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
