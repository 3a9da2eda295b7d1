"""The table: a readable part of the summary, a row a strategy, with units."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.charts.frame import WIDTH, TextColumn, markdown_table, terminal_table
from kvbench.charts.limits import binding_limits, is_bound, pool_notes
from kvbench.charts.rows import is_lossy, parameters_of
from kvbench.charts.text import MIB, number, one_line, value_text
from kvbench.results.intervals import halves_of
from kvbench.results.provenance import any_fleet, kinds, model_notes
from kvbench.results.quality_columns import KL, WHERE

NAME_WIDTH = 24
LONG = {"µs": ("ms", 1e3), "ms": ("s", 1e3)}
LONG_FROM = 10_000.0
"""The largest value from which a column is in the next unit."""


class _Column(NamedTuple):
    """A column of numbers: what its head says, the summary's column, what its values are divided by, and the least that
    is written out.
    """

    head: str
    unit: str
    source: str
    divisor: float = 1.0
    least: float = 0.0


COLUMNS = (
    _Column("peak", "MiB", "peak_bytes", MIB),
    _Column("mean", "MiB", "mean_allocated_bytes", MIB),
    _Column("staging", "MiB", "workspace_bytes", MIB),
    _Column("pool", "MiB", "pool_bytes", MIB),
    _Column("host", "MiB", "peak_host_bytes", MIB),
    _Column("disk", "MiB", "peak_disk_bytes", MIB),
    _Column("reserved", "MiB", "allocator_reserved_bytes", MIB),
    _Column("unused", "%", "allocator_unused_share", 0.01),
    _Column("util.", "%", "utilization_mean", 0.01),
    _Column("waste", "%", "waste_share", 0.01),
    _Column("external", "%", "external_share", 0.01),
    _Column("batch", "", "mean_batch"),
    _Column("resizes", "", "num_resizes"),
    _Column("copied", "MiB", "copied_bytes", MIB),
    _Column("moved", "MiB", "moved_bytes", MIB),
    _Column("found", "%", "hit_share", 0.01),
    *(_Column(f"+ {tier}", "%", f"{tier}_hit_share", 0.01) for tier in ("host", "disk", "remote")),
    _Column("preempted", "", "num_preemptions"),
    _Column("queue", "ms", "queue_mean_s", 1e-3),
    _Column("admit", "ms", "admit_s", 1e-3),
    _Column("stall", "ms", "stall_s", 1e-3),
    _Column("step p50", "µs", "step_p50_us"),
    _Column("step mean", "µs", "step_mean_us"),
    _Column("step p99", "µs", "step_p99_us"),
    _Column("step max", "µs", "step_max_us"),
    _Column("TTFT", "ms", "ttft_mean_s", 1e-3),
    _Column("TTFT p50", "ms", "ttft_p50_s", 1e-3),
    _Column("TTFT p99", "ms", "ttft_p99_s", 1e-3),
    _Column("TPOT", "ms", "tpot_mean_s", 1e-3),
    _Column("TPOT p50", "ms", "tpot_p50_s", 1e-3),
    _Column("TPOT p99", "ms", "tpot_p99_s", 1e-3),
    _Column("throughput", "tokens/s", "tokens_per_s"),
    _Column("served", "requests/s", "requests_per_s"),
    _Column("goodput", "requests/s", "goodput_per_s"),
    _Column("attained", "%", "attained_share", 0.01),
    _Column("kept", "%", "kept_fraction", 0.01),
    _Column("error", "%", "error_relative", 0.01, least=0.001),
    _Column("cosine", "", "cosine"),
    _Column("mass", "%", "mass_kept", 0.01),
    _Column("recall", "%", "needle_recall", 0.01),
    _Column("KL", "nats", KL, least=0.0001),
)
STANDS_IN = {"step_mean_us": "step_p50_us", "ttft_mean_s": "ttft_p50_s", "tpot_mean_s": "tpot_p50_s"}
"""A column that is shown only where another is empty for all rows."""
WITH_INTERVAL = {"tokens_per_s"}
OF_SEVERAL = {"num_preemptions", "queue_mean_s"}
"""Columns that say something only where requests stood in each other's way."""
LEAST_SHOWN = 0.001
WHERE_ANY = {"workspace_bytes", "pool_bytes", "peak_host_bytes", "peak_disk_bytes", "moved_bytes", KL} | {
    f"{tier}_hit_share" for tier in ("host", "disk", "remote")
}
"""Columns that are left out where all are 0."""
OF_FLEET = {
    *("external_share", "mean_batch", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s"),
    *("requests_per_s", "goodput_per_s", "attained_share"),
}
"""Columns of the service that a simulated fleet gives."""
OF_LOSSY = {"kept_fraction", "error_relative", "cosine", "mass_kept", "needle_recall"}
"""Columns that say something only where some strategy is lossy."""


def table_text(summary: pd.DataFrame, parameters: list[str] | None = None) -> str:
    """The table for a terminal: lines of at most 120 characters, in blocks one below the other if need be.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart; None finds them.
    Returns:
        The text. A column that is empty for all rows is left out; ± is half the width of the interval.
        Which rows their own pool held up stands above, and what modelled times are worth.
    """
    names, values = _columns(summary, parameters_of(summary, parameters))
    names = [name._replace(head=_cut(name.head), cells=[_cut(cell) for cell in name.cells]) for name in names]
    held_up = [line for note in pool_notes(summary, parameters_of(summary, parameters)) for line in _wrapped(note)]
    return "\n".join([*held_up, *notes_text(summary), terminal_table([*names, *values], len(names))])


def notes_text(summary: pd.DataFrame) -> list[str]:
    """What modelled times are worth, and what KL is of, in lines that fit a terminal."""
    return [line for note in (*model_notes(summary), *_quality_notes(summary)) for line in _wrapped(note)]


def _quality_notes(summary: pd.DataFrame) -> list[str]:
    """A sentence a measurement that KL comes from, where it is shown."""
    if not _is_shown(summary, KL):
        return []
    rows = summary[summary[KL].gt(0)]
    return [f"KL of {', '.join(own['strategy'].unique())}: {where}." for where, own in rows.groupby(WHERE, sort=False)]


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(one_line(note), WIDTH)


def table_markdown(summary: pd.DataFrame, parameters: list[str] | None = None) -> str:
    """The table as Markdown, names escaped.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart; None finds them.
    """
    names, values = _columns(summary, parameters_of(summary, parameters))
    return markdown_table([*names, *values])


def _columns(summary: pd.DataFrame, parameters: list[str]) -> tuple[list[TextColumn], list[TextColumn]]:
    """Columns of names and columns of numbers."""
    names: list[tuple[str, Iterable[str]]] = [("strategy", map(one_line, summary["strategy"]))]
    names += [(parameter.removeprefix("strategy."), map(value_text, summary[parameter])) for parameter in parameters]
    if len(kinds(summary)) > 1:
        told = zip(summary["source"], summary["scope"], strict=True)
        names.append(("times", [one_line(f"{source}, {scope}") for source, scope in told]))
    names.append(("outcome", map(one_line, summary["outcome"])))
    if is_bound(summary):
        names.append(("bound by", binding_limits(summary)))
    shown = [_numbers(summary, column) for column in COLUMNS if _is_shown(summary, column.source)]
    return [TextColumn(head, "", list(cells), is_number=False) for head, cells in names], shown


def _is_shown(summary: pd.DataFrame, source: str) -> bool:
    there = source in summary and summary[source].notna().any()
    if source in OF_SEVERAL and not (summary["num_requests"].gt(1) & summary[source].gt(LEAST_SHOWN)).any():
        return False
    if source in WHERE_ANY and not (there and summary[source].gt(0).any()):
        return False
    if source in OF_LOSSY and not is_lossy(summary).any():
        return False
    if source in OF_FLEET and not any_fleet(summary):
        return False
    return bool(there) and not (source in STANDS_IN and _is_shown(summary, STANDS_IN[source]))


def _numbers(summary: pd.DataFrame, column: _Column) -> TextColumn:
    values = summary[column.source].to_numpy(dtype=float) / column.divisor
    unit, scale = column.unit, 1.0
    if unit in LONG and np.nanmax(values) >= LONG_FROM:
        unit, scale = LONG[unit]
    texts = [number(value / scale) if not 0 < value < column.least else f"<{column.least:g}" for value in values]
    if column.source in WITH_INTERVAL:
        spread = halves_of(summary, column.source)
        texts = [f"{text} ± {number(half)}" for text, half in zip(texts, spread, strict=True)]
        texts = [text.removesuffix(" ± –") for text in texts]
    return TextColumn(column.head, unit, texts)


def _cut(text: str) -> str:
    return text if len(text) <= NAME_WIDTH else f"{text[: NAME_WIDTH // 2 - 1]}…{text[-NAME_WIDTH // 2 :]}"
