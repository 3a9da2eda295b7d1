"""The article's comprehensive benchmark, corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kvbench.charts.panels import comprehensive_chart
from kvbench.charts.text import listed, mib, number
from kvbench.decide.sweep import Point
from kvbench.results.columns import FROM, ends
from kvbench.results.front import row_of_least, row_of_most
from kvbench.results.provenance import model_notes
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Findings, Setting
from kvbench.studies.sweep import SweepExperiment, compared, tokens_of
from kvbench.workload.scenario import Scenario

COLUMNS = (
    "peak_bytes",
    "peak_host_bytes",
    "cumulative_bytes",
    "num_resizes",
    "utilization_peak",
    "utilization_mean",
    "total_s",
    *ends("total_s"),
    "efficiency",
    "kept_tokens",
)
"""What a strategy is compared by; empty where it did not hold the workload."""

ARTICLE, RAISED = "article", "raised"
ARTICLE_COMPRESSED_TOKENS = 8192
"""The most that the article's compressed strategy keeps."""


@dataclass(frozen=True, kw_only=True)
class Comprehensive(SweepExperiment):
    """Compare the article's strategies on its workloads, with its capacities and then with such as hold each workload.

    Args:
        scenarios: lists of appends, by name.
        strategies: with the article's parameters, by name.
        raised_strategies: the same strategies with capacities raised, by the same names.
    Raises:
        ValueError: a scenario is no list of appends, or the two sets of strategies differ in their names.
    Source: the article, its comprehensive benchmark.
    Departs: a strategy that cannot hold a workload is a marked result without figures, not an exception; memory is the
        peak of live bytes, with the article's sum of all allocations beside it; inputs are made before anything is
        timed; compressed has no maximum, and a second table has capacities that hold each workload.
    """

    scenarios: Mapping[str, Scenario]
    strategies: Mapping[str, Strategy]
    raised_strategies: Mapping[str, Strategy]
    repetitions: int = 3
    attend: bool = False

    def __post_init__(self) -> None:
        tokens_of(self.scenarios)
        if list(self.strategies) != list(self.raised_strategies):
            raise ValueError(
                f"raised_strategies are those of strategies ({', '.join(self.strategies)}), "
                f"got {', '.join(self.raised_strategies)}"
            )

    @property
    def points(self) -> list[Point]:
        """Each workload with the article's capacities, and each with raised ones."""
        sets = {ARTICLE: self.strategies, RAISED: self.raised_strategies}
        return [
            point
            for name, strategies in sets.items()
            for point in compared(strategies, self.scenarios, {"capacities": name})
        ]

    def findings(self, measured: Results, setting: Setting) -> Findings:
        """What both sets show.

        Returns:
            A row a scenario and strategy, with the article's capacities, and a further table with raised ones; requests
            and steps of both, told apart by a column `capacities`.
        """
        tokens, summary = tokens_of(self.scenarios), measured.summary
        tables = {name: table_of(summary[summary["capacities"] == name], tokens) for name in (ARTICLE, RAISED)}
        notes = model_notes(summary)
        references = [name for name, strategy in self.strategies.items() if strategy.reference]
        return Findings(
            summary=tables[ARTICLE],
            requests=measured.requests,
            steps=measured.steps,
            sentences=[
                *sentences_of(tables[ARTICLE], "The article's capacities", references),
                *_unbounded(tables[ARTICLE]),
                *sentences_of(tables[RAISED], "Raised capacities", references),
                _times(measured.steps, setting.backend.scope),
                *notes,
            ],
            charts={
                "article_capacities": comprehensive_chart(
                    tables[ARTICLE], "the article's capacities", notes, setting.subject
                ),
                "raised_capacities": comprehensive_chart(
                    tables[RAISED], "capacities that hold each workload", notes, setting.subject
                ),
            },
            tables={"raised_capacities": tables[RAISED]},
        )


def table_of(summary: pd.DataFrame, tokens: Mapping[str, int]) -> pd.DataFrame:
    """A row a scenario and strategy: what it was asked to hold, how that ended, and figures where it ended well."""
    summary = summary.reset_index(drop=True)
    names = ["scenario", "strategy", "outcome"]
    table = summary[names].assign(
        workload_tokens=summary["scenario"].map(tokens), appended_tokens=summary["num_tokens"].astype(int)
    )
    figures = summary[list(COLUMNS)].astype(float).join(summary[FROM])
    return table.join(figures.where(summary["outcome"] == "completed"))


def sentences_of(table: pd.DataFrame, under: str, references: Sequence[str] = ()) -> list[str]:
    """What a table shows: who cannot hold what, who is best at what, and what the article's figure counts.

    Args:
        table: from `table_of`.
        under: which capacities, as a sentence's start.
        references: strategies that are there to compare with, and never the best.
    """
    sentences = []
    held = table[table["outcome"] == "completed"]
    for name, rows in table.groupby("scenario", sort=False):
        failed = rows.loc[rows["outcome"] != "completed", "strategy"].tolist()
        if failed:
            size = f"{rows['workload_tokens'].iloc[0]:,} tokens"
            verb = "has" if len(failed) == 1 else "have"
            sentences.append(f"{under}: {listed(failed)} cannot hold {name} ({size}) and {verb} no figures there.")
        done = held[(held["scenario"] == name) & ~held["strategy"].isin(references)]
        if len(done) > 1:
            sentences.append(f"{under}: on {name} {_best(done)}.")
    if len(held):
        live_bytes = held["peak_bytes"] + held["peak_host_bytes"]
        times = held["cumulative_bytes"] / live_bytes
        row = row_of_most(held, times)
        sentences.append(
            f"{under}: the article's memory (every allocation ever made, summed) comes to as much as "
            f"{number(times.max())} times the most bytes live at once: {mib(row['cumulative_bytes'])} against "
            f"{mib(row['peak_bytes'] + row['peak_host_bytes'])}, {row['strategy']} on {row['scenario']}."
        )
    return sentences


def _best(rows: pd.DataFrame) -> str:
    least, efficient = row_of_least(rows, rows["peak_bytes"]), row_of_most(rows, rows["efficiency"])
    memory = f"the least live memory ({mib(least['peak_bytes'])}{_beside(least)})"
    score = f"the best efficiency by the article's formula ({number(efficient['efficiency'])})"
    if least["strategy"] == efficient["strategy"]:
        return f"{least['strategy']} has both {memory} and {score}"
    return f"{least['strategy']} has {memory}, {efficient['strategy']} {score}"


def _beside(row: pd.Series) -> str:
    """What a small peak on the device does not say: tokens in the host's memory, tokens given up."""
    host = f", and {mib(row['peak_host_bytes'])} of the host's" if row["peak_host_bytes"] > 0 else ""
    lost = row["appended_tokens"] - row["kept_tokens"]
    return f"{host}, with {lost:,.0f} of {row['appended_tokens']:,} tokens given up" if lost > 0 else host


def _unbounded(table: pd.DataFrame) -> list[str]:
    """Workloads that the article's compressed strategy would not hold."""
    done = table[(table["strategy"] == "compressed") & (table["kept_tokens"] > ARTICLE_COMPRESSED_TOKENS)]
    return [
        f"compressed has no maximum here, and keeps {row.kept_tokens:,.0f} tokens of {row.scenario}: the article's, "
        f"which holds {ARTICLE_COMPRESSED_TOKENS:,}, would fail there too."
        for row in done.itertuples()
    ]


def _times(steps: pd.DataFrame, scope: str) -> str:
    if scope == "model":
        return "Times are of a whole model."
    if steps["attend_us"].sum() > 0:
        return "Times are of the cache and its attention, not of a whole model."
    return "Times are of the cache alone: attention is off (attend=true turns it on)."
