"""Memory against time: which strategies no other beats in both."""

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.canvas import canvas, finish, label
from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.style import looks, short_names
from kvbench.charts.tradeoff import (
    PEAK,
    UNDECIDED,
    legend_of_points,
    name_points,
    notes_of_points,
    peak_memory,
    points_panel,
    row_texts,
)
from kvbench.results.front import contested, cost_of
from kvbench.results.provenance import require_one_kind
from kvbench.results.schema import SUMMARY


def pareto_chart(summary: pd.DataFrame, parameters: list[str] | None = None) -> Figure:
    """Peak memory against total time, stalls with admissions, and a high percentile of decode steps, with its front.

    The front joins the strategies that no other beats in both; a difference within the intervals decides nothing. A
    strategy that did not complete, or is a reference, is hollow and on no front. Beyond 12 points only those on the
    front are named. Bars are what figures may be off by: 90 % intervals from repetitions, or the model's
    error.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: swept columns, whose values then stand beside the name.
    Raises:
        ValueError: rows differ in source, scope or engine.
    """
    require_one_kind(summary, "a front of memory and time")
    names = strategy_names(summary)
    style, short = looks(names), short_names(names)
    columns = contested(summary)
    figure, panels = canvas(1, len(columns), 3.9)
    memory, unit = peak_memory(summary)
    drawn = []
    for axes, column in zip(panels, columns, strict=True):
        label(axes, "", f"{PEAK.label} memory ({unit.name})", SUMMARY[column].label)
        drawn.append(points_panel(axes, summary, column, memory, style))
    notes = [*notes_of(summary), *notes_of_points(summary)]
    if not any(cost_of(summary, column).is_known.any() for column in columns):
        notes.append(f"{UNDECIDED.capitalize()}.")
    if parameters:
        notes.append(f"Beside a name: {', '.join(parameter.removeprefix('strategy.') for parameter in parameters)}.")
    legend = legend_of_points(summary, style, short)
    finish(figure, "Peak memory against time: lower left is better", legend, notes)
    texts = row_texts(summary, parameters or [])
    for axes, panel in zip(panels, drawn, strict=True):
        if panel is not None:
            name_points(figure, axes, panel, texts)
    return figure
