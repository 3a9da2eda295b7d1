"""Runs held against each other, as a table: what differs, and what does not."""

import math
import textwrap
from collections.abc import Iterator

import pandas as pd

from kvbench.charts.frame import WIDTH, TextColumn, markdown_table, terminal_table
from kvbench.charts.text import listed, markdown_escape, number, one_line, ratio_text, shown_unit, value_text
from kvbench.results.columns import PERCENT, ends
from kvbench.results.conditions import EQUAL, UNTOLD
from kvbench.results.schema import SUMMARY

OWN = ("run", "metric", "unit", "before", "after", "ratio", *ends("ratio"), "verdict")
QUIET = (EQUAL, UNTOLD)
"""What rows say that are told in a sentence."""


def comparison_text(rows: pd.DataFrame, baseline: str) -> str:
    """For a terminal.

    Args:
        rows: from `decide.comparison`.
        baseline: what the runs are held against.
    """
    parts = []
    for run, own in rows.groupby("run", sort=False):
        loud = own[~own["verdict"].isin(QUIET)]
        parts.append(f"{one_line(run)} over {one_line(baseline)}; ratios with {PERCENT} % intervals")
        if len(loud):
            columns = _columns(loud)
            parts.append(terminal_table(columns, len(columns) - 4))
        parts += [
            line for sentence in _sentences(own) for line in textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")
        ]
    return "\n".join(parts)


def comparison_markdown(rows: pd.DataFrame, baseline: str) -> str:
    """For a pull request; arguments as of `comparison_text`."""
    parts = []
    for run, own in rows.groupby("run", sort=False):
        loud = own[~own["verdict"].isin(QUIET)]
        said = f"**{markdown_escape(run)}** over **{markdown_escape(baseline)}**; ratios with {PERCENT} % intervals"
        parts.append(said)
        if len(loud):
            parts.append(markdown_table(_columns(loud)))
        parts += [markdown_escape(sentence) for sentence in _sentences(own)]
    return "\n\n".join(parts)


def _columns(rows: pd.DataFrame) -> list[TextColumn]:
    names = [name for name in map(str, rows) if name not in OWN]
    told = [
        TextColumn(name.removeprefix("strategy."), "", [value_text(each) for each in rows[name]], False)
        for name in names
    ]
    metrics = list(rows["metric"].astype(str))
    shown = [
        _shown(*each) for each in zip(metrics, rows["before"].astype(float), rows["after"].astype(float), strict=True)
    ]
    told.append(TextColumn("metric", "", metrics, False))
    told += [TextColumn(head, "", [each[place] for each in shown]) for place, head in enumerate(("before", "after"))]
    told.append(TextColumn("ratio", "", [_ratio(*each) for each in rows[["ratio", *ends("ratio")]].to_numpy()]))
    told.append(TextColumn("", "", list(rows["verdict"].astype(str)), False))
    return told


def _shown(metric: str, before: float, after: float) -> tuple[str, str]:
    unit = shown_unit(SUMMARY[metric], [before, after])
    before_text, after_text = (number(value / unit.divisor) for value in (before, after))
    return f"{before_text} {unit.name}".rstrip(), f"{after_text} {unit.name}".rstrip()


def _ratio(value: float, low: float, high: float) -> str:
    if math.isinf(value):
        return "∞"
    if low == high:
        return ratio_text(value)
    return f"{ratio_text(value)} [{ratio_text(low)}, {ratio_text(high)}]"


def _sentences(rows: pd.DataFrame) -> Iterator[str]:
    """What is equal, and what cannot be told apart, strategies of one set of figures together."""
    names = [name for name in map(str, rows) if name not in OWN]
    for verdict, words in zip(QUIET, (EQUAL, f"{UNTOLD} apart"), strict=True):
        by_metrics: dict[str, list[str]] = {}
        for key, part in rows.groupby(names, sort=False):
            metrics = list(part.loc[part["verdict"] == verdict, "metric"])
            if metrics:
                told = f"all {len(part)} figures" if len(metrics) == len(part) else ", ".join(metrics)
                by_metrics.setdefault(told, []).append(" ".join(map(value_text, key)))
        yield from (f"{words}, {listed(who, 4)}: {told}" for told, who in by_metrics.items())
