"""Growth factors: what each costs in memory and in copies, on several workloads."""

from dataclasses import dataclass

import pandas as pd

from kvbench.charts.ranges import RangePanel
from kvbench.charts.text import duration, listed, number
from kvbench.checks import check_int
from kvbench.results.columns import ends
from kvbench.results.front import row_of_least
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.studies.base import Setting
from kvbench.studies.ranges import GROWTH, LOW_COST, RangeExperiment, costs_little, growth_cost, on_growth_front
from kvbench.studies.sweep import tokens_of


@dataclass(frozen=True, kw_only=True)
class GrowthFactors(RangeExperiment):
    """Grow by different factors on several workloads, and look for the factors that cost least.

    A factor's cost on a workload is its peak memory and the bytes that it copies, together, over the bytes of the
    workload's tokens; both are counted exactly. A factor costs little where that is within 1.5 times the least.

    Args:
        scenarios: lists of appends, by name.
        growth_factors: each above 1, at least two.
        initial_capacity: slots reserved at first, > 0.
        max_capacity: slots at most, enough for each workload.
    Raises:
        ValueError: a parameter is out of its range, a scenario is no list of appends, or the maximum does not hold it.
    Source: the article, its range of growth factors from 1.2 to 2.0.
    Departs: the article gives the range without a measurement.
    """

    growth_factors: tuple[float, ...] = (1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    initial_capacity: int = 256
    max_capacity: int = 65536
    repetitions: int = 3
    attend: bool = False

    useful = GROWTH
    varied = "dynamic"
    figures = ("peak_bytes", "copied_bytes", "num_resizes", "stall_s", *ends("stall_s"), "utilization_mean")
    panels = (
        RangePanel("Peak memory, the double buffer included", "peak_per_needed", "Peak ÷ bytes of the tokens"),
        RangePanel("Copied by resizes", "copied_per_needed", "Copied ÷ bytes of the tokens"),
        RangePanel("Cost: peak and copied", "cost", "Sum ÷ bytes of the tokens"),
        RangePanel("Resizes", "num_resizes", "Resizes (count)", whole=True),
        RangePanel("Stall in resizes", "stall_s", "Stall", "s"),
        RangePanel("Mean utilization", "utilization_mean", "Used ÷ allocated"),
    )

    def __post_init__(self) -> None:
        check_int("max_capacity", self.max_capacity, 1)
        super().__post_init__()
        for name, count in tokens_of(self.scenarios).items():
            if count > self.max_capacity:
                raise ValueError(f"max_capacity holds {name}, {count} tokens, got {self.max_capacity}")

    @property
    def title(self) -> str:
        """Of the chart."""
        return f"What the growth factor costs (from {self.initial_capacity:,} slots)"

    def strategy(self, value: float) -> Strategy:
        """Dynamic, growing by a factor."""
        return Dynamic(
            initial_capacity=self.initial_capacity, growth_factor=value, max_capacity=self.max_capacity, round_to=1
        )

    def rows(self, measured: Results, setting: Setting) -> pd.DataFrame:
        """With the cost of each, and whether no other factor has both less peak and less copied."""
        return with_cost(super().rows(measured, setting))

    def sentences(self, table: pd.DataFrame) -> list[str]:
        """Where each workload's best factors lie, and whether the article's range holds.

        Args:
            table: from `with_cost`, with growth_factor, workload_tokens and stall_s.
        """
        sentences = []
        done = table.dropna(subset=["cost"])
        for name, rows in table.groupby("scenario", sort=False):
            held = rows.dropna(subset=["cost"])
            if held.empty:
                sentences.append(f"{name}: no factor was completed within the budget.")
                continue
            best = row_of_least(held, held["cost"])
            sentences.append(
                f"{name} ({best['workload_tokens']:,} tokens): {best['growth_factor']:g} costs least, "
                f"{number(best['cost'])} times the tokens' bytes ({number(best['peak_per_needed'])} at the peak, "
                f"{number(best['copied_per_needed'])} copied); {_near(held)}."
            )
        if len(done):
            sentences += [_overall(done), *GROWTH.verdicts(done), _stall(table)]
        return sentences


def with_cost(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the cost of each, and whether no other of its workload has both less peak and less copied.

    Args:
        rows: scenario, peak_per_needed and copied_per_needed.
    """
    fronts = [pd.Series(on_growth_front(own), own.index) for _, own in rows.groupby("scenario", sort=False)]
    return rows.assign(cost=growth_cost(rows), on_front=pd.concat(fronts))


def _near(rows: pd.DataFrame) -> str:
    factors = sorted(rows.loc[costs_little(rows), "growth_factor"])
    return f"at most {LOW_COST:g} times that: {listed([f'{factor:g}' for factor in factors])}"


def _overall(done: pd.DataFrame) -> str:
    costs = ["cost", "peak_per_needed", "copied_per_needed"]
    mean = done.groupby("growth_factor")[costs].mean().reset_index()
    best = row_of_least(mean, mean["cost"])
    return (
        f"Mean over the workloads: {best['growth_factor']:g} costs least ({number(best['cost'])}); {_near(mean)}. With "
        "few appends, where the last growth lands decides much of the peak."
    )


def _stall(table: pd.DataFrame) -> str:
    sums = table.groupby("growth_factor")["stall_s"].sum()
    return (
        f"The stall, all workloads together, is {duration(sums.iloc[0])} at {sums.index[0]:g} and "
        f"{duration(sums.iloc[-1])} at {sums.index[-1]:g}."
    )
