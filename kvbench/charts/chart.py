"""A chart: its figure and what is said of it in one class; and a figure's two files."""

import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from kvbench.files import clear, partial_of

DPI = 150


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The base of all charts: a figure, and sentences about it. A chart measures nothing and defines no metric.

    Args:
        name: of its files, without an ending.
        heading: above it in a report.
        subject: what was run on what, under its title.
    """

    name: str = ""
    heading: str = ""
    subject: str = ""

    def figure(self) -> Figure:
        """Draw it."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """What it shows and the caveats, computed from its rows; Markdown."""
        return []


@dataclass(frozen=True, kw_only=True)
class DrawnChart(Chart):
    """A chart whose figure is there already, such as a study's.

    Args:
        drawn: its figure.
    """

    drawn: Figure

    def figure(self) -> Figure:
        """The figure."""
        return self.drawn


def save(figure: Figure, folder: Path | str, name: str) -> list[Path]:
    """Write a figure as PNG and SVG, each whole under its final name or not at all.

    The same figure gives the same SVG: its ids come from the name, and it holds no date.

    Args:
        figure: any figure.
        folder: made where it is not there.
        name: the files' name without its ending.
    Returns:
        The two paths.
    Raises:
        ValueError: the name is not a plain file name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"a chart's name is a plain file name without a folder, got {name!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "kvbench"}}
    finals = {ending: folder / f"{name}.{ending}" for ending in metadata}
    clear(folder)
    partials = {ending: partial_of(path) for ending, path in finals.items()}
    try:
        with rc_context({"svg.hashsalt": name}):
            for ending, partial in partials.items():
                figure.savefig(partial, format=ending, dpi=DPI, metadata=metadata[ending])
        for ending, partial in partials.items():
            os.replace(partial, finals[ending])
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    return list(finals.values())
