"""The charts of a run, of a fleet's simulation and of a sweep, in a report's order."""

from dataclasses import replace
from typing import Any

import pandas as pd

from kvbench.charts.chart import Chart
from kvbench.charts.fleet_service import FleetServiceChart, FleetTimesChart
from kvbench.charts.fleet_timeline import FleetLoadChart, FleetMemoryChart
from kvbench.charts.hits import HitsChart
from kvbench.charts.latency import LatencyChart
from kvbench.charts.memory import MemoryChart
from kvbench.charts.model_error import ModelErrorChart
from kvbench.charts.panels import PanelsChart
from kvbench.charts.quality import QualityChart, has_quality
from kvbench.charts.replicas import ReplicasChart
from kvbench.charts.sweep import SweepChart
from kvbench.charts.tradeoff import ParetoChart
from kvbench.charts.turns import TurnsChart
from kvbench.charts.workload import WorkloadChart
from kvbench.results.provenance import RowKind, is_fleet, kinds, model_errors, model_notes


def run_charts(
    summary: pd.DataFrame,
    requests: pd.DataFrame,
    steps: pd.DataFrame,
    quality: pd.DataFrame | None = None,
    subject: str = "",
) -> list[Chart]:
    """The charts of one job.

    Args:
        summary: a row a strategy.
        requests: a row a request, strategy and repetition.
        steps: a row a step, strategy and repetition.
        quality: needles found by depth, where there were any.
        subject: what was run on what, under each title.
    """
    of: dict[str, Any] = {"summary": summary, "subject": subject}
    charts: list[Chart] = [
        MemoryChart(steps=steps, **of),
        LatencyChart(steps=steps, **of),
        PanelsChart(**of),
        ParetoChart(**of),
    ]
    if has_quality(summary):
        charts.append(QualityChart(quality=quality, **of))
    if len(requests) and summary["num_requests"].max() > 1:
        charts.append(WorkloadChart.of_run(summary, requests, steps, subject))
    return [*charts, *_turns(summary, requests, subject)]


def _turns(summary: pd.DataFrame, requests: pd.DataFrame, subject: str) -> list[Chart]:
    """The chart of turns, where there are several and a request is one."""
    has_turns = len(requests) and requests["turn"].max() > 0 and requests["ttft_s"].notna().any()
    return [TurnsChart(summary=summary, requests=requests, subject=subject)] if has_turns else []


def fleet_charts(
    summary: pd.DataFrame,
    requests: pd.DataFrame,
    timeline: pd.DataFrame,
    subject: str = "",
    replicas: pd.DataFrame | None = None,
) -> list[Chart]:
    """The charts of one simulation.

    Args:
        summary: a row a strategy.
        requests: a row a request and strategy; may be empty.
        timeline: a row a stretch of time and strategy, columns as in schema.TIMELINE; may be empty.
        subject: what was run on what, under each title.
        replicas: a row a stretch of time, replica and strategy; None: there are not several replicas.
    """
    of: dict[str, Any] = {"summary": summary, "subject": subject}
    charts: list[Chart] = [
        FleetServiceChart(**of),
        FleetMemoryChart(timeline=timeline, **of),
        FleetLoadChart(timeline=timeline, **of),
    ]
    if len(timeline) and timeline.get("queried_tokens", pd.Series(dtype=float)).gt(0).any():
        charts.append(HitsChart(timeline=timeline, **of))
    if replicas is not None and len(replicas):
        charts.append(ReplicasChart(replicas=replicas, **of))
    if len(requests):
        charts.append(FleetTimesChart(requests=requests, **of))
    if len(requests) and summary["num_requests"].max() > 1:
        charts.append(WorkloadChart.of_fleet(summary, requests, timeline, subject))
    return [*charts, *_turns(summary, requests, subject)]


def sweep_charts(summary: pd.DataFrame, parameters: list[str], subject: str = "") -> list[Chart]:
    """The charts of a sweep.

    Only rows of one source, scope and simulated_by are compared. Where a sweep has several, each has charts of its own,
    whose names end in what it is (sweep_measured_cache); modelled times stand beside measured ones of the same scope in
    a chart of their error, and nowhere else.

    Args:
        summary: a row a strategy and job, with a column for each parameter.
        parameters: the swept columns.
        subject: what was run on what, under each title.
    Returns:
        A chart over each parameter ("sweep", or "sweep_1", "sweep_2", … of several), but for one that has a single
        value in rows that may be compared; of runs step by step, where only the scenario or the strategies differ, the
        panels too, and where nothing but strategies and their parameters differ, so that all jobs did the same work,
        the Pareto fronts of all; and model_error.
    """
    charts: list[Chart] = []
    for kind in kinds(summary):
        charts += [replace(chart, name=f"{chart.name}{kind.ending}") for chart in _of_kind(kind, parameters, subject)]
    errors = model_errors(summary, parameters)
    if len(errors):
        charts.append(ModelErrorChart(errors=errors, notes=model_notes(summary), subject=subject))
    return charts


def _of_kind(kind: RowKind, parameters: list[str], subject: str) -> list[Chart]:
    charts: list[Chart] = []
    of: dict[str, Any] = {"summary": kind.rows, "subject": subject}
    for turn, parameter in enumerate(parameters, start=1):
        if not kind.words or kind.rows[parameter].nunique(dropna=False) > 1:
            others = [other for other in parameters if other != parameter]
            name = "sweep" if len(parameters) == 1 else f"sweep_{turn}"
            heading = f"What {parameter.removeprefix('strategy.')} changes{f' ({kind.words})' if kind.words else ''}"
            charts.append(
                SweepChart(name=name, heading=heading, parameter=parameter, others=others, what=kind.words, **of)
            )
    if is_fleet(kind.rows):
        return charts
    if parameters in ([], ["scenario"]):
        charts.append(PanelsChart(parameters=parameters, **of))
    if all(parameter.startswith("strategy.") for parameter in parameters):
        charts.append(ParetoChart(parameters=parameters, **of))
        if has_quality(kind.rows):
            charts.append(QualityChart(parameters=parameters, **of))
    return charts
