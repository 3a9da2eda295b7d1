"""The article's comprehensive benchmark: four panels over its workloads."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.canvas import canvas, finish
from kvbench.charts.panels import Panel, groups, legend_of_bars
from kvbench.charts.rows import failures, strategy_names
from kvbench.charts.style import looks, short_names

PANELS = (
    Panel("Memory: peak of live bytes (mark: all allocations, summed)", "peak_bytes", "cumulative_bytes", log=True),
    Panel("Peak utilization (mark: mean)", "utilization_peak", "utilization_mean"),
    Panel("Resizes in a repetition", "num_resizes"),
    Panel("Efficiency: peak utilization ÷ 1000 cumulative MiB", "efficiency"),
)
NAME_LENGTH = 18


def comprehensive_chart(table: pd.DataFrame, what: str, notes: Sequence[str] = ()) -> Figure:
    """Memory, utilization, resizes and efficiency, a group of bars a workload.

    A strategy that does not hold a workload has a cross with its outcome and no bar.

    Args:
        table: a row a scenario and strategy, with an outcome and the four panels' columns, empty where not completed.
        what: under which capacities, for the title.
        notes: sentences at the foot, before its own.
    Source: the article, its comprehensive benchmark.
    Departs: memory is the peak of live bytes; the article's figure is the mark.
    """
    names = strategy_names(table)
    style, short = looks(names), short_names(names)
    scenarios = short_names(dict.fromkeys(table["scenario"].astype(str)), NAME_LENGTH)
    figure, panels = canvas(2, 2, 6.4)
    for axes, panel in zip(panels, PANELS, strict=True):
        groups(axes, table, panel, names, style, scenarios)
    notes = [*notes, *failures(table)]
    if failures(table):
        notes.append("A cross marks a strategy that cannot hold a workload: it has no figures there.")
    tiered = strategy_names(table[table["peak_host_bytes"] > 0])
    if tiered:
        notes.append(f"Bars are the device's memory. What {', '.join(tiered)} keeps in the host's is in the mark only.")
    return finish(figure, f"The comprehensive benchmark: {what}", legend_of_bars(table, style, short), notes)
