"""The one chart that a verb draws where a file is named for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.configuration.errors import UsageError, WriteFailed

if TYPE_CHECKING:
    from kvbench.charts.chart import Chart

ENDINGS = (".png", ".svg")


def chart_path(text: str | None) -> Path | None:
    """The file that a chart is to be drawn as; None where none is named.

    Raises:
        UsageError: its name ends otherwise.
    """
    if text is not None and Path(text).suffix not in ENDINGS:
        raise UsageError(f"chart is a file whose name ends in .png or .svg, of which both are written, got {text!r}")
    return None if text is None else Path(text).expanduser()


def draw(chart: "Chart", path: Path) -> str:
    """Draw a chart as PNG and SVG; the files' names.

    Raises:
        WriteFailed: a file cannot be written.
    """
    from kvbench.charts.chart import save  # it loads Matplotlib

    try:
        return ", ".join(map(str, save(chart.figure(), path.parent, path.stem)))
    except OSError as error:
        raise WriteFailed(f"chart={path}: it cannot be written: {error.strerror or error}") from error
