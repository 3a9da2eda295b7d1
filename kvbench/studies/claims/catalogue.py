"""The claims: their words, how each is measured, and its chart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.claim_curves import choices_chart, ranges_chart, stream_chart
from kvbench.charts.claims import claim_chart
from kvbench.studies.claims import choice, speedup, stream, tiers
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.choice import choices
from kvbench.studies.claims.concurrency import NUM_TOKENS as CONCURRENT_TOKENS
from kvbench.studies.claims.concurrency import concurrency
from kvbench.studies.claims.finding import Evidence
from kvbench.studies.claims.ranges import ranges
from kvbench.studies.claims.resizes import predictive_resizes
from kvbench.studies.claims.saving import short_chat_saving
from kvbench.studies.claims.waste import dynamic_use, static_waste, waste_table


def of_rows(rows: pd.DataFrame, curve: pd.DataFrame | None, title: str, notes: Sequence[str]) -> Figure:
    """The chart of a claim whose figures say all."""
    return claim_chart(rows, title, notes)


def of_curve(
    chart: Callable[[pd.DataFrame, str, Sequence[str]], Figure],
) -> Callable[[pd.DataFrame, pd.DataFrame, str, Sequence[str]], Figure]:
    """The chart of a claim that has one of its own."""
    return lambda rows, curve, title, notes: chart(curve, title, notes)


@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        words: what the article claims.
        measure: gives its figures.
        num_tokens: tokens that one timed repetition of it appends.
        chart: from its rows, its curve, a title and notes.
    """

    words: str
    measure: Callable[[ClaimsBench], Evidence]
    num_tokens: int = 0
    chart: Callable[[pd.DataFrame, pd.DataFrame | None, str, Sequence[str]], Figure] = of_rows


CLAIMS = {
    "C1": Claim("static waste is 93.8, 87.5, 75.0, 50.0 % at 512, 1024, 2048, 4096 of 8192 tokens", waste_table),
    "C2": Claim("static wastes 50 to 95 % of its memory", static_waste),
    "C3": Claim("dynamic uses 85 to 95 % of what it allocates", dynamic_use),
    "C4": Claim("predictive does 50 to 80 % fewer resizes than dynamic", predictive_resizes),
    "C5": Claim("in short chat, dynamic saves 70 to 90 % of static's memory", short_chat_saving),
    "C6": Claim("hierarchical serves longer documents than the fast tier holds", tiers.tiers, tiers.NUM_TOKENS),
    "C7": Claim(
        "growth factors of 1.2 to 2.0 and kept fractions of 0.6 to 0.9 are the useful ranges",
        ranges,
        chart=of_curve(ranges_chart),
    ),
    "C8": Claim(
        "at 4,000 tokens a cache makes generation 3,902 times faster",
        speedup.speedup,
        speedup.EXPERIMENT.num_tokens,
    ),
    "C9": Claim(
        "best are predictive for short chat, hierarchical for long documents, dynamic with a large factor for code, "
        "compressed for creative writing",
        choices,
        choice.NUM_TOKENS,
        of_curve(choices_chart),
    ),
    "C10": Claim("asynchronous management raises performance under concurrency", concurrency, CONCURRENT_TOKENS),
    "C11": Claim(
        "streaming holds memory bounded in real time", stream.stream, stream.NUM_TOKENS, of_curve(stream_chart)
    ),
}
