"""A report as Markdown: what to conclude, how to do it again, the table, warnings, and charts with what they show."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pandas as pd

from kvbench.charts.cautions import apart, failures, warnings
from kvbench.charts.chart import Chart
from kvbench.charts.frame import frame_markdown, frame_text
from kvbench.charts.rows import is_lossy, parameters_of
from kvbench.charts.table import table_markdown
from kvbench.charts.text import markdown_escape, one_line
from kvbench.charts.tiers import break_even
from kvbench.charts.verdict import verdict
from kvbench.results.intervals import sentence
from kvbench.results.provenance import any_fleet, is_fleet, model_notes

MAIN = "summary"
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
    "not usable while a request waits for it, as a share of allocated and external together. Batch is requests "
    "live on a replica, averaged over the time of all steps; found, where blocks have names, is prompt tokens "
    "found on the device over those looked for, with + those loaded from a tier below; queue the mean time from "
    "arrival to admission; TTFT and TPOT are "
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
    "is beyond the most that was ever allocated: external fragmentation. Where measured, both hold what attention "
    "needs in passing, which no strategy books; attend=false leaves that out. "
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
    charts: Iterable[Chart],
    parameters: list[str] | None = None,
    cautions: Iterable[str] = (),
    again: str = "",
    tables: Mapping[str, pd.DataFrame] = MappingProxyType({}),
) -> str:
    """The report of a run or a sweep.

    Args:
        title: plain text.
        header_lines: what was run, on what; plain text.
        summary: a row a strategy, or a row a strategy and job.
        charts: in order, each in charts/<name>.png.
        parameters: columns that tell jobs apart; None finds them.
        cautions: warnings that are not computed from the rows.
        again: the command that makes the same again.
        tables: further ones, by name.
    """
    parts = [f"# {markdown_escape(title)}", _items(verdict(summary, parameters)), _command(again)]
    parts.append(_items(map(markdown_escape, header_lines)))
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
    paid = break_even(summary, parameters_of(summary, parameters))
    parts += ["## Tiers below the device", _items(paid)] if paid else []
    for name, frame in tables.items():
        parts += [f"## {markdown_escape(_heading(name))}", frame_markdown(frame)]
    parts += _charts((chart.heading, chart.name, chart.sentences()) for chart in charts)
    return "\n\n".join(part for part in parts if part) + "\n"


def _explained(summary: pd.DataFrame) -> str:
    """What the table's figures are."""
    text = f"{sentence([summary])} ".lstrip()
    text += "" if is_fleet(summary) else OF_STEPS
    text += OF_FLEET if any_fleet(summary) else ""
    text += OF_ALLOCATOR if summary["allocator_reserved_bytes"].notna().any() else ""
    scopes = summary["scope"].unique()
    return (text + (SCOPES.get(scopes[0], "") if len(scopes) == 1 else "")).strip()


def _command(again: str) -> str:
    return f"```sh\n{one_line(again)}\n```" if again else ""


def _charts(charts: Iterable[tuple[str, str, list[str]]]) -> list[str]:
    """Each chart under its heading, with what is said of it."""
    parts = []
    for heading, name, sentences in charts:
        shown = markdown_escape(heading)
        parts += [f"### {shown}", f"![{shown}](charts/{name}.png)", _items(sentences)]
    return ["## Charts", *parts] if parts else []


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def findings_text(sentences: Iterable[str], tables: Mapping[str, pd.DataFrame]) -> str:
    """The tables, each under its name but for the main one, and the sentences.

    Args:
        sentences: plain text.
        tables: by name; the main one's is summary.
    """
    shown = [
        frame_text(frame) if name == MAIN else f"{_heading(name)}\n{frame_text(frame)}"
        for name, frame in tables.items()
    ]
    return "\n\n".join([*shown, "\n".join(map(one_line, sentences))])


def findings_markdown(
    title: str,
    header_lines: Iterable[str],
    sentences: Iterable[str],
    tables: Mapping[str, pd.DataFrame],
    charts: Iterable[Chart],
    again: str = "",
) -> str:
    """The report of an experiment.

    Args:
        title: plain text.
        header_lines: what was run, on what; plain text.
        sentences: what was found; plain text.
        tables: by name; the main one's is summary.
        charts: in order, each in charts/<name>.png.
        again: the command that makes the same again.
    """
    found = _items(map(markdown_escape, sentences))
    parts = [f"# {markdown_escape(title)}", *(["## Findings", found] if found else []), _command(again)]
    parts.append(_items(map(markdown_escape, header_lines)))
    for name, frame in tables.items():
        heading = "Results" if name == MAIN else markdown_escape(_heading(name))
        parts += [f"## {heading}", frame_markdown(frame)]
    parts.append(sentence(tables.values()))
    parts += _charts((_heading(chart.name), chart.name, chart.sentences()) for chart in charts)
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(name: str) -> str:
    return one_line(name).replace("_", " ").capitalize()
