"""Ranges of a parameter that the article calls useful: what a useful value is, and whether the range has them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from kvbench.charts.ranges import RangePanel, range_chart
from kvbench.charts.text import percent
from kvbench.decide.sweep import Point
from kvbench.results.columns import FROM
from kvbench.results.front import Cost, pareto_front
from kvbench.results.provenance import model_notes
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Findings, Setting
from kvbench.studies.sweep import SweepExperiment, compared, tokens_of
from kvbench.workload.scenario import Scenario

HALF = 50.0
"""In points: values of a useful range are useful so much more often than others."""
LOW_COST = 1.5
"""A growth factor costs little where its peak and copied bytes together are at most so many times the least."""
LEAST_SAVED, MOST_ERROR = 0.1, 0.1
"""A kept fraction is useful where so many tokens are dropped and attention's output is off by no more."""
ROUNDING = 1e-9


def growth_cost(rows: pd.DataFrame) -> pd.Series:
    """Peak and copied bytes together, over the bytes of the tokens."""
    return rows["peak_per_needed"] + rows["copied_per_needed"]


def on_growth_front(rows: pd.DataFrame) -> np.ndarray:
    """Which rows no other beats in both peak and copied bytes."""
    return pareto_front(Cost.around(rows["peak_per_needed"]), Cost.around(rows["copied_per_needed"]))


def costs_little(rows: pd.DataFrame) -> np.ndarray:
    """Which rows' cost is near the least."""
    cost = growth_cost(rows)
    is_low: np.ndarray = (cost <= LOW_COST * cost.min()).to_numpy()
    return is_low


def on_error_front(rows: pd.DataFrame) -> np.ndarray:
    """Which rows no other beats in both tokens kept and attention's error; NaN where that is not known."""
    front = pareto_front(Cost.around(rows["kept_share"]), Cost.around(rows["error_relative"]))
    return np.where(rows["error_relative"].notna(), front, np.nan)


def saves_at_little_error(rows: pd.DataFrame) -> np.ndarray:
    """Which rows drop enough and lose little; NaN where the loss is not known."""
    good = (rows["kept_share"] <= 1 - LEAST_SAVED + ROUNDING) & (rows["error_relative"] <= MOST_ERROR)
    return np.where(rows["error_relative"].notna(), good, np.nan)


@dataclass(frozen=True)
class UsefulRange:
    """A parameter, the range of it that the article calls useful, and what a useful value is.

    Args:
        what: the parameter.
        column: of tables, that holds its values.
        low: the range's least.
        high: its most.
        definitions: of useful: by its words, which of one workload's rows are; NaN where that is not known.
    """

    what: str
    column: str
    low: float
    high: float
    definitions: Mapping[str, Callable[[pd.DataFrame], np.ndarray]]

    @property
    def plural(self) -> str:
        """What an experiment's parameter and chart are called."""
        return f"{self.what}s".replace(" ", "_")

    def inside(self, values: Iterable[float]) -> np.ndarray:
        """Which values lie in the range, both ends included."""
        return np.array([self.low <= value <= self.high for value in values])

    def shares(self, table: pd.DataFrame, definition: str) -> pd.Series:
        """Of each value, on what share of the workloads it is useful.

        Args:
            table: a row a `scenario` and value, with the columns that the definition looks at.
            definition: of useful.
        """
        useful = self.definitions[definition]
        parts = [pd.Series(useful(rows), rows[self.column], float) for _, rows in table.groupby("scenario", sort=False)]
        return pd.concat(parts).groupby(level=0).mean()

    def excess(self, shares: pd.Series) -> float:
        """How much more often values in the range are useful than others, in points: the range is useful from HALF on.

        Args:
            shares: by value, how often it is useful, 0 to 1; NaN where that is not known.
        """
        inside = self.inside(shares.index)
        return 100.0 * float(shares[inside].mean(skipna=False) - shares[~inside].mean(skipna=False))

    def verdicts(self, table: pd.DataFrame) -> list[str]:
        """Whether the article's range is the useful one, a sentence a definition of useful."""
        name = f"the article's range of {self.low:g} to {self.high:g}"
        inside = self.inside(table[self.column])
        if inside.all() or not inside.any():
            which = "Every" if inside.all() else "No"
            return [f"{which} {self.what} that was run is of {name}: it cannot be judged."]
        sentences = []
        for definition in self.definitions:
            shares = self.shares(table, definition)
            own, others = (shares[mask].mean() for mask in (self.inside(shares.index), ~self.inside(shares.index)))
            verb = "holds" if self.excess(shares) >= HALF else "does not hold"
            sentences.append(
                f"T{name[1:]} {verb} where useful is {definition}: {percent(own)} of the {self.what}s inside it are, "
                f"workload by workload, and {percent(others)} of those outside."
            )
        return sentences


ON_GROWTH_FRONT = "on the front of peak and copied bytes"
COSTS_LITTLE = f"peak and copied bytes together within {LOW_COST:g} times the least"
ON_ERROR_FRONT = "on the front of memory and attention error"
SAVES = f"{100 * LEAST_SAVED:g} % of memory saved, attention off by {100 * MOST_ERROR:g} % at most"
GROWTH = UsefulRange(
    "growth factor", "growth_factor", 1.2, 2.0, {ON_GROWTH_FRONT: on_growth_front, COSTS_LITTLE: costs_little}
)
KEPT = UsefulRange(
    "kept fraction", "fraction", 0.6, 0.9, {ON_ERROR_FRONT: on_error_front, SAVES: saves_at_little_error}
)


@dataclass(frozen=True, kw_only=True)
class RangeExperiment(SweepExperiment):
    """The base of experiments that run a strategy with several values of one parameter on several workloads.

    Args:
        scenarios: lists of appends, by name.
    """

    scenarios: Mapping[str, Scenario]
    useful: ClassVar[UsefulRange]
    varied: ClassVar[str]
    """The strategy, by name."""
    figures: ClassVar[tuple[str, ...]]
    """Columns of the summary; empty where a workload was not completed."""
    panels: ClassVar[tuple[RangePanel, ...]]

    @property
    def title(self) -> str:
        """Of the chart."""
        raise NotImplementedError

    def strategy(self, value: float) -> Strategy:
        """The strategy with a value of the parameter."""
        raise NotImplementedError

    def sentences(self, table: pd.DataFrame) -> list[str]:
        """What the table shows."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        name, given = self.useful.plural, getattr(self, self.useful.plural)
        if not isinstance(given, list | tuple) or len(set(given)) < 2:  # noqa: PLR2004
            raise ValueError(f"{name} is a list of at least two {name.rpartition('_')[2]}, got {given!r}")
        tokens_of(self.scenarios)
        self.strategies()

    def by_name(self) -> dict[str, float]:
        """Values, by what the strategy with each is called."""
        return {f"{self.varied} {value:g}": value for value in getattr(self, self.useful.plural)}

    def strategies(self) -> dict[str, Strategy]:
        """The strategy with each value."""
        return {name: self.strategy(value) for name, value in self.by_name().items()}

    @property
    def points(self) -> list[Point]:
        """A point a workload, at which the values are compared."""
        return compared(self.strategies(), self.scenarios)

    def rows(self, measured: Results, setting: Setting) -> pd.DataFrame:
        """A row a workload and value: figures where it was completed, and peak and copied bytes over the tokens'."""
        summary = measured.summary
        rows = summary[["scenario"]].assign(
            **{self.useful.column: summary["strategy"].astype(str).map(self.by_name()).astype(float)},
            outcome=summary["outcome"],
            workload_tokens=summary["scenario"].map(tokens_of(self.scenarios)),
        )
        figures = summary[list(self.figures)].astype(float).join(summary[FROM])
        rows = rows.join(figures.where(summary["outcome"] == "completed"))
        needed_bytes = rows["workload_tokens"] * setting.backend.slot_bytes
        over = {f"{name}_per_needed": rows[f"{name}_bytes"] / needed_bytes for name in ("peak", "copied")}
        return rows.assign(**over)

    def findings(self, measured: Results, setting: Setting) -> Findings:
        """A row a workload and value, a chart of it, and whether the article's range is the useful one."""
        useful, notes = self.useful, model_notes(measured.summary)
        table = self.rows(measured, setting)
        span, label = (useful.low, useful.high), useful.what.capitalize()
        return Findings(
            summary=table,
            requests=measured.requests,
            steps=measured.steps,
            sentences=[*self.sentences(table), *notes],
            charts={
                useful.plural: range_chart(
                    table, useful.column, label, self.panels, self.title, span, notes, setting.subject
                )
            },
        )
