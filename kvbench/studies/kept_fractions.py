"""Kept fractions: what each saves in memory, and what attention loses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kvbench.backend.measured import Measured
from kvbench.charts.text import duration, listed, number, percent
from kvbench.charts.values import ValuePanel, values_chart
from kvbench.checks import check_int
from kvbench.quality.probe import Probe, request_to_probe
from kvbench.quality.structured import structured
from kvbench.results.provenance import model_notes
from kvbench.strategy.base import Strategy
from kvbench.strategy.compressed import Compressed
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.studies.measure import measure, tokens_of
from kvbench.workload.scenario import Scenario

ARTICLE_RANGE = (0.6, 0.9)
LEAST_SAVED, MOST_ERROR = 0.1, 0.1
"""A fraction is useful where at least so many tokens are dropped and attention's output is off by at most so much."""

FIGURES = (
    "kept_tokens",
    "peak_bytes",
    "mean_allocated_bytes",
    "copied_bytes",
    "num_resizes",
    "total_s",
    "total_s_ci",
)
UNPROBED = "attention was not probed: this backend holds no tensors"
PROBED = (
    "Attention was probed on K and V made with structure (sinks, recent tokens, heavy hitters), not on a model's: they "
    "rank strategies, and are no model's loss."
)
PANELS = (
    ValuePanel("Peak memory, the double buffer included", "peak_per_needed", "Peak ÷ bytes of all tokens"),
    ValuePanel("Tokens kept at the end", "kept_share", "Kept ÷ seen"),
    ValuePanel("Copied by evictions and resizes", "copied_per_needed", "Copied ÷ bytes of all tokens"),
    ValuePanel("Time a token", "token_us", "Time", "µs"),
    ValuePanel("Attention error", "error_relative", "|o - o*| ÷ |o*|", log=False, why_empty=UNPROBED),
    ValuePanel("Attention that the kept tokens had", "mass_kept", "Share of exact attention", why_empty=UNPROBED),
)


@dataclass(frozen=True, kw_only=True)
class KeptFractions(Experiment):
    """Compress to different fractions on several workloads, and look for those that save much and lose little.

    Memory and time are measured with the model's shape. What attention loses is measured apart, on K and V made with
    structure, a layer of a few heads and the first tokens of each workload.

    Args:
        scenarios: lists of appends, by name.
        kept_fractions: each above 0 and at most 1, at least two.
        interval: tokens seen between passes over the whole cache, > 0.
        probed_heads: KV heads that attention is probed on, at most the model's, > 0.
        probed_tokens: tokens of each workload that attention is probed on, > 0.
    Raises:
        ValueError: a parameter is out of its range, or a scenario is no list of appends.
    Source: the article, its range of kept fractions from 0.6 to 0.9.
    Departs: the article gives the range without a measurement.
    """

    scenarios: Mapping[str, Scenario]
    kept_fractions: tuple[float, ...]
    interval: int
    probed_heads: int
    probed_tokens: int

    def __post_init__(self) -> None:
        if not isinstance(self.kept_fractions, list | tuple) or len(set(self.kept_fractions)) < 2:  # noqa: PLR2004
            raise ValueError(f"kept_fractions is a list of at least two fractions, got {self.kept_fractions!r}")
        check_int("probed_heads", self.probed_heads, 1)
        check_int("probed_tokens", self.probed_tokens, 1)
        tokens_of(self.scenarios)
        self.strategies()

    def strategies(self) -> dict[str, Strategy]:
        """A compressed strategy a fraction, by the fraction's name."""
        return {
            f"compressed {fraction:g}": Compressed(kept_fraction=fraction, interval=self.interval)
            for fraction in dict.fromkeys(self.kept_fractions)
        }

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one repetition, over all fractions."""
        return len(self.strategies()) * sum(tokens_of(self.scenarios).values())

    def run(self, setting: Setting) -> Findings:
        """Measure each fraction on each workload.

        Returns:
            A row a workload and fraction. The columns of what attention loses are empty on a backend without tensors.
        """
        measured = measure(self.strategies(), self.scenarios, setting)
        summary, tokens = measured.summary, tokens_of(self.scenarios)
        fractions = dict(zip(self.strategies(), dict.fromkeys(self.kept_fractions), strict=True))
        table = summary[["scenario"]].assign(
            fraction=summary["strategy"].map(fractions).astype(float),
            outcome=summary["outcome"],
            workload_tokens=summary["scenario"].map(tokens),
        )
        table = table.join(summary[list(FIGURES)].astype(float).where(summary["outcome"] == "completed"))
        needed_bytes = table["workload_tokens"] * setting.backend.slot_bytes
        table = table.assign(
            token_us=1e6 * table["total_s"] / table["workload_tokens"],
            kept_share=table["kept_tokens"] / table["workload_tokens"],
            peak_per_needed=table["peak_bytes"] / needed_bytes,
            copied_per_needed=table["copied_bytes"] / needed_bytes,
            **self._losses(setting, summary),
        )
        title = "What the kept fraction saves and costs"
        notes = model_notes(summary)
        chart = values_chart(table, "fraction", "Kept fraction", PANELS, title, ARTICLE_RANGE, notes)
        return Findings(
            summary=table,
            requests=measured.requests,
            steps=measured.steps,
            sentences=[*sentences_of(table), *notes],
            charts={"kept_fractions": chart},
        )

    def _losses(self, setting: Setting, summary: pd.DataFrame) -> dict[str, list[float]]:
        """What attention loses, a value a row of the summary; empty where there are no tensors to attend over."""
        backend = setting.backend
        if not isinstance(backend, Measured):
            nothing = [math.nan] * len(summary)
            return {"error_relative": nothing, "mass_kept": nothing}
        group = backend.geometry.num_heads // backend.geometry.num_kv_heads
        num_heads = min(self.probed_heads, backend.geometry.num_kv_heads)
        thin = replace(backend.geometry, num_heads=group * num_heads, num_kv_heads=num_heads, num_layers=1)
        found = {}
        for scenario, workload in self.scenarios.items():
            sessions = workload.workload(np.random.default_rng(setting.seed)).sessions
            session = request_to_probe(sessions, self.probed_tokens)
            sample = structured(thin, session.num_tokens, setting.seed)
            probe = Probe(session, sample, thin, str(backend.device))
            found |= {(scenario, name): probe(strategy) for name, strategy in self.strategies().items()}
        rows = [found[row] for row in zip(summary["scenario"], summary["strategy"].astype(str), strict=True)]
        return {name: [getattr(quality, name) for quality in rows] for name in ("error_relative", "mass_kept")}


def sentences_of(table: pd.DataFrame) -> list[str]:
    """Where each workload's best range lies, and whether the article's holds."""
    sentences = []
    for name, rows in table.groupby("scenario", sort=False):
        done = rows.dropna(subset=["peak_bytes"])
        if done.empty:
            sentences.append(f"{name}: no fraction was completed within the budget.")
            continue
        sentences.append(f"{name} ({done['workload_tokens'].iloc[0]:,} tokens): {_costs(done)}{_useful(done)}.")
    probed = table.dropna(subset=["error_relative", "peak_bytes"])
    sentences += [_verdict(probed), PROBED] if len(probed) else [f"{UNPROBED.capitalize()}, so no range can be judged."]
    return sentences


def useful(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that drop enough and lose little."""
    saves = rows["kept_share"] <= 1 - LEAST_SAVED
    return rows[saves & (rows["error_relative"] <= MOST_ERROR)]


def _costs(rows: pd.DataFrame) -> str:
    """Peak memory and time of each end of the article's range, or of what is nearest to it."""
    parts = []
    for end in ARTICLE_RANGE:
        row = rows.loc[(rows["fraction"] - end).abs().idxmin()]
        off = f", attention off by {percent(row['error_relative'])}" if np.isfinite(row["error_relative"]) else ""
        parts.append(
            f"at {row['fraction']:g} the peak is {number(row['peak_per_needed'])} times the bytes of all tokens, "
            f"a token takes {duration(row['token_us'] / 1e6)}{off}"
        )
    return "; ".join(parts)


def _useful(rows: pd.DataFrame) -> str:
    if rows["error_relative"].isna().all():
        return ""
    good = useful(rows)["fraction"]
    return f"; useful: {listed([f'{fraction:g}' for fraction in sorted(good)])}"


def _verdict(rows: pd.DataFrame) -> str:
    """Whether the fractions of the article's range are the useful ones."""
    low, high = ARTICLE_RANGE
    inside = rows["fraction"].between(low, high)
    if not inside.any():
        return f"Of the article's range of {low:g} to {high:g} no fraction was run, so that it cannot be judged."
    counts = [(len(useful(part)), len(part)) for part in (rows[inside], rows[~inside])]
    (good, num_inside), (stray, num_outside) = counts
    holds = "holds" if good == num_inside and not stray else "holds in part" if good else "does not hold"
    return (
        f"The article's range of {low:g} to {high:g} {holds}. Useful is what drops at least {percent(LEAST_SAVED)} of "
        f"the tokens and moves attention's output by at most {percent(MOST_ERROR)}: {good} of {num_inside} fractions "
        f"(workload by workload) inside it, {stray} of {num_outside} outside."
    )
