"""A figure in the making: panels, a look a strategy, and what stands around the panels."""

import textwrap
from collections.abc import Container, Iterable, Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from kvbench.charts.rows import notes_of, strategy_names
from kvbench.charts.style import FAINT, FONT, INK, NAME_LENGTH, REST, SMALL, TITLE, Settings, looks, plain, short_names
from kvbench.results.front import highlighted

WIDTH_IN = 10.0
_TITLE_LINE_IN = 0.26
_SUBJECT_LINE_IN = 0.19
_LEGEND_ROW_IN = 0.19
_NOTE_LINE_IN = 0.16
_MARGIN_IN = 0.08
_SIDE_PAD_IN = 0.03
_LETTER_IN = 0.067
_WIDE_LETTER_IN = 0.09
_HANDLE_IN = 0.75


class Sheet:
    """A chart's paper. Ask it for panels, draw on them, and finish it once.

    Args:
        title: what is shown.
        subject: what was run on what, under the title.
        names: strategies, in order.
        notes: sentences at the foot.
        coloured: strategies that have a look of their own; None: all, or the first eight.
        name_length: letters of a name as shown.
    Attributes:
        looks: a look a strategy; grey for those beyond eight that are not highlighted.
        short: a strategy's name as shown.
        legend: what stands beside each text below the panels, and the text.
        notes: sentences at the foot, to be added to.
        rest: what the legend says of those that are grey.
        missing: why strategies are not shown, and which.
    """

    def __init__(
        self,
        title: str,
        subject: str = "",
        names: Iterable[str] = (),
        notes: Sequence[str] = (),
        coloured: Container[str] | None = None,
        name_length: int = NAME_LENGTH,
    ) -> None:
        self.title = title
        self.subject = subject
        self.names = list(dict.fromkeys(map(str, names)))
        self.looks = looks(self.names, coloured)
        self.short = short_names(self.names, name_length)
        self.legend: list[tuple[Artist, str]] = []
        self.notes = list(notes)
        self.rest = "others, named where they are"
        self.missing: dict[str, list[str]] = {}
        self._figure: Figure | None = None

    @classmethod
    def of(cls, summary: pd.DataFrame, title: str, subject: str = "", name_length: int = NAME_LENGTH) -> "Sheet":
        """A sheet for a summary's strategies, with the notes that every chart of it has.

        Args:
            summary: a row a strategy, or a row a strategy and job.
            title: what is shown.
            subject: what was run on what.
            name_length: letters of a name as shown.
        """
        return cls(title, subject, strategy_names(summary), notes_of(summary), highlighted(summary), name_length)

    def panels(
        self,
        rows: int,
        columns: int,
        height_in: float,
        share_y: bool = False,
        count: int | None = None,
    ) -> list[Axes]:
        """Panels in a grid.

        Args:
            rows: rows of panels.
            columns: columns of panels.
            height_in: their height together in inches; title, legend and notes come on top of it.
            share_y: whether all have one y axis.
            count: panels that are wanted; the grid's other places stay empty.
        """
        self._figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        panels = list(self._figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
        for axes in panels[count:] if count is not None else []:
            axes.remove()
        return _bare(panels[:count])

    def wide_panels(self, top_in: float, columns: int, bottom_in: float) -> list[Axes]:
        """One wide panel and a row of smaller ones below it, the wide one first.

        Args:
            top_in: height of the wide panel in inches.
            columns: panels below it, if any.
            bottom_in: their height.
        """
        if not columns:
            return self.panels(1, 1, top_in)
        self._figure = Figure(figsize=(WIDTH_IN, top_in + bottom_in), layout="constrained")
        grid = self._figure.add_gridspec(2, columns, height_ratios=(top_in, bottom_in))
        below = (self._figure.add_subplot(grid[1, column]) for column in range(columns))
        return _bare([self._figure.add_subplot(grid[0, :]), *below])

    def is_rest(self, name: str) -> bool:
        """Whether a strategy is grey, so that its name must stand at what is drawn of it."""
        return self.looks[name] is REST

    def entry(self, artist: Artist, name: str, text: str | None = None) -> None:
        """Add a strategy to the legend, unless it is grey or there already.

        Args:
            artist: that stands for it.
            name: the strategy's.
            text: what is said of it; None: its name as shown.
        """
        shown = self.short[name] if text is None else text
        if not self.is_rest(name) and shown not in (text for _, text in self.legend):
            self.legend.append((artist, shown))

    def lacks(self, why: str, name: str) -> None:
        """Note that a strategy is not shown."""
        self.missing.setdefault(why, []).append(name)

    def finish(self) -> Figure:
        """Put title, legend and notes around the panels and lay the figure out, once.

        The legend stands below the panels, so that it covers no data; the figure grows by what all need.
        """
        assert self._figure is not None
        figure = self._figure
        feet = [*self.notes, *(f"{why}: {', '.join(names)}." for why, names in self.missing.items())]
        if self.legend and any(map(self.is_rest, self.names)):
            self.legend.append((Line2D([], [], color=REST.colour, marker=REST.marker), self.rest))
        width, panels_in = figure.get_size_inches()
        titles = textwrap.wrap(plain(self.title), int(width * 10))
        subjects = textwrap.wrap(plain(self.subject), int(width * 14.5))
        lines = [line for note in dict.fromkeys(feet) for line in textwrap.wrap(plain(note), int(width * 15.5))]
        columns, legend_rows = _columns([text for _, text in self.legend], width)
        top_in = _TITLE_LINE_IN * len(titles) + _SUBJECT_LINE_IN * len(subjects) + _MARGIN_IN
        notes_in = _NOTE_LINE_IN * len(lines) + _MARGIN_IN * bool(lines)
        bottom_in = notes_in + _LEGEND_ROW_IN * legend_rows + _MARGIN_IN * bool(self.legend)
        height = panels_in + top_in + bottom_in
        figure.set_size_inches(width, height)
        left = _MARGIN_IN / width
        where: Settings = {"va": "top", "fontsize": TITLE, "color": INK, "weight": "bold"}
        figure.text(left, 1 - _MARGIN_IN / height, "\n".join(titles), **where)
        if subjects:
            y = 1 - (_MARGIN_IN + _TITLE_LINE_IN * len(titles)) / height
            figure.text(left, y, "\n".join(subjects), va="top", fontsize=FONT, color="#444444")
        if lines:
            figure.text(left, notes_in / height, "\n".join(lines), fontsize=SMALL, va="top", color="#444444")
        if self.legend:
            artists, texts = zip(*self.legend, strict=True)
            figure.legend(
                artists,
                texts,
                loc="lower center",
                bbox_to_anchor=(0.5, notes_in / height),
                ncols=columns,
                fontsize=FONT,
                frameon=False,
                borderpad=0.2,
                handlelength=3.4,
            ).set_in_layout(False)
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        inside = (left, bottom_in / height, 1 - 2 * left, panels_in / height)
        engine.set(rect=inside, h_pad=0.06, w_pad=_SIDE_PAD_IN, hspace=0.04, wspace=0.03)
        engine.execute(figure)
        figure.set_layout_engine("none")
        return figure


def _bare(panels: list[Axes]) -> list[Axes]:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=FONT, color=FAINT)
    return panels


def _columns(texts: list[str], width_in: float) -> tuple[int, int]:
    """Columns and rows of a legend."""
    entry_in = _HANDLE_IN + max(map(_width_in, texts), default=0.0)
    columns = max(1, min(len(texts), int((width_in - 2 * _MARGIN_IN) / entry_in)))
    return columns, -(-len(texts) // columns)


def _width_in(text: str) -> float:
    """About how wide a legend's text is, in inches; on the wide side."""
    return sum(_WIDE_LETTER_IN if letter.isupper() or letter in "mw%@" else _LETTER_IN for letter in text)


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
