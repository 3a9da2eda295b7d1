"""What a cache saves: decoding with it against computing the whole sequence again at every token."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import number_axis, value_ticks
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import INK, look
from kvbench.charts.text import finite_max, shown_unit
from kvbench.results.intervals import halves_of
from kvbench.results.schema import STEPS

STEP = STEPS["step_us"]
CONTEXT = STEPS["context_tokens"].axis()


def recompute_chart(frame: pd.DataFrame, notes: Sequence[str] = (), subject: str = "") -> Figure:
    """A decode step's time with a cache and without one, and the speed-up, over the context.

    Args:
        frame: context_tokens, cached_us, recompute_us, speedup; where known the ends of the intervals of the times,
            and formula (the article's n² / (n + 100)).
        notes: sentences at the foot.
        subject: what was run on what.
    Source: the article, no cache against cache.
    Departs: times are measured or modelled; the formula stands beside them.
    """
    frame = frame.sort_values("context_tokens")
    sheet = Sheet("Decoding with a KV cache against recomputing", subject, notes=notes)
    times, speedup = sheet.panels(1, 2, 4.0)
    values = frame[["cached_us", "recompute_us"]].to_numpy(dtype=float)
    unit = shown_unit(STEP, values)
    label(times, CONTEXT, f"Decode step ({unit.name})", "Time of a decode step")
    label(speedup, CONTEXT, "Speed-up (recomputed ÷ cached)", "Speed-up by the cache")
    for number, (column, text) in enumerate((("cached_us", "with a cache"), ("recompute_us", "recomputed"))):
        if finite_max(frame[column]) > 0:
            sheet.legend.append((_times(times, frame, column, unit.divisor, number), text))
    if not sheet.legend:
        empty(times, "no times")
    if finite_max(frame["speedup"]) > 0:
        kind = look(2)
        (line,) = speedup.plot(
            frame["context_tokens"], frame["speedup"], color=kind.colour, marker=kind.marker, markersize=6
        )
        sheet.legend.append((line, "speed-up"))
    if finite_max(frame.get("formula", np.nan)) > 0:
        (line,) = speedup.plot(frame["context_tokens"], frame["formula"], color=INK, linestyle=(0, (4, 2)))
        sheet.legend.append((line, "the article's n² ÷ (n + 100)"))
    if not speedup.lines:
        empty(speedup, "no speed-up")
    shown = [frame[name].to_numpy(dtype=float) for name in ("speedup", "formula") if name in frame]
    for axes, y in ((times, values / unit.divisor), (speedup, np.concatenate(shown))):
        if axes.lines:
            number_axis(axes, "x", frame["context_tokens"], log=True)
            value_ticks(axes, "x", frame["context_tokens"])
            number_axis(axes, "y", y, log=True)
    return sheet.finish()


def _times(axes: Axes, frame: pd.DataFrame, column: str, divisor: float, number: int) -> Line2D:
    kind = look(number)
    x, y = frame["context_tokens"], frame[column] / divisor
    (line,) = axes.plot(x, y, **kind.of_line(), markersize=7)
    spread = np.nan_to_num(halves_of(frame, column)) / divisor
    if spread.any():
        low = np.minimum(spread, 0.99 * y.to_numpy())
        axes.errorbar(x, y, [low, spread], ecolor=kind.colour, elinewidth=1, capsize=3, fmt="none")
    return line
