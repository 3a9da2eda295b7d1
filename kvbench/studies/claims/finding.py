"""What was measured for a claim by one definition, and the verdict: one function of values and a range."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

HOLDS, FAILS, PARTLY = "holds", "does not hold", "in part"
UNDECIDED, NO_FIGURE, NOT_CLAIMED = "undecided", "no figure", "not claimed"
TESTED = (HOLDS, FAILS, UNDECIDED)
COLUMNS = ("claim", "claim_text", "condition", "definition", "measured", "unit", "claimed", "verdict", "note")
ANY = (-math.inf, math.inf)
"""The range of what is shown beside a claim, and that the claim says nothing of."""


ROUNDING = 1e-9
"""What a figure may lie outside a range by, relative to its ends: the rounding of its arithmetic."""


def verdict(values: Iterable[float], low: float, high: float) -> str:
    """Whether values lie in a claimed range, both ends included.

    Args:
        values: NaN where there is no figure; those count as neither.
        low: the least that the claim allows.
        high: the most.
    Returns:
        holds where all do, does not hold where none does, in part where some do, no figure where there are none.
    """
    slack = ROUNDING * max(abs(end) for end in (low, high, 1.0) if math.isfinite(end))
    return combined(
        HOLDS if low - slack <= value <= high + slack else FAILS for value in values if not math.isnan(value)
    )


def combined(verdicts: Iterable[str]) -> str:
    """The verdict over several: holds or does not hold where all agree, in part where they do not.

    Those without a figure, and what is not claimed, count as neither. What is undecided keeps a claim from holding, and
    does not speak against it.
    """
    counted = {each for each in verdicts if each not in (NO_FIGURE, NOT_CLAIMED)}
    if not counted:
        return NO_FIGURE
    if len(counted) > 1 and counted <= {FAILS, UNDECIDED}:
        return FAILS
    return counted.pop() if len(counted) == 1 else PARTLY


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure.

    Args:
        condition: on which workload, with which parameters.
        definition: what the claim's words are taken to mean.
        measured: the figure; NaN where there is none, and the note says why.
        unit: such as %, × or rank; "" for a count.
        claimed: the least and the most that the claim allows; ANY where it says nothing.
        note: what a reader must know beside it.
        is_decided: whether it was measured well enough to tell on which side of the range's end it lies.
    """

    condition: str
    definition: str
    measured: float
    unit: str
    claimed: tuple[float, float]
    note: str = ""
    is_decided: bool = True

    @property
    def verdict(self) -> str:
        """Whether the figure lies in the claimed range."""
        if self.claimed == ANY:
            return NOT_CLAIMED
        return verdict([self.measured], *self.claimed) if self.is_decided else UNDECIDED

    def row(self, claim: str, words: str) -> dict[str, object]:
        """The figure as a row, columns as in COLUMNS, with the range's ends as low and high."""
        low, high = self.claimed
        values = (claim, words, self.condition, self.definition, self.measured, self.unit)
        row = dict(zip(COLUMNS, (*values, range_text(low, high), self.verdict, self.note), strict=True))
        return row | {"low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that was measured for a claim.

    Args:
        findings: a figure each.
        curve: what its chart shows beside the figures, where it has a chart of its own.
        sentences: what the tables do not say.
    """

    findings: list[Finding]
    curve: pd.DataFrame | None = None
    sentences: tuple[str, ...] = ()


def range_text(low: float, high: float) -> str:
    """A claimed range as text."""
    if (low, high) == ANY:
        return "nothing"
    if low == high:
        return f"{low:,.6g}"
    if math.isinf(high):
        return f"{low:,.6g} or more"
    if math.isinf(low):
        return f"{high:,.6g} or less"
    return f"{low:,.6g} to {high:,.6g}"


def by_definition(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim and definition: how many figures hold of how many, their least and most, and the verdict.

    What is not claimed is left out, unless nothing else is there.

    Args:
        table: rows of `Finding.row`.
    """
    rows = []
    for (claim, definition), group in table.groupby(["claim", "definition"], sort=False):
        tested = group[group["verdict"].isin(TESTED)]
        figures = (tested if len(tested) else group)["measured"].dropna()
        ranges = (tested if len(tested) else group)["claimed"].unique()
        rows.append(
            {
                "claim": claim,
                "definition": definition,
                "verdict": NOT_CLAIMED if set(group["verdict"]) == {NOT_CLAIMED} else combined(group["verdict"]),
                "least": figures.min(),
                "most": figures.max(),
                "unit": group["unit"].iloc[0],
                "claimed": ranges[0] if len(ranges) == 1 else "differs",
                "num_hold": int((tested["verdict"] == HOLDS).sum()),
                "num_figures": len(tested),
            }
        )
    return pd.DataFrame(rows)


def by_claim(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: its words, the verdict over all its figures, and how many hold.

    Args:
        table: rows of `Finding.row`.
    """
    rows = []
    for claim, group in table.groupby("claim", sort=False):
        tested = group[group["verdict"].isin(TESTED)]
        rows.append(
            {
                "claim": claim,
                "claim_text": group["claim_text"].iloc[0],
                "verdict": combined(group["verdict"]),
                "num_hold": int((tested["verdict"] == HOLDS).sum()),
                "num_figures": len(tested),
            }
        )
    return pd.DataFrame(rows)
