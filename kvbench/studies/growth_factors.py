"""Growth factors: what each costs in memory and in copies, on several workloads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvbench.charts.text import duration, listed, number
from kvbench.charts.values import ValuePanel, values_chart
from kvbench.checks import check_int
from kvbench.results.front import Cost, pareto_front
from kvbench.results.provenance import model_notes
from kvbench.results.results import Results
from kvbench.results.statistics import confidence_half_width
from kvbench.results.summary import US_PER_S
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.studies.measure import measure, tokens_of
from kvbench.workload.scenario import Scenario

ARTICLE_RANGE = (1.2, 2.0)
TOLERANCE = 0.1
"""A factor is near the best where its cost is at most so much above the least."""

FIGURES = ("peak_bytes", "copied_bytes", "num_resizes", "stall_s", "utilization_mean")
PANELS = (
    ValuePanel("Peak memory, the double buffer included", "peak_per_needed", "Peak ÷ bytes of the tokens"),
    ValuePanel("Copied by resizes", "copied_per_needed", "Copied ÷ bytes of the tokens"),
    ValuePanel("Cost: peak and copied", "cost", "Sum ÷ bytes of the tokens"),
    ValuePanel("Resizes", "num_resizes", "Resizes (count)", whole=True),
    ValuePanel("Stall in resizes", "stall_s", "Stall", "s"),
    ValuePanel("Mean utilization", "utilization_mean", "Used ÷ allocated"),
)


@dataclass(frozen=True, kw_only=True)
class GrowthFactors(Experiment):
    """Grow by different factors on several workloads, and look for the factors that cost least.

    A factor's cost on a workload is its peak memory and the bytes that it copies, together, over the bytes of the
    workload's tokens; both are counted exactly. The best range of a workload is where the cost is within 10 % of the
    least.

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

    scenarios: Mapping[str, Scenario]
    growth_factors: tuple[float, ...]
    initial_capacity: int
    max_capacity: int

    def __post_init__(self) -> None:
        if not isinstance(self.growth_factors, list | tuple) or len(set(self.growth_factors)) < 2:  # noqa: PLR2004
            raise ValueError(f"growth_factors is a list of at least two factors, got {self.growth_factors!r}")
        check_int("max_capacity", self.max_capacity, 1)
        for name, count in tokens_of(self.scenarios).items():
            if count > self.max_capacity:
                raise ValueError(f"max_capacity holds {name}, {count} tokens, got {self.max_capacity}")
        self.strategies()

    def strategies(self) -> dict[str, Strategy]:
        """A dynamic strategy a factor, by the factor's name."""
        return {
            f"dynamic {factor:g}": Dynamic(
                initial_capacity=self.initial_capacity,
                growth_factor=factor,
                max_capacity=self.max_capacity,
                round_to=1,
            )
            for factor in dict.fromkeys(self.growth_factors)
        }

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one repetition, over all factors."""
        return len(self.strategies()) * sum(tokens_of(self.scenarios).values())

    def run(self, setting: Setting) -> Findings:
        """Measure each factor on each workload.

        Returns:
            A row a workload and factor.
        """
        measured = measure(self.strategies(), self.scenarios, setting)
        summary, tokens = measured.summary, tokens_of(self.scenarios)
        factors = dict(zip(self.strategies(), dict.fromkeys(self.growth_factors), strict=True))
        table = summary[["scenario"]].assign(
            growth_factor=summary["strategy"].map(factors).astype(float),
            outcome=summary["outcome"],
            workload_tokens=summary["scenario"].map(tokens),
        )
        figures = summary[list(FIGURES)].astype(float).where(summary["outcome"] == "completed")
        figures.insert(figures.columns.get_loc("stall_s") + 1, "stall_s_ci", stall_intervals(measured))
        table = with_cost(table.join(figures), setting.backend.slot_bytes)
        title = f"What the growth factor costs (from {self.initial_capacity:,} slots)"
        notes = model_notes(summary)
        return Findings(
            summary=table,
            requests=measured.requests,
            steps=measured.steps,
            sentences=[*sentences_of(table), *notes],
            charts={
                "growth_factors": values_chart(
                    table, "growth_factor", "Growth factor", PANELS, title, ARTICLE_RANGE, notes
                )
            },
        )


def stall_intervals(measured: Results) -> list[float]:
    """Of each row of the summary, the half width of the 95 % confidence interval of its stall, from repetitions."""
    steps = measured.steps[~measured.steps["warmup"]]
    stalls_s = (steps["reserve_us"].where(steps["num_resizes"] > 0, 0.0) / US_PER_S).groupby(
        [steps["scenario"], steps["strategy"].astype(str), steps["repetition"]]
    )
    sums = stalls_s.sum()
    rows = zip(measured.summary["scenario"], measured.summary["strategy"], strict=True)
    return [confidence_half_width(sums[scenario, strategy]) for scenario, strategy in rows]


def with_cost(table: pd.DataFrame, slot_bytes: int) -> pd.DataFrame:
    """The table with peak and copied bytes over those of the tokens, their sum, and whether no factor beats both.

    Args:
        table: scenario, workload_tokens, peak_bytes and copied_bytes.
        slot_bytes: bytes of a token.
    """
    needed_bytes = table["workload_tokens"] * slot_bytes
    table = table.assign(
        peak_per_needed=table["peak_bytes"] / needed_bytes, copied_per_needed=table["copied_bytes"] / needed_bytes
    )
    table["cost"] = table["peak_per_needed"] + table["copied_per_needed"]
    on_front = pd.Series(data=False, index=table.index)
    for _, rows in table.groupby("scenario", sort=False):
        on_front[rows.index] = pareto_front(*(Cost.around(rows[name]) for name in ("peak_bytes", "copied_bytes")))
    return table.assign(on_front=on_front)


def near_best(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose cost is within 10 % of the least."""
    return rows[rows["cost"] <= (1 + TOLERANCE) * rows["cost"].min()]


def sentences_of(table: pd.DataFrame) -> list[str]:
    """Where each workload's best range lies, and whether the article's holds."""
    low, high = ARTICLE_RANGE
    sentences, inside = [], []
    for name, rows in table.groupby("scenario", sort=False):
        done = rows.dropna(subset=["cost"])
        if done.empty:
            sentences.append(f"{name}: no factor was completed within the budget.")
            continue
        best, near = done.loc[done["cost"].idxmin()], near_best(done)
        inside.append(low <= best["growth_factor"] <= high)
        sentences.append(
            f"{name} ({best['workload_tokens']:,} tokens): {best['growth_factor']:g} costs least, "
            f"{number(best['cost'])} times the tokens' bytes ({number(best['peak_per_needed'])} at the peak, "
            f"{number(best['copied_per_needed'])} copied); within 10 % of it: {listed(_texts(near['growth_factor']))}."
        )
    if inside:
        sentences += [_overall(table), _verdict(table, inside), _stall(table)]
    return sentences


def _texts(factors: pd.Series) -> list[str]:
    return [f"{factor:g}" for factor in sorted(factors)]


def _overall(table: pd.DataFrame) -> str:
    mean = table.dropna(subset=["cost"]).groupby("growth_factor")["cost"].mean().reset_index()
    best, near = mean.loc[mean["cost"].idxmin()], near_best(mean)
    return (
        f"Mean over the workloads: {best['growth_factor']:g} costs least ({number(best['cost'])}); within 10 % of it: "
        f"{listed(_texts(near['growth_factor']))}."
    )


def _verdict(table: pd.DataFrame, inside: list[bool]) -> str:
    """Whether the best factors are those of the article's range, and what is outside it and unbeaten."""
    low, high = ARTICLE_RANGE
    done = table.dropna(subset=["cost"])
    in_range = done["growth_factor"].between(low, high)
    if in_range.all() or not in_range.any():
        which = "Every" if in_range.all() else "No"
        return f"{which} factor that was run is of the article's range of {low:g} to {high:g}: it cannot be judged."
    shares = [done.loc[mask, "on_front"].mean() if mask.any() else np.nan for mask in (in_range, ~in_range)]
    holds = "holds" if all(inside) else "holds in part" if any(inside) else "does not hold"
    return (
        f"The article's range of {low:g} to {high:g} {holds}: it has the factor that costs least on {sum(inside)} of "
        f"{len(inside)} workloads. No other factor has both less peak memory and less copied (the front) for "
        f"{number(100 * shares[0])} % of the factors inside it and {number(100 * shares[1])} % of those outside; with "
        "few appends, where the last growth lands decides much of the peak."
    )


def _stall(table: pd.DataFrame) -> str:
    sums = table.groupby("growth_factor")["stall_s"].sum()
    return (
        f"The stall, all workloads together, is {duration(sums.iloc[0])} at {sums.index[0]:g} and "
        f"{duration(sums.iloc[-1])} at {sums.index[-1]:g}."
    )
