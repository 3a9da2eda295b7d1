"""Charts of claims that a range alone does not show: trade-offs, choices and streams."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from kvbench.charts.labels import place_names
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import COLOURS, INK, SMALL, plain
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.front import Cost, pareto_front
from kvbench.results.schema import STEPS

INSIDE, OUTSIDE = COLOURS[0], COLOURS[4]
BEST, WORST = "#BFE3D3", "#F7E1D3"
_WRAP = 34
_STEEP = 3.0


def ranges_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Figure:
    """Parameters as points between two costs, a panel a trade-off; the range that is claimed to be useful in colour.

    Args:
        curve: panel, value, x, x_label, y, y_half (of its interval; 0 where it is counted), y_label, inside (whether
            the value is in the claimed range).
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
    """
    names = list(dict.fromkeys(curve["panel"]))
    sheet = Sheet(title, notes=notes)
    axes = sheet.panels(1, len(names), 4.2)
    for panel, name in zip(axes, names, strict=True):
        own = curve[curve["panel"] == name]
        front = own[pareto_front(Cost.around(own["x"]), Cost.around(own["y"], own["y_half"]))].sort_values("x")
        panel.plot(front["x"], front["y"], color="#999999", linewidth=0.8, zorder=1)
        for inside, colour, marker in ((True, INSIDE, "o"), (False, OUTSIDE, "s")):
            part = own[own["inside"] == inside]
            panel.plot(part["x"], part["y"], color=colour, marker=marker, linestyle="none", markersize=6)
        number_axis(panel, "x", own["x"])
        number_axis(panel, "y", own["y"], log=own["y"].min() > 0 and own["y"].max() > _STEEP * own["y"].min())
        label(panel, own["x_label"].iloc[0], own["y_label"].iloc[0], "\n".join(textwrap.wrap(name, _WRAP)))
    dots = ((INSIDE, "o", "in the article's range"), (OUTSIDE, "s", "outside it"))
    sheet.legend = [(Line2D([], [], color=c, marker=m, linestyle="none", markersize=6), text) for c, m, text in dots]
    sheet.legend.append((Line2D([], [], color="#999999", linewidth=0.8), "no other is better in both"))
    figure = sheet.finish()
    for panel, name in zip(axes, names, strict=True):
        own = curve[curve["panel"] == name]
        place_names(figure, panel, own[["x", "y"]].to_numpy(), [f"{value:g}" for value in own["value"]], [])
    return figure


def choices_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Figure:
    """Ranks of strategies by each definition of best, a panel a kind of conversation, the article's choice framed.

    Args:
        curve: kind, choice, definition, strategy, rank, fits (whether the strategy holds it).
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
    """
    kinds = list(dict.fromkeys(curve["kind"]))
    definitions = list(dict.fromkeys(curve["definition"]))
    columns = 2
    sheet = Sheet(title, notes=notes)
    axes = sheet.panels(-(-len(kinds) // columns), columns, 3.3 * -(-len(kinds) // columns))
    for panel, kind in zip(axes, kinds, strict=False):
        _ranks(panel, curve[curve["kind"] == kind], definitions)
        panel.set_title(kind, fontsize=SMALL + 2, loc="left", color=INK)
    for panel in axes[len(kinds) :]:
        panel.axis("off")
        lines = [f"{turn}  {plain(definition)}" for turn, definition in enumerate(definitions, start=1)]
        panel.text(0.0, 1.0, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=SMALL + 1, color=INK)
    sheet.legend = [
        (Patch(color=BEST), "first, or not to be told from it"),
        (Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.6), "the article's choice"),
        (Patch(color="#E4E4E4"), "cannot hold it"),
    ]
    sheet.notes.append("Numbers are ranks: 1 and how many others are better. Empty cells were not timed.")
    if len(kinds) % columns == 0:
        sheet.notes += [f"{turn}: {definition}." for turn, definition in enumerate(definitions, start=1)]
    return sheet.finish()


def _ranks(axes: Axes, own: pd.DataFrame, definitions: list[str]) -> None:
    names = list(dict.fromkeys(own["strategy"]))
    axes.grid(False)
    axes.set(xlim=(-0.5, len(definitions) - 0.5), ylim=(len(names) - 0.5, -0.5))
    for row in own.itertuples():
        x, y = definitions.index(row.definition), names.index(row.strategy)
        colour = "#E4E4E4" if not row.fits else BEST if row.rank == 1 else WORST
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
        axes.text(x, y, f"{row.rank:.0f}" if row.fits else "–", ha="center", va="center", fontsize=SMALL, color=INK)
    chosen = names.index(own["choice"].iloc[0])
    width = len(definitions)
    axes.add_patch(Rectangle((-0.5, chosen - 0.5), width, 1, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False))
    axes.set_xticks(range(width), [str(turn) for turn in range(1, width + 1)], fontsize=SMALL)
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=SMALL)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def stream_chart(curve: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Figure:
    """Bytes held while a stream goes on, by strategy, and what streaming's attention reads of them.

    Args:
        curve: strategy, seen_tokens, allocated_bytes, attended_bytes.
        title: what is claimed, and the verdict.
        notes: sentences at the foot.
    """
    sheet = Sheet(title, names=curve["strategy"].unique(), notes=notes)
    (axes,) = sheet.panels(1, 1, 3.6)
    unit = shown_unit(STEPS["allocated_bytes"], curve["allocated_bytes"])
    for name, own in curve.groupby("strategy", sort=False):
        (line,) = axes.plot(
            own["seen_tokens"],
            own["allocated_bytes"] / unit.divisor,
            color=sheet.looks[name].colour,
            linestyle=sheet.looks[name].line,
        )
        sheet.entry(line, name, f"{name}, allocated")
    own = curve[curve["strategy"] == "streaming"]
    (line,) = axes.plot(own["seen_tokens"], own["attended_bytes"] / unit.divisor, color=INK, linewidth=0.9)
    sheet.legend.append((line, "streaming, read by attention"))
    number_axis(axes, "x", curve["seen_tokens"], log=False)
    number_axis(axes, "y", np.append(curve["allocated_bytes"] / unit.divisor, 0.0), log=False)
    axes.set_ylim(bottom=0)
    label(axes, STEPS["seen_tokens"].axis(), f"On the device ({unit.name})")
    return sheet.finish()
