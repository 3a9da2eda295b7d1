"""A figure from start to file: its axes, its title, legend and notes around them, and its two files."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.style import FAINT, FONT, INK, SMALL, TITLE, plain
from kvbench.partial import clear, partial_of

DPI = 150
WIDTH_IN = 10.0
_TITLE_LINE_IN = 0.26
_LEGEND_ROW_IN = 0.19
_NOTE_LINE_IN = 0.16
_MARGIN_IN = 0.08
_LETTER_IN = 0.067
_WIDE_LETTER_IN = 0.09
_HANDLE_IN = 0.75


def canvas(rows: int, columns: int, height_in: float, share_y: bool | str = False) -> tuple[Figure, list[Axes]]:
    """An empty figure.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        height_in: height of the panels together in inches; title, legend and notes come on top of it.
        share_y: as in matplotlib.
    Returns:
        The figure and its panels, row by row.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
    for axes in panels:
        _bare(axes)
    return figure, panels


def wide_canvas(top_in: float, columns: int, bottom_in: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of one wide panel and a row of smaller ones below it.

    Args:
        top_in: height of the wide panel in inches.
        columns: panels below it.
        bottom_in: their height.
    Returns:
        The figure and its panels, the wide one first.
    """
    figure = Figure(figsize=(WIDTH_IN, top_in + bottom_in), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(top_in, bottom_in))
    panels = [figure.add_subplot(grid[0, :]), *(figure.add_subplot(grid[1, column]) for column in range(columns))]
    for axes in panels:
        _bare(axes)
    return figure, panels


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT, color=FAINT)


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Write a panel's axes and title."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    if title:
        axes.set_title(title, fontsize=FONT + 1, loc="left", color=INK)


def empty(axes: Axes, why: str) -> None:
    """Say why a panel shows nothing."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    text = "\n".join(textwrap.wrap(plain(why), 32))
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=FONT, color="#666666")


def finish(
    figure: Figure,
    title: str,
    legend: Sequence[tuple[Artist, str]] = (),
    notes: Sequence[str] = (),
) -> Figure:
    """Put title, legend and notes around the panels and lay the figure out, once.

    The legend stands below the panels, so that it covers no data; the figure grows by what all three need.

    Args:
        figure: from canvas.
        title: what is shown.
        legend: what stands beside each text, and the text.
        notes: sentences, in small letters at the foot.
    """
    width, panels_in = figure.get_size_inches()
    titles = textwrap.wrap(plain(title), int(width * 10))
    feet = [line for note in notes for line in textwrap.wrap(plain(note), int(width * 15.5))]
    texts = [text for _, text in legend]
    entry_in = _HANDLE_IN + max(map(_width_in, texts), default=0.0)
    columns = max(1, min(len(texts), int((width - 2 * _MARGIN_IN) / entry_in)))
    legend_rows = -(-len(texts) // columns)
    top_in = _TITLE_LINE_IN * len(titles) + _MARGIN_IN
    notes_in = _NOTE_LINE_IN * len(feet) + _MARGIN_IN * bool(feet)
    bottom_in = notes_in + _LEGEND_ROW_IN * legend_rows + _MARGIN_IN * bool(texts)
    height = panels_in + top_in + bottom_in
    figure.set_size_inches(width, height)
    left = _MARGIN_IN / width
    figure.text(left, 1 - _MARGIN_IN / height, "\n".join(titles), fontsize=TITLE, va="top", color=INK, weight="bold")
    if feet:
        figure.text(left, notes_in / height, "\n".join(feet), fontsize=SMALL, va="top", color="#444444")
    if texts:
        figure.legend(
            [artist for artist, _ in legend],
            texts,
            loc="lower center",
            bbox_to_anchor=(0.5, notes_in / height),
            ncols=columns,
            fontsize=FONT,
            frameon=False,
            borderpad=0.2,
            handlelength=2.6,
        ).set_in_layout(False)
    engine = figure.get_layout_engine()
    engine.set(rect=(0, bottom_in / height, 1, panels_in / height), h_pad=0.06, w_pad=0.06, hspace=0.04, wspace=0.03)
    engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


def _width_in(text: str) -> float:
    """About how wide a legend's text is, in inches; on the wide side."""
    return sum(_WIDE_LETTER_IN if letter.isupper() or letter in "mw%@" else _LETTER_IN for letter in text)


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
