"""What a parameter changes: each main metric over it, a line a strategy."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.axes import number_axis, value_ticks
from kvbench.charts.chart import Chart
from kvbench.charts.labels import name_ends
from kvbench.charts.rows import THROUGHPUT, Metric, completed, setting, strategy_names
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import FONT, plain, short_names, variant
from kvbench.charts.text import duration, finite_max, listed, markdown_escape, mib, number, shown_unit, value_text
from kvbench.results.front import cost_of, is_reference
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

TOLD = (
    Metric("peak memory", "peak_bytes", mib),
    Metric("stalls and admissions", "allocation_s", duration),
    THROUGHPUT,
)
TOLD_OF_FLEET = (
    THROUGHPUT,
    Metric("goodput", "goodput_per_s", lambda value: f"{number(value)} requests/s", False),
    Metric("99th percentile of TTFT", "ttft_p99_s", duration),
)
"""What sentences tell of."""

COLUMNS = 3
ROW_IN = 2.8
LINEAR = ("utilization_mean", "attained_share", "num_resizes", "num_preemptions", "mean_batch", "goodput_per_s")
COUNTS = ("num_resizes", "num_preemptions")
MAX_LEGEND = 24
MAX_LEVEL_LETTERS = 28
CATEGORY_LENGTH = 16

_Line = tuple[str, str, int, pd.DataFrame]
"""A strategy, what its line is called, which of its lines that is, and its rows."""


@dataclass(frozen=True, kw_only=True)
class SweepChart(Chart):
    """The main metrics over a parameter: of memory and steps, or of the service that a simulated fleet gives.

    A line a strategy, or a line a strategy and combination of the other swept parameters; points alone where the
    parameter's values are names, which have no order. Another strategy's parameter (strategy.NAME.…) does not tell a
    strategy's lines apart: over its values the mean is shown. Bars are intervals from repetitions; none where a mean
    over jobs is shown. A metric of which no row has a value is left out.

    Args:
        summary: a row a strategy and job, with a column for each parameter.
        parameter: the column along x; a numeric axis where all its values are numbers, categories otherwise.
        others: the other swept columns.
        what: the rows are, for the title, where there are others beside them.
    Raises:
        ValueError: rows differ in source, scope or simulated_by.
    """

    name: str = "sweep"
    heading: str = "Sweep"
    summary: pd.DataFrame
    parameter: str
    others: list[str] = field(default_factory=list)
    what: str = ""

    def figure(self) -> Figure:
        """Draw it."""
        summary, parameter = self.summary, self.parameter
        require_one_kind(summary, "a chart over a parameter")
        title = f"What {_parameter_text(parameter)} changes{f' ({self.what})' if self.what else ''}"
        if parameter != "scenario" and "scenario" not in self.others:
            title += f": {listed(list(dict.fromkeys(summary['scenario'].astype(str))), most=3)}"
        sheet = Sheet.of(summary, title, self.subject)
        x, categories = positions(summary[parameter])
        lines = _lines(summary, parameter, x, self.others)
        wanted = FLEET_METRICS if is_fleet(summary) else METRICS
        columns = [next((name for name in names if finite_max(summary.get(name, np.nan)) > 0), "") for names in wanted]
        columns = [name for name in columns if name] or [wanted[0][0]]
        num_rows = -(-len(columns) // COLUMNS)
        panels = sheet.panels(num_rows, min(COLUMNS, len(columns)), ROW_IN * num_rows, count=len(columns))
        for axes, column in zip(panels, columns, strict=True):
            _panel(axes, lines, column, sheet, self, joined=not categories)
            axes.set_xlabel(_parameter_text(parameter), fontsize=FONT)
            _x_axis(axes, x, categories)
        if len(sheet.legend) > MAX_LEGEND:
            sheet.notes.append(f"The legend names the first {MAX_LEGEND} of {len(sheet.legend)} lines.")
            del sheet.legend[MAX_LEGEND:]
        return sheet.finish()

    def sentences(self) -> list[str]:
        """Where along the parameter each strategy that it can change is at its ends."""
        found, unchanged = [], []
        names = strategy_names(self.summary)
        of_fleet = is_fleet(self.summary)
        for name in names:
            if not parameter_applies(self.parameter, name, names):
                unchanged.append(markdown_escape(name))
                continue
            own = self.summary[self.summary["strategy"].astype(str) == name]
            done = own if of_fleet else completed(own)
            told = TOLD_OF_FLEET if of_fleet else TOLD
            parts = [part for metric in told if (part := _range(done, metric, self.parameter, self.others))]
            if parts:
                found.append(f"{markdown_escape(name)}: {'; '.join(parts)}.")
        if unchanged:
            found.append(f"Measured again in every job, unchanged by this parameter: {listed(unchanged)}.")
        return found or ["No strategy completed."]


def positions(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Where a parameter's values stand along an axis.

    Returns:
        The positions, and no categories where all values are numbers; else each category's name at 0, 1, 2, ….
    """
    is_truth = values.map(lambda value: isinstance(value, bool | np.bool_)).any()
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=float)
    if not is_truth and np.isfinite(numbers).all():
        return numbers, []
    texts = values.map(lambda value: "none" if pd.isna(value) else str(value))
    categories = list(dict.fromkeys(texts))
    return texts.map({name: at for at, name in enumerate(categories)}).to_numpy(dtype=float), categories


def _parameter_text(parameter: str) -> str:
    return plain(parameter.removeprefix("strategy."))


def _lines(summary: pd.DataFrame, parameter: str, x: np.ndarray, others: list[str]) -> list[_Line]:
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
            text = ", ".join(f"{other.rsplit('.', 1)[-1]} {plain(value_text(value))}" for other, value in pairs)
            lines.append((name, f"{short[name]}, {text}" if text else short[name], turn, part.sort_values("x")))
    return lines


def _panel(
    axes: Axes,
    lines: list[_Line],
    column: str,
    sheet: Sheet,
    chart: SweepChart,
    joined: bool,
) -> None:
    """Draw one metric, references' marks hollow."""
    hollow = strategy_names(chart.summary[is_reference(chart.summary)])
    values = np.concatenate([part[column].to_numpy(dtype=float) for *_, part in lines])
    unit = shown_unit(SUMMARY[column], values)
    label(axes, "", SUMMARY[column].axis(unit.name))
    if not np.isfinite(values).any():
        empty(axes, f"no strategy has a value of {column}")
        return
    drawn = []
    for name, text, turn, part in lines:
        mean = part.groupby("x")[column].mean() / unit.divisor
        look = variant(sheet.looks[name], turn)
        (line,) = axes.plot(
            mean.index,
            mean,
            color=look.colour,
            linestyle=look.line if joined else "",
            marker=look.marker,
            markersize=7,
            markerfacecolor="white" if name in hollow else look.colour,
            linewidth=1.5,
            zorder=1 if sheet.is_rest(name) else 2,
        )
        spread = np.nan_to_num(halves_of(part, column)) / unit.divisor
        if part["x"].is_unique and spread.any():
            axes.errorbar(mean.index, mean, spread, ecolor=look.colour, elinewidth=1, capsize=2, fmt="none")
        sheet.entry(line, name, text)
        drawn += [(line, text)] if sheet.is_rest(name) else []
    number_axis(axes, "y", values / unit.divisor, log=False if column in LINEAR else None, whole=column in COUNTS)
    if axes.get_yscale() == "linear":
        top = axes.dataLim.y1 or 1.0
        axes.set_ylim(-0.04 * top, 1.06 * top)
    name_ends(axes, drawn)


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


def _range(rows: pd.DataFrame, metric: Metric, parameter: str, others: list[str]) -> str:
    """A metric's least and most over the jobs, and where, if they can be told apart."""
    rows = rows.dropna(subset=[metric.column])
    if rows.empty:
        return ""
    values = rows[metric.column].to_numpy(dtype=float)
    least, most = values.argmin(), values.argmax()
    low, high = rows.iloc[least], rows.iloc[most]
    if values[least] == values[most]:
        return f"{metric.words} is {metric.write(values[least])} throughout"
    cost = cost_of(rows, metric.column)
    if not cost.less()[least, most]:
        span = f"{metric.words}, {metric.write(values[least])} to {metric.write(values[most])}, cannot be told apart"
        known = cost.is_known[[least, most]].all()
        return span if known else f"{span} without intervals, which one repetition has not"
    ends = []
    for row in (low, high):
        where = markdown_escape(value_text(row[parameter])) + (
            f", {setting(others, tuple(row[others]))}" if others else ""
        )
        ends.append(f"{metric.write(row[metric.column])} at {where}")
    return f"{metric.words} from {ends[0]} to {ends[1]}"
