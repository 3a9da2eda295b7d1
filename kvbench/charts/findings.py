"""An experiment's findings, for a terminal and as Markdown."""

from collections.abc import Iterable, Mapping

import pandas as pd

from kvbench.charts.frame import frame_markdown, frame_text
from kvbench.charts.text import markdown_escape, one_line
from kvbench.results.intervals import sentence

MAIN = "summary"


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
    charts: Iterable[str],
) -> str:
    """The report of an experiment.

    Args:
        title: plain text.
        header_lines: what was run, on what; plain text.
        sentences: what was found; plain text.
        tables: by name; the main one's is summary.
        charts: names of the charts, each in charts/<name>.png.
    """
    parts = [f"# {markdown_escape(title)}", _items(header_lines)]
    found = _items(sentences)
    parts += ["## Findings", found] if found else []
    for name, frame in tables.items():
        heading = "Results" if name == MAIN else markdown_escape(_heading(name))
        parts += [f"## {heading}", frame_markdown(frame)]
    parts.append(sentence(tables.values()))
    charts = list(charts)
    if charts:
        parts.append("## Charts")
    for name in charts:
        heading = markdown_escape(_heading(name))
        parts += [f"### {heading}", f"![{heading}](charts/{name}.png)"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(name: str) -> str:
    return one_line(name).replace("_", " ").capitalize()


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_escape(line)}" for line in lines)
