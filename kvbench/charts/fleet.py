"""The charts of a fleet's simulation: what service it gives, where its memory goes, and what waits."""

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.fleet_load import fleet_load_chart
from kvbench.charts.fleet_memory import fleet_memory_chart
from kvbench.charts.fleet_service import fleet_service_chart
from kvbench.charts.fleet_times import fleet_times_chart
from kvbench.charts.workload import workload_chart
from kvbench.results.provenance import model_notes


def fleet_charts(summary: pd.DataFrame, requests: pd.DataFrame, timeline: pd.DataFrame) -> dict[str, Figure]:
    """The charts of one simulation.

    Args:
        summary: a row a strategy.
        requests: a row a request and strategy; may be empty.
        timeline: a row a stretch of time and strategy, columns as in schema.TIMELINE; may be empty.
    Returns:
        Name to figure, in a report's order: fleet_service, fleet_memory, fleet_load; where there are requests'
        rows fleet_times, and of several workload; the names are those of the files.
    """
    charts = {
        "fleet_service": fleet_service_chart(summary),
        "fleet_memory": fleet_memory_chart(summary, timeline),
        "fleet_load": fleet_load_chart(summary, timeline),
    }
    if len(requests):
        charts["fleet_times"] = fleet_times_chart(summary, requests)
    if len(requests) and summary["num_requests"].max() > 1:
        charts["workload"] = _workload(summary, requests, timeline)
    return charts


def _workload(summary: pd.DataFrame, requests: pd.DataFrame, timeline: pd.DataFrame) -> Figure:
    """The requests as the first strategy met them."""
    first = str(summary["strategy"].iloc[0])
    met, over = (frame[(frame["strategy"] == first).to_numpy(dtype=bool)] for frame in (requests, timeline))
    lengths = (met["prompt_tokens"].to_numpy(), met["output_tokens"].to_numpy(), met["arrival_s"].to_numpy())
    live = (over["time_s"].to_numpy(dtype=float), over["num_live"].to_numpy(dtype=float)) if len(over) else None
    name = f"{summary['scenario'].iloc[0]} as {first} met it"
    return workload_chart(name, *lengths, live, model_notes(summary))
