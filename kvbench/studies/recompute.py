"""Recompute against cached decode: the article's first analysis, measured instead of computed."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kvbench.charts.recompute import recompute_chart
from kvbench.checks import check_int
from kvbench.decide.sweep import Point
from kvbench.results.columns import FROM
from kvbench.results.intervals import REPETITIONS, around, half_width
from kvbench.results.results import Results
from kvbench.strategy.base import Strategy
from kvbench.strategy.exact import Exact
from kvbench.strategy.recompute import Recompute
from kvbench.studies.base import Findings, Setting
from kvbench.studies.sweep import SweepExperiment
from kvbench.workload.request import Request, Session

CACHED, RECOMPUTED = "exact", "recompute"


def article_speedup(num_tokens: int) -> float:
    """The article's formula for a cache's speed-up, n² / (n + 100); 3,902 at 4,000 tokens."""
    return num_tokens**2 / (num_tokens + 100)


@dataclass(frozen=True, kw_only=True)
class RecomputeExperiment(SweepExperiment):
    """Decode a few tokens at each context length, with a cache and without.

    Args:
        context_tokens: lengths of the prompt, each > 0.
        num_decode_tokens: decode steps after it, > 0.
    Raises:
        ValueError: a number is not a positive integer.
    Source: the article, its first analysis.
    Departs: attention and cache are measured; the article evaluates a formula.
    """

    context_tokens: tuple[int, ...] = (100, 500, 1000, 2000, 4000)
    num_decode_tokens: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.context_tokens, list | tuple) or not self.context_tokens:
            raise ValueError(f"context_tokens is a list of at least one length, got {self.context_tokens!r}")
        for count in self.context_tokens:
            check_int("each of context_tokens", count, 1)
        check_int("num_decode_tokens", self.num_decode_tokens, 1)

    @property
    def strategies(self) -> dict[str, Strategy]:
        """What is compared: storage reserved once, and no cache at all."""
        return {CACHED: Exact(round_to=1), RECOMPUTED: Recompute()}

    @property
    def points(self) -> list[Point]:
        """A point a length."""
        return [
            Point(
                scenario=_named(num_tokens),
                sessions=(Session(0, (Request(num_tokens, self.num_decode_tokens + 1),)),),
                strategies=self.strategies,
            )
            for num_tokens in self.context_tokens
        ]

    def findings(self, measured: Results, setting: Setting) -> Findings:
        """What all lengths show.

        Returns:
            A row a length (context_tokens, cached_us, recompute_us, the ends of their intervals, speedup, formula);
            requests and steps, told apart by a column `scenario`.
        """
        table = self._frame(measured.steps)
        return Findings(
            summary=table,
            requests=measured.requests,
            steps=measured.steps,
            sentences=[*recompute_sentences(table, setting.backend.scope), *setting.notes],
            charts={"recompute": recompute_chart(table, setting.notes, setting.subject)},
        )

    def _frame(self, steps: pd.DataFrame) -> pd.DataFrame:
        decode = steps[(steps["phase"] == "decode") & ~steps["warmup"]]
        medians = decode.groupby(["scenario", "strategy", "repetition"], observed=True)["step_us"].median()
        rows = []
        for num_tokens in self.context_tokens:
            row: dict[str, Any] = {"context_tokens": num_tokens}
            for strategy, name in ((CACHED, "cached"), (RECOMPUTED, "recompute")):
                values = medians.get((_named(num_tokens), strategy), pd.Series(dtype=float))
                row[f"{name}_us"] = values.mean()
                row |= around(f"{name}_us", row[f"{name}_us"], half_width(values))
            row["speedup"] = row["recompute_us"] / row["cached_us"]
            row["formula"] = article_speedup(num_tokens)
            row[FROM] = None if math.isnan(row["cached_us_low"]) else REPETITIONS
            rows.append(row)
        return pd.DataFrame(rows)


def _named(num_tokens: int) -> str:
    return f"{num_tokens:,} tokens"


def recompute_sentences(frame: pd.DataFrame, scope: str = "cache") -> list[str]:
    """What the measurement shows, from its rows.

    Args:
        frame: a row a length.
        scope: whose times they are, the cache's or a whole model's.
    """
    sentences = []
    for row in frame.to_dict("records"):
        at = f"At {row['context_tokens']:,.0f} tokens"
        if math.isnan(row["speedup"]):
            sentences.append(f"{at} there is no figure: the budget does not hold them.")
            continue
        sentences.append(
            f"{at} a cached token takes {row['cached_us'] / 1000:,.3g} ms, "
            f"a recomputed one {row['recompute_us'] / 1000:,.4g} ms: {row['speedup']:,.3g} times as long; "
            f"the article's formula says {row['formula']:,.0f}."
        )
    if scope == "cache":
        sentences.append(
            "Times are of attention and cache alone: a model's other work would bring the ratio nearer to 1."
        )
    return sentences
