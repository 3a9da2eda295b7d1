"""Charts: functions from frames to figures. They define no metric and measure nothing."""

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.canvas import save
from kvbench.charts.comprehensive import comprehensive_chart
from kvbench.charts.fleet import fleet_charts
from kvbench.charts.latency import latency_chart
from kvbench.charts.memory import memory_chart
from kvbench.charts.memory_quality import memory_quality_chart
from kvbench.charts.model_error import model_error_chart
from kvbench.charts.needles import needle_charts
from kvbench.charts.panels import panels_chart
from kvbench.charts.pareto import pareto_chart
from kvbench.charts.prefix import prefix_rates_chart, prefix_tiers_chart
from kvbench.charts.quality import has_quality, quality_chart
from kvbench.charts.recompute import recompute_chart
from kvbench.charts.reproduced import occupancy_chart, rates_chart, reproduced_chart
from kvbench.charts.sweep import sweep_chart
from kvbench.charts.values import ValuePanel, values_chart
from kvbench.charts.workload import run_workload_chart, workload_chart
from kvbench.results.provenance import RowKind, is_fleet, kinds, model_errors, model_notes

__all__ = [
    "ValuePanel",
    "comprehensive_chart",
    "fleet_charts",
    "latency_chart",
    "memory_chart",
    "memory_quality_chart",
    "model_error_chart",
    "needle_charts",
    "occupancy_chart",
    "panels_chart",
    "pareto_chart",
    "prefix_rates_chart",
    "prefix_tiers_chart",
    "quality_chart",
    "rates_chart",
    "recompute_chart",
    "reproduced_chart",
    "run_charts",
    "save",
    "sweep_chart",
    "sweep_charts",
    "values_chart",
    "workload_chart",
]


def run_charts(
    summary: pd.DataFrame, requests: pd.DataFrame, steps: pd.DataFrame, quality: pd.DataFrame | None = None
) -> dict[str, Figure]:
    """The charts of one job.

    Args:
        summary: a row a strategy.
        requests: a row a request, strategy and repetition.
        steps: a row a step, strategy and repetition.
        quality: needles found by depth, where there were any.
    Returns:
        Name to figure, in a report's order: memory, latency, panels, pareto, quality where a lossy strategy was probed,
        and of several requests workload; the names are those of the files.
    """
    charts = {
        "memory": memory_chart(summary, steps),
        "latency": latency_chart(summary, steps),
        "panels": panels_chart(summary),
        "pareto": pareto_chart(summary),
    }
    if has_quality(summary):
        charts["quality"] = quality_chart(summary, quality)
    if requests["session"].nunique() > 1:
        charts["workload"] = run_workload_chart(summary, requests, steps)
    return charts


def sweep_charts(summary: pd.DataFrame, parameters: list[str]) -> dict[str, Figure]:
    """The charts of a sweep.

    Only rows of one source, scope and engine are compared. Where a sweep has several, each has charts of its own, whose
    names end in what it is (sweep_measured_cache); modelled times stand beside measured ones of the same scope in a
    chart of their error, and nowhere else.

    Args:
        summary: a row a strategy and job, with a column for each parameter.
        parameters: the swept columns.
    Returns:
        Name to figure: a chart over each parameter ("sweep", or "sweep_1", "sweep_2", … of several), but for one that
        has a single value in rows that may be compared; of runs step by step, where only the scenario or the strategies
        differ, the four panels too, and where nothing but strategies and their parameters differ, so that all jobs did
        the same work, the Pareto fronts of all; and model_error.
    """
    charts = {}
    for kind in kinds(summary):
        own = _charts_of_kind(kind, parameters)
        charts |= {f"{name}{kind.ending}": figure for name, figure in own.items()}
    errors = model_errors(summary, parameters)
    if len(errors):
        charts["model_error"] = model_error_chart(errors, model_notes(summary))
    return charts


def _charts_of_kind(kind: RowKind, parameters: list[str]) -> dict[str, Figure]:
    charts, summary = {}, kind.rows
    for turn, parameter in enumerate(parameters, start=1):
        if not kind.words or summary[parameter].nunique(dropna=False) > 1:
            others = [other for other in parameters if other != parameter]
            name = "sweep" if len(parameters) == 1 else f"sweep_{turn}"
            charts[name] = sweep_chart(summary, parameter, others, kind.words)
    if is_fleet(summary):
        return charts
    if parameters in ([], ["scenario"]):
        charts["panels"] = panels_chart(summary)
    if all(parameter.startswith("strategy.") for parameter in parameters):
        charts["pareto"] = pareto_chart(summary, parameters)
        if has_quality(summary):
            charts["quality"] = quality_chart(summary, parameters=parameters)
    return charts
