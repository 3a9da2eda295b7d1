"""The article's claims: their words, how each is measured and drawn; and the experiment that says which hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.claims import choices_chart, claim_chart, ranges_chart, stream_chart
from kvbench.charts.text import number
from kvbench.checks import check_int
from kvbench.messages import unknown
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.studies.claims import choice, speedup, stream, tiers
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.choice import choices
from kvbench.studies.claims.concurrency import NUM_TOKENS as CONCURRENT_TOKENS
from kvbench.studies.claims.concurrency import concurrency
from kvbench.studies.claims.counted import (
    counted,
    dynamic_use,
    fewer_resizes,
    short_chat_saving,
    static_waste,
    waste_table,
)
from kvbench.studies.claims.finding import COLUMNS, FAILS, HOLDS, PARTLY, UNDECIDED, Evidence, by_claim, by_definition
from kvbench.studies.claims.ranges import ranges
from kvbench.studies.sweep import lists_of
from kvbench.workload.scenario import Scenario


@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        words: what the article claims.
        measure: gives its figures.
        num_tokens: tokens that one timed repetition of it appends.
        chart: from its curve where it has one, or else from its figures; with a title, notes and a subject.
    """

    words: str
    measure: Callable[[ClaimsBench], Evidence]
    num_tokens: int = 0
    chart: Callable[[pd.DataFrame, str, Sequence[str], str], Figure] = claim_chart


CLAIMS = {
    "C1": Claim(
        "static waste is 93.8, 87.5, 75.0, 50.0 % at 512, 1024, 2048, 4096 of 8192 tokens", counted(waste_table)
    ),
    "C2": Claim("static wastes 50 to 95 % of its memory", counted(static_waste)),
    "C3": Claim("dynamic uses 85 to 95 % of what it allocates", counted(dynamic_use)),
    "C4": Claim("predictive does 50 to 80 % fewer resizes than dynamic", counted(fewer_resizes)),
    "C5": Claim("in short chat, dynamic saves 70 to 90 % of static's memory", counted(short_chat_saving)),
    "C6": Claim("hierarchical serves longer documents than the fast tier holds", tiers.tiers, tiers.NUM_TOKENS),
    "C7": Claim(
        "growth factors of 1.2 to 2.0 and kept fractions of 0.6 to 0.9 are the useful ranges",
        ranges,
        chart=ranges_chart,
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
        choices_chart,
    ),
    "C10": Claim("asynchronous management raises performance under concurrency", concurrency, CONCURRENT_TOKENS),
    "C11": Claim("streaming holds memory bounded in real time", stream.stream, stream.NUM_TOKENS, stream_chart),
}


@dataclass(frozen=True, kw_only=True)
class ClaimsExperiment(Experiment):
    """Measure the article's claims, each by every definition that its words allow, and give each a verdict.

    What can be counted is counted, under the model's geometry, without tensors. What must be timed is measured on the
    configured backend, on a few heads.

    Args:
        claims: which, C1 to C11, in the order of the tables.
        scenarios: lists of appends, by name: the article's twelve.
        timed_heads: KV heads of the model in timed runs, at most the model's own, > 0; cache and attention take time in
            proportion to them.
    Raises:
        ValueError: a claim is unknown or named twice, a scenario is no list of appends, or a number is out of range.
    Source: the article, all its sections.
    Departs: it states these claims; here each is a range, and figures that lie in it or do not.
    """

    claims: tuple[str, ...] = tuple(CLAIMS)
    scenarios: Mapping[str, Scenario]
    timed_heads: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.claims, list | tuple) or not self.claims:
            raise ValueError(f"claims is a list of at least one claim, such as [C1], got {self.claims!r}")
        for claim in self.claims:
            if claim not in CLAIMS:
                raise ValueError(unknown("claim", claim, CLAIMS))
        if len(set(self.claims)) < len(self.claims):
            raise ValueError(f"claims names each once, got {', '.join(self.claims)}")
        lists_of(self.scenarios)
        check_int("timed_heads", self.timed_heads, 1)

    @property
    def num_tokens(self) -> int:
        """Tokens appended in one timed repetition; counting appends none."""
        return sum(CLAIMS[claim].num_tokens for claim in self.claims)

    def run(self, setting: Setting) -> Findings:
        """Measure the claims.

        Returns:
            A row a claim and definition; a row a claim, as a further table; a row a figure, as a file; requests and
            steps of the timed runs, told apart by a column `part`.
        """
        bench = ClaimsBench(setting, self.timed_heads, lists_of(self.scenarios))
        times = [times_sentence(bench.num_heads)] if setting.backend.scope == "cache" else []
        rows, charts = [], {}
        details: list[str] = []
        for name in self.claims:
            claim = CLAIMS[name]
            evidence = claim.measure(bench)
            own = pd.DataFrame([finding.row(name, claim.words) for finding in evidence.findings])
            title = f"{name}, {by_claim(own)['verdict'].iloc[0]}: {claim.words}"
            shown = own if evidence.curve is None else evidence.curve
            notes = [*setting.notes, *(times if claim.num_tokens else [])]
            charts[f"c{int(name[1:]):02d}"] = claim.chart(shown, title, notes, setting.subject)
            rows.append(own)
            details += evidence.sentences
        figures = pd.concat(rows, ignore_index=True)
        definitions, verdicts = by_definition(figures), by_claim(figures)
        return Findings(
            summary=definitions,
            requests=_joined(bench.requests),
            steps=_joined(bench.steps),
            sentences=[*sentences_of(definitions, verdicts), *details, *setting.notes, *times],
            charts=charts,
            tables={"verdicts": verdicts},
            files={"figures": figures[list(COLUMNS)]},
        )


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"strategy": pd.Series(dtype=str)})


def sentences_of(definitions: pd.DataFrame, verdicts: pd.DataFrame) -> list[str]:
    """A sentence a claim: its verdict, and by which definitions.

    Args:
        definitions: from `by_definition`.
        verdicts: from `by_claim`.
    """
    sentences = []
    for claim in verdicts.itertuples():
        parts = [f"{claim.claim}, {claim.verdict}: {claim.claim_text}."]
        own = definitions[definitions["claim"] == claim.claim]
        for verdict, how in (
            (HOLDS, "Holds by"),
            (PARTLY, "In part by"),
            (FAILS, "Does not hold by"),
            (UNDECIDED, "Undecided by"),
        ):
            named = [_measured(row) for _, row in own[own["verdict"] == verdict].iterrows()]
            parts += [f"{how}: {'; '.join(named)}."] if named else []
        sentences.append(" ".join(parts))
    return sentences


def times_sentence(num_heads: int) -> str:
    """What was measured how.

    Args:
        num_heads: KV heads of timed runs.
    """
    heads = f"{num_heads} KV head{'s' if num_heads != 1 else ''}"
    return (
        f"Counts are exact. Times are of the cache and its attention, not of a whole model, on {heads} but for C10, "
        "which has the model's own."
    )


def _measured(row: pd.Series) -> str:
    """A definition, its figures, and how many of several hold."""
    values = number(row["least"]) if row["least"] == row["most"] else f"{number(row['least'])} to {number(row['most'])}"
    of = f", {row['num_hold']} of {row['num_figures']}" if row["num_figures"] > 1 else ""
    return f"{row['definition']} ({values} {row['unit']}".rstrip() + f"{of})"
