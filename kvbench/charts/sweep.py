"""What a swept parameter changes: each main metric over it, a line a strategy."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import notes_of, strategy_names, value_text
from kvbench.charts.style import FONT, LINES, MARKERS, looks, plain, short_names
from kvbench.charts.units import finite_max, number_axis, shown_unit, value_ticks
from kvbench.results.front import is_reference
from kvbench.results.intervals import halves_of
from kvbench.results.provenance import is_fleet, require_one_kind
from kvbench.results.schema import SUMMARY, parameter_applies

METRICS = (
    ("peak_bytes",),
    ("utilization_mean",),
    ("num_resizes",),
    ("allocation_s",),
    ("decode_p99_us", "decode_p90_us", "decode_p50_us", "total_s"),
    ("tokens_per_s",),
)
FLEET_METRICS = (
    ("tokens_per_s",),
    ("goodput_per_s",),
    ("attained_share",),
    ("ttft_p99_s", "ttft_p90_s", "ttft_mean_s"),
    ("tpot_p99_s", "tpot_p90_s", "tpot_mean_s"),
    ("queue_mean_s",),
    ("mean_batch",),
    ("utilization_mean",),
    ("num_preemptions",),
)
"""A panel each, three in a row; of several columns the first that has a value above 0."""

COLUMNS = 3
ROW_IN = 2.8
LINEAR = ("utilization_mean", "attained_share", "num_resizes", "num_preemptions", "mean_batch", "goodput_per_s")
COUNTS = ("num_resizes", "num_preemptions")
MAX_LEGEND = 24
MAX_LEVEL_LETTERS = 28
CATEGORY_LENGTH = 16


def sweep_chart(summary: pd.DataFrame, parameter: str, others: list[str] | None = None, what: str = "") -> Figure:
    """The main metrics over a parameter: of memory and steps, or of the service that a simulated fleet gives.

    A line a strategy, or a line a strategy and combination of the other swept parameters. Another strategy's
    parameter (strategy.NAME.…) does not tell a strategy's lines apart: over its values the mean is shown. Bars are 90 %
    confidence intervals from repetitions; none where a mean over jobs is shown.

    Args:
        summary: a row a strategy and job, with a column for each parameter.
        parameter: the column along x; a numeric axis where all its values are numbers, categories otherwise.
        others: the other swept columns.
        what: the rows are, for the title, where there are others beside them.
    Raises:
        ValueError: rows differ in source, scope or engine.
    """
    require_one_kind(summary, "a chart over a parameter")
    names = strategy_names(summary)
    x, categories = positions(summary[parameter])
    lines = _lines(summary, parameter, x, others or [])
    metrics = FLEET_METRICS if is_fleet(summary) else METRICS
    num_rows = -(-len(metrics) // COLUMNS)
    figure, panels = canvas(num_rows, COLUMNS, ROW_IN * num_rows)
    legend: list[tuple[Line2D, str]] = []
    for axes, columns in zip(panels, metrics, strict=True):
        column = next((name for name in columns if finite_max(summary.get(name, np.nan)) > 0), columns[-1])
        drawn = _panel(axes, lines, column, looks(names), strategy_names(summary[is_reference(summary)]))
        legend = drawn if len(drawn) > len(legend) else legend
        axes.set_xlabel(_parameter_text(parameter), fontsize=FONT)
        _x_axis(axes, x, categories)
    notes = notes_of(summary)
    if len(legend) > MAX_LEGEND:
        notes.append(f"The legend names the first {MAX_LEGEND} of {len(legend)} lines.")
    title = f"What {_parameter_text(parameter)} changes{f' ({what})' if what else ''}"
    return finish(figure, title, legend[:MAX_LEGEND], notes)


def positions(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Where a parameter's values stand along an axis.

    Returns:
        The positions, and no categories where all values are numbers; else each category's name at 0, 1, 2, ….
    """
    is_truth = values.map(lambda value: isinstance(value, bool | np.bool_)).any()
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=float)
    if not is_truth and np.isfinite(numbers).all():
        return numbers, []
    texts = values.map(lambda value: "none" if value is None or value is pd.NA or value != value else str(value))
    categories = list(dict.fromkeys(texts))
    return texts.map({name: at for at, name in enumerate(categories)}).to_numpy(dtype=float), categories


def _parameter_text(parameter: str) -> str:
    return plain(parameter.removeprefix("strategy."))


def _lines(
    summary: pd.DataFrame, parameter: str, x: np.ndarray, others: list[str]
) -> list[tuple[str, str, int, pd.DataFrame]]:
    """A strategy, a text, a number within the strategy and the rows, with their `x`, of every line."""
    names = strategy_names(summary)
    short = short_names(names, 24)
    placed = summary.assign(x=x, strategy=summary["strategy"].astype(str))
    lines = []
    for name in names:
        rows = placed[placed["strategy"] == name]
        telling = [
            other for other in others if parameter_applies(other, name, names) and rows[other].nunique(dropna=False) > 1
        ]
        groups = rows.groupby(telling, sort=False, dropna=False) if telling else [((), rows)]
        for turn, (values, part) in enumerate(groups):
            pairs = zip(telling, values, strict=True)
            text = ", ".join(f"{other.rsplit('.', 1)[-1]} {value_text(value)}" for other, value in pairs)
            lines.append((name, f"{short[name]}, {text}" if text else short[name], turn, part.sort_values("x")))
    return lines


def _panel(axes: Axes, lines: list, column: str, style: dict, hollow: list[str]) -> list[tuple[Line2D, str]]:
    """Draw one metric, some strategies' marks hollow; what the legend says of it."""
    meaning = SUMMARY[column]
    rows = [part for *_, part in lines]
    values = np.concatenate([part[column].to_numpy(dtype=float) for part in rows if column in part] or [[]])
    unit = shown_unit(meaning, values)
    label(axes, "", meaning.axis(unit.name))
    if not np.isfinite(values).any():
        empty(axes, f"no strategy has a value of {column}")
        return []
    legend = []
    for name, text, turn, part in lines:
        mean = part.groupby("x")[column].mean() / unit.divisor
        nothing = np.full(len(mean), np.nan)
        spread = halves_of(part, column) / unit.divisor if part["x"].is_unique else nothing
        look = style[name]
        (line,) = axes.plot(
            mean.index,
            mean,
            color=look.colour,
            linestyle=look.line if turn == 0 else LINES[turn % len(LINES)],
            marker=look.marker if turn == 0 else MARKERS[(MARKERS.index(look.marker) + turn) % len(MARKERS)],
            markersize=7,
            markerfacecolor="white" if name in hollow else look.colour,
            linewidth=1.5,
        )
        shown = np.where(np.isfinite(spread), spread, 0.0)
        if shown.any():
            axes.errorbar(mean.index, mean, shown, ecolor=look.colour, elinewidth=1, capsize=2, fmt="none")
        legend.append((line, text))
    number_axis(axes, "y", values / unit.divisor, log=False if column in LINEAR else None, whole=column in COUNTS)
    if axes.get_yscale() == "linear":
        top = axes.dataLim.y1 or 1.0
        axes.set_ylim(-0.04 * top, 1.06 * top)
    return legend


def _x_axis(axes: Axes, x: np.ndarray, categories: list[str]) -> None:
    """Ticks at the parameter's values, or at its categories."""
    if not axes.lines:
        return
    if categories:
        shown = short_names(categories, CATEGORY_LENGTH)
        slanted = sum(map(len, shown.values())) > MAX_LEVEL_LETTERS
        axes.set_xticks(
            range(len(categories)),
            [shown[name] for name in categories],
            rotation=30 if slanted else 0,
            ha="right" if slanted else "center",
        )
        axes.set_xlim(-0.4, len(categories) - 0.6)
        return
    number_axis(axes, "x", x)
    value_ticks(axes, "x", x)
