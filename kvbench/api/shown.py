"""Results as a reader sees them, whatever ran: the table, the charts and the report."""

from collections.abc import Iterable

import pandas as pd

from kvbench.charts.catalogue import fleet_charts, run_charts, sweep_charts
from kvbench.charts.cautions import of_busy_machine, of_small_caches, warnings
from kvbench.charts.chart import Chart, DrawnChart
from kvbench.charts.report import findings_markdown, findings_text, report_markdown
from kvbench.charts.table import table_text
from kvbench.results.provenance import is_fleet
from kvbench.results.results import Results
from kvbench.results.schema import TIMELINE
from kvbench.studies.base import Findings


def text_of(results: Results) -> str:
    """The table, and what must be known before rows are compared with others' runs."""
    if _is_study(results):
        return findings_text(_sentences(results), _tables(results))
    return "\n".join([table_text(results.summary, _swept(results)), *busy(results)])


def charts_of(results: Results) -> list[Chart]:
    """The charts, in a report's order; of a study that was read from a folder none, its own are there."""
    if _is_study(results):
        own = results.charts if isinstance(results, Findings) else {}
        return [DrawnChart(name=name, drawn=figure) for name, figure in own.items()]
    of = str(results.environment.get("subject", "".join(_header(results)[1:2])))
    if (swept := _swept(results)) is not None:
        return sweep_charts(results.judged, swept, of)
    if is_fleet(results.summary):
        timeline = pd.DataFrame(columns=list(TIMELINE)) if results.timeline is None else results.timeline
        return fleet_charts(results.judged, results.requests, timeline, of, results.replicas)
    return run_charts(results.judged, results.requests, results.steps, results.quality, of)


def report_of(results: Results, charts: Iterable[Chart]) -> str:
    """The report as Markdown.

    Args:
        results: of a run, a simulation, a study or a sweep.
        charts: those that are drawn, each in charts/<name>.png.
    """
    title, header, again = name_of(results), _header(results), str(results.environment.get("again", ""))
    if _is_study(results):
        return findings_markdown(title, header, _sentences(results), _tables(results), charts, again)
    tables = results.tables
    return report_markdown(title, header, results.judged, charts, _swept(results), busy(results), again, tables)


def num_warnings(results: Results) -> int:
    """How many the report has."""
    if _is_study(results) or is_fleet(results.summary):
        return 0
    return len(busy(results)) + len(warnings(results.summary, _swept(results)))


def name_of(results: Results) -> str:
    """What was run: a scenario, an experiment, or a sweep."""
    made = results.environment
    return "sweep" if "swept" in made else str(made.get("experiment") or made.get("scenario") or "results")


def _header(results: Results) -> list[str]:
    """What was run, on what; the second line says on what model and machine."""
    return [str(line) for line in results.environment.get("header", [])]


def _is_study(results: Results) -> bool:
    """Whether the summary has a form of its own."""
    return "experiment" in results.environment or "peak_bytes" not in results.summary or results.summary.empty


def _swept(results: Results) -> list[str] | None:
    """Columns of the parameters that differ between a sweep's jobs; None of what is no sweep."""
    swept = results.environment.get("swept")
    return None if swept is None else [str(key) for key in swept if key in results.summary and key != "strategy"]


def _sentences(results: Results) -> list[str]:
    return [*(results.sentences if isinstance(results, Findings) else []), *busy(results)]


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    own = {} if results.summary.empty and not results.tables else {"summary": results.summary}
    return {**own, **results.tables}


def busy(results: Results) -> list[str]:
    """Sentences where others worked beside what was measured, or a device's memory was hardly read."""
    shares = results.environment.get("others_share")
    busy = of_busy_machine(shares if isinstance(shares, list) else [shares])
    return [*busy, *of_small_caches(results.steps, results.environment)]
