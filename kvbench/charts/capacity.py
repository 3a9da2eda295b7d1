"""Requests that fit at once, over the tokens of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.axes import number_axis, value_ticks
from kvbench.charts.chart import Chart
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK, SMALL, Settings

HEIGHT_IN = 4.2


@dataclass(frozen=True, kw_only=True)
class CapacityChart(Chart):
    """Requests over context, both logarithmic: a line an accelerator, or a line a strategy.

    Args:
        lines: requests by tokens, by name; None: so many tokens are not held, or memory is no limit.
        max_model_len: tokens beyond which nothing is served.
        behind: the line that is drawn broad, behind the others, which may lie on it; "" for none.
        lengths: tokens of the scenario's sessions, by what they are.
    """

    name: str = "capacity"
    heading: str = "How many requests fit"
    lines: Mapping[str, Mapping[int, int | None]]
    max_model_len: int
    behind: str = ""
    lengths: Mapping[str, int] = field(default_factory=dict)

    def figure(self) -> Figure:
        """Draw it."""
        sheet = Sheet(self.heading, self.subject, self.lines)
        (axes,) = sheet.panels(1, 1, HEIGHT_IN)
        label(axes, "Context of each request (tokens)", "Requests at once")
        shown: list[int] = []
        for name, counts in self.lines.items():
            points = {tokens: count for tokens, count in counts.items() if count and tokens <= self.max_model_len}
            if not points:
                sheet.lacks("Not one request fits", sheet.short[name])
                continue
            shown += points.values()
            (line,) = axes.plot(list(points), list(points.values()), **self._look(name, sheet))
            sheet.entry(line, name)
        tokens = sorted({tokens for counts in self.lines.values() for tokens in counts if tokens <= self.max_model_len})
        ticks = [each for each in tokens if each not in self.lengths.values()]
        number_axis(axes, "x", tokens or [1, 10], log=True)
        value_ticks(axes, "x", ticks[:: 1 + len(ticks) // 9])
        number_axis(axes, "y", shown or [1, 10], log=True)
        self._mark_lengths(axes)
        return sheet.finish()

    def _mark_lengths(self, axes: Axes) -> None:
        names: dict[int, list[str]] = {}
        for name, tokens in self.lengths.items():
            if tokens <= self.max_model_len:
                names.setdefault(tokens, []).append(name)
        where: Settings = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
        for tokens, of in names.items():
            axes.axvline(tokens, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            axes.annotate(f"{', '.join(of)} {tokens:,}", (tokens, 1), (2, -2), fontsize=SMALL, **where)

    def _look(self, name: str, sheet: Sheet) -> Settings:
        if name == self.behind:
            return {"color": INK, "alpha": 0.3, "linewidth": 6, "solid_capstyle": "round", "zorder": 1.5}
        return {**sheet.looks[name].of_line(), "markersize": 6}

    def sentences(self) -> list[str]:
        """How many requests fit at the shortest and the longest context that is drawn."""
        found = []
        for name, counts in self.lines.items():
            points = [
                (tokens, count) for tokens, count in sorted(counts.items()) if count and tokens <= self.max_model_len
            ]
            if points:
                (short, many), (long, few) = points[0], points[-1]
                found.append(f"{name}: {many:,} requests of {short:,} tokens, {few:,} of {long:,}.")
        return found
