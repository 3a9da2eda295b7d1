"""The report: a run's rows as a table and as sentences. It defines no metric and measures nothing."""

from kvbench.report.cautions import of_busy_machine, warnings
from kvbench.report.findings import findings_markdown, findings_text
from kvbench.report.markdown import report_markdown
from kvbench.report.sentences import chart_sentences
from kvbench.report.table import table_text
from kvbench.report.text import markdown_escape

__all__ = [
    "chart_sentences",
    "findings_markdown",
    "findings_text",
    "markdown_escape",
    "of_busy_machine",
    "report_markdown",
    "table_text",
    "warnings",
]
