"""From cells to frames: a row a strategy and budget, and what became of each needle."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kvbench.studies.quality.cells import COMPLETED, CONTINUED, NEEDLES, STREAMING, Cell, CellResult
from kvbench.studies.quality.contenders import Contender

TURNS = ("first", "later")
KL_DIGITS = 6
"""Decimals of nats; what is less is how float32 rounds, and may be negative."""


def table_of(contenders: Sequence[Contender], found: Mapping[Cell, CellResult], ideal_bytes: int) -> pd.DataFrame:
    """A row a contender; figures of what was not completed are empty.

    Args:
        contenders: in order.
        found: all cells.
        ideal_bytes: of the text's tokens, each held once.
    """
    needles = needles_of(found)
    return pd.DataFrame([_row(contender, found, needles, ideal_bytes) for contender in contenders])


def _row(
    contender: Contender, found: Mapping[Cell, CellResult], needles: pd.DataFrame, ideal_bytes: int
) -> dict[str, object]:
    own = {cell: kept.figures for cell, kept in found.items() if cell.contender == contender}
    streaming, continued = (_of_form(own, form) for form in (STREAMING, CONTINUED))
    outcomes = [figures["outcome"] for figures in own.values()]
    row: dict[str, object] = {
        "strategy": contender.label,
        "kind": contender.kind,
        "lossless": contender.lossless,
        "reference": contender.reference,
        "outcome": next((outcome for outcome in outcomes if outcome != COMPLETED), COMPLETED),
        "budget_tokens": math.nan if contender.budget_tokens is None else float(contender.budget_tokens),
    }
    for name in ("perplexity", "kl_nats", "agreement"):
        row[name] = _figure(streaming, name)
    for name, column in (
        ("perplexity", "perplexity_continued"),
        ("kl_nats", "kl_continued_nats"),
        ("agreement", "agreement_continued"),
    ):
        row[column] = _figure(continued, name)
    for turn in TURNS:
        row[f"recall_{turn}"] = _recall(needles, contender, turn)
    for name in ("tokens_per_s", "held_bytes", "peak_bytes"):
        row[name] = _figure(streaming, name)
    row["ideal_bytes"] = float(ideal_bytes)
    for name in ("num_resizes", "num_attended"):
        row[name] = _figure(streaming, name)
    row["num_attended_continued"] = _figure(continued, "num_attended")
    return row


def _of_form(own: Mapping[Cell, Mapping[str, object]], form: str) -> Mapping[str, object]:
    return next((figures for cell, figures in own.items() if cell.form == form), {})


def _figure(figures: Mapping[str, object], name: str) -> float:
    value = float(figures.get(name, math.nan))
    return max(0.0, round(value, KL_DIGITS)) if name == "kl_nats" and math.isfinite(value) else value


def _recall(needles: pd.DataFrame, contender: Contender, turn: str) -> float:
    """Share of all needles of a turn that were found, over lengths and depths."""
    budget = math.nan if contender.budget_tokens is None else contender.budget_tokens
    same = needles["budget_tokens"].eq(budget) | (needles["budget_tokens"].isna() & np.isnan(budget))
    rows = needles[needles["strategy"].eq(contender.label) & same & needles["turn"].eq(turn)]
    return float((rows["recall"] * rows["num_asked"]).sum() / rows["num_asked"].sum()) if len(rows) else math.nan


NEEDLE_COLUMNS = ("strategy", "budget_tokens", "context_tokens", "depth", "turn", "recall", "num_asked")


def needles_of(found: Mapping[Cell, CellResult]) -> pd.DataFrame:
    """A row a contender, context length, depth and turn: the share of needles that were found."""
    rows = []
    for cell, kept in found.items():
        if cell.form != NEEDLES or kept.figures["outcome"] != COMPLETED:
            continue
        asked: dict[tuple[float, str], list[bool]] = {}
        for depth, turn, is_found in kept.figures["asked"]:
            asked.setdefault((float(depth), str(turn)), []).append(bool(is_found))
        budget = cell.contender.budget_tokens
        rows += [
            (
                cell.contender.label,
                math.nan if budget is None else float(budget),
                cell.num_tokens,
                depth,
                turn,
                sum(answers) / len(answers),
                len(answers),
            )
            for (depth, turn), answers in sorted(asked.items())
        ]
    return pd.DataFrame(rows, columns=list(NEEDLE_COLUMNS))
