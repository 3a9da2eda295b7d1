"""Kept fractions: what each saves in memory, and what attention loses."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvbench.backend.base import Backend
from kvbench.backend.measured import MeasuredBackend
from kvbench.charts.ranges import RangePanel
from kvbench.charts.text import duration, listed, number, percent
from kvbench.checks import check_int
from kvbench.quality.probe import Probe, request_to_probe
from kvbench.quality.structured import structured
from kvbench.results.columns import ends
from kvbench.results.front import row_of_least
from kvbench.results.results import Results
from kvbench.results.summary import US_PER_S
from kvbench.strategy.base import Strategy
from kvbench.strategy.compressed import Compressed
from kvbench.studies.base import Setting
from kvbench.studies.ranges import KEPT, RangeExperiment, saves_at_little_error
from kvbench.workload.request import Session

UNPROBED = "attention was not probed: this backend holds no tensors"
PROBED = (
    "Attention was probed on K and V made with structure (sinks, recent tokens, heavy hitters), not on a model's: they "
    "rank strategies, and are no model's loss."
)


@dataclass(frozen=True, kw_only=True)
class KeptFractions(RangeExperiment):
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

    kept_fractions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    interval: int = 64
    probed_heads: int = 4
    probed_tokens: int = 2048
    repetitions: int = 2
    attend: bool = False

    useful = KEPT
    varied = "compressed"
    figures = (
        "kept_tokens",
        "peak_bytes",
        "mean_allocated_bytes",
        "copied_bytes",
        "num_resizes",
        "total_s",
        *ends("total_s"),
    )
    panels = (
        RangePanel("Peak memory, the double buffer included", "peak_per_needed", "Peak ÷ bytes of all tokens"),
        RangePanel("Tokens kept at the end", "kept_share", "Kept ÷ seen"),
        RangePanel("Copied by evictions and resizes", "copied_per_needed", "Copied ÷ bytes of all tokens"),
        RangePanel("Time a token", "token_us", "Time", "µs"),
        RangePanel("Attention error", "error_relative", "|o - o*| ÷ |o*|", log=False, why_empty=UNPROBED),
        RangePanel("Attention that the kept tokens had", "mass_kept", "Share of exact attention", why_empty=UNPROBED),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("probed_heads", self.probed_heads, 1)
        check_int("probed_tokens", self.probed_tokens, 1)

    @property
    def title(self) -> str:
        """Of the chart."""
        return "What the kept fraction saves and costs"

    def strategy(self, value: float) -> Strategy:
        """Compressed to a fraction."""
        return Compressed(kept_fraction=value, interval=self.interval)

    def rows(self, measured: Results, setting: Setting) -> pd.DataFrame:
        """With what attention loses; those columns are empty on a backend without tensors."""
        rows = super().rows(measured, setting)
        return rows.assign(
            token_us=US_PER_S * rows["total_s"] / rows["workload_tokens"],
            kept_share=rows["kept_tokens"] / rows["workload_tokens"],
            **self._losses(setting, measured),
        )

    def sentences(self, table: pd.DataFrame) -> list[str]:
        """What each end of the article's range saves and loses on each workload, and whether the range holds.

        Args:
            table: a row a workload and fraction.
        """
        sentences = []
        for name, rows in table.groupby("scenario", sort=False):
            done = rows.dropna(subset=["peak_bytes"])
            if done.empty:
                sentences.append(f"{name}: no fraction was completed within the budget.")
                continue
            sentences.append(f"{name} ({done['workload_tokens'].iloc[0]:,} tokens): {_costs(done)}{_useful(done)}.")
        probed = table.dropna(subset=["error_relative", "peak_bytes"])
        if probed.empty:
            return [*sentences, f"{UNPROBED.capitalize()}, so no range can be judged."]
        return [*sentences, *KEPT.verdicts(probed), PROBED]

    def _losses(self, setting: Setting, measured: Results) -> dict[str, list[float]]:
        """What attention loses, a value a row of the summary; empty where there are no tensors to attend over."""
        found: dict[str, list[float]] = {"error_relative": [], "mass_kept": []}
        for point in self.points:
            session = request_to_probe(point.sessions, self.probed_tokens)
            probe = attention_probe(setting.backend, self.probed_heads, session, setting.seed)
            for strategy in point.strategies.values():
                quality = None if probe is None else probe(strategy)
                for name, values in found.items():
                    values.append(math.nan if quality is None else getattr(quality, name))
        return found


def attention_probe(backend: Backend, num_heads: int, session: Session, seed: int) -> Probe | None:
    """A probe of attention on K and V made with structure, in a layer of a few heads; None where there are no tensors.

    Args:
        backend: whose model and device it has.
        num_heads: KV heads, at most the model's, > 0.
        session: what is appended.
        seed: of K and V.
    """
    if not isinstance(backend, MeasuredBackend):
        return None
    geometry = backend.geometry
    thin = geometry.reshaped(num_layers=1, num_kv_heads=min(num_heads, geometry.plain.num_kv_heads))
    return Probe(session, structured(thin, session.num_tokens, seed), thin, str(backend.device))


def _costs(rows: pd.DataFrame) -> str:
    """Peak memory and time of each end of the article's range, or of what is nearest to it."""
    parts = []
    for end in (KEPT.low, KEPT.high):
        row = row_of_least(rows, (rows["fraction"] - end).abs())
        off = f", attention off by {percent(row['error_relative'])}" if np.isfinite(row["error_relative"]) else ""
        parts.append(
            f"at {row['fraction']:g} the peak is {number(row['peak_per_needed'])} times the bytes of all tokens, "
            f"a token takes {duration(row['token_us'] / US_PER_S)}{off}"
        )
    return "; ".join(parts)


def _useful(rows: pd.DataFrame) -> str:
    if rows["error_relative"].isna().all():
        return ""
    good = rows.loc[saves_at_little_error(rows) == 1, "fraction"]
    return f"; useful: {listed([f'{fraction:g}' for fraction in sorted(good)])}"
