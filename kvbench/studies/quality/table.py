"""From cells to frames: a row a strategy and budget, and what became of each needle; what they show, in sentences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kvbench.charts.text import listed, number, percent
from kvbench.results.front import Cost, may_win, pareto_front, rounded_cost, row_of_most
from kvbench.results.schema import LEAST_ERROR
from kvbench.studies.quality.cells import (
    COMPLETED,
    CONTINUED,
    KVBENCH,
    NEEDLES,
    PRIMED,
    STREAMING,
    TRANSFORMERS,
    Cell,
    CellResult,
    Contender,
)

TURNS = ("first", "later")
KL_DIGITS = 6
"""Decimals of nats; what is less is how float32 rounds, and may be negative."""
NEEDLE_COLUMNS = ("strategy", "budget_tokens", "context_tokens", "depth", "turn", "recall", "num_asked")
RIVALS = ("heavy_hitters", "snapkv")
KNOWS_LITTLE = 0.5
"""Below such a recall of the full cache, needles tell of the model and not of caches."""


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


def _of_form(own: Mapping[Cell, Mapping[str, Any]], form: str) -> Mapping[str, Any]:
    return next((figures for cell, figures in own.items() if cell.form == form), {})


def _figure(figures: Mapping[str, Any], name: str) -> float:
    value = float(figures.get(name, math.nan))
    return max(0.0, round(value, KL_DIGITS)) if name == "kl_nats" and math.isfinite(value) else value


def _recall(needles: pd.DataFrame, contender: Contender, turn: str) -> float:
    """Share of all needles of a turn that were found, over lengths and depths."""
    budget = math.nan if contender.budget_tokens is None else contender.budget_tokens
    same = needles["budget_tokens"].eq(budget) | (needles["budget_tokens"].isna() & np.isnan(budget))
    rows = needles[needles["strategy"].eq(contender.label) & same & needles["turn"].eq(turn)]
    return float((rows["recall"] * rows["num_asked"]).sum() / rows["num_asked"].sum()) if len(rows) else math.nan


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


def sentences_of(table: pd.DataFrame, full: float, full_continued: float) -> list[str]:
    """What the table shows, whoever comes out better.

    Args:
        table: a row a strategy and budget.
        full: the full cache's perplexity, of every token after the first.
        full_continued: of those after the prefill.
    """
    said = [
        f"The full cache's perplexity is {number(full, 4)} token by token, {number(full_continued, 4)} after the "
        "prefill.",
        *_front(table),
        *_windows(table, full),
        *_rivals(table),
        *_bits(table, full),
        *_needles(table),
        *_primed(table),
        *_failed(table),
    ]
    return said


def _title(row: pd.Series) -> str:
    budget = row["budget_tokens"]
    return str(row["strategy"]) if math.isnan(budget) else f"{row['strategy']} within {budget:,.0f}"


def _front(table: pd.DataFrame) -> Iterable[str]:
    """Who is beaten by none in peak bytes and perplexity."""
    perplexity, memory = (table[name].to_numpy(dtype=float) for name in ("perplexity", "peak_bytes"))
    cost = rounded_cost(perplexity, table["lossless"].to_numpy(dtype=bool))
    on_front = table[pareto_front(Cost.around(memory).among(may_win(table)), cost)]
    if len(on_front):
        points = [
            f"{_title(row)} ({percent(row['peak_bytes'] / row['ideal_bytes'])} of the tokens' bytes, "
            f"{number(row['perplexity'], 4)})"
            for _, row in on_front.sort_values("peak_bytes", kind="stable").iterrows()
        ]
        yield f"On the front of peak memory and perplexity, token by token: {listed(points, 20)}."


def _windows(table: pd.DataFrame, full: float) -> Iterable[str]:
    """What the sinks are for: a recent window against the same with sinks."""
    for budget, (with_sinks, without) in _pairs(table, "sinks", "recent_window", "perplexity"):
        yield (
            f"Within {budget:,.0f} tokens, a recent window has {number(without / full)} times the full cache's "
            f"perplexity, one with sinks {number(with_sinks / full)} times."
        )


def _rivals(table: pd.DataFrame) -> Iterable[str]:
    """Those that rank tokens against sinks of the same budget; what they attend at the end stands beside it."""
    for rival in RIVALS:
        for form, column, attended in (
            ("token by token", "perplexity", "num_attended"),
            ("after the prefill", "perplexity_continued", "num_attended_continued"),
        ):
            for budget, (sinks, own) in _pairs(table, "sinks", rival, column):
                reads = [_of(table, name, budget)[attended] for name in ("sinks", rival)]
                verdict = "lower than" if own < sinks else "higher than"
                if math.isclose(own, sinks, rel_tol=LEAST_ERROR):
                    verdict = "as high as"
                yield (
                    f"Within {budget:,.0f} tokens, {form}, {rival} has a perplexity of {number(own, 4)} (it reads "
                    f"{reads[1]:,.0f} tokens at the end), {verdict} sinks' {number(sinks, 4)} ({reads[0]:,.0f})."
                )
        for turn in ("first", "later"):
            for budget, (sinks, own) in _pairs(table, "sinks", rival, f"recall_{turn}"):
                yield (
                    f"Within {budget:,.0f} tokens, {rival} finds {percent(own)} of the needles asked for "
                    f"{'at once' if turn == 'first' else 'a turn later'}, sinks {percent(sinks)}."
                )


def _bits(table: pd.DataFrame, full: float) -> Iterable[str]:
    """What rounding costs."""
    values = {name: _value(table, name, "perplexity") for name in ("int8", "int2", "int2_naive")}
    if math.isfinite(values["int2"]) and math.isfinite(values["int2_naive"]):
        better = "a lower" if values["int2"] < values["int2_naive"] else "no lower"
        yield (
            f"At 2 bits, keys per channel have {better} perplexity than keys per token "
            f"({number(values['int2'], 4)} and {number(values['int2_naive'], 4)})."
        )
    if math.isfinite(values["int8"]):
        yield f"int8's perplexity is {number(values['int8'] / full, 5)} times the full cache's."


def _needles(table: pd.DataFrame) -> Iterable[str]:
    """What the full cache finds itself, and who loses most from the first turn to the later one."""
    asked = table.dropna(subset=["recall_first", "recall_later"])
    whole = asked[asked["lossless"]]
    if not len(whole):
        return
    first, later = whole[["recall_first", "recall_later"]].mean()
    yield f"The full cache finds {percent(first)} of the needles at once and {percent(later)} a turn later."
    if min(first, later) < KNOWS_LITTLE:
        yield "That is so little that needles tell of the model here, and not of caches."
    lost = asked["recall_first"] - asked["recall_later"]
    row = row_of_most(asked, lost)
    if lost.max() > 0:
        yield (
            f"From the first turn to the later one {_title(row)} loses most: {percent(row['recall_first'])}, then "
            f"{percent(row['recall_later'])}."
        )


def _primed(table: pd.DataFrame) -> Iterable[str]:
    """Whose token-by-token figures begin with a prefill, and why."""
    labels = set(table["strategy"])
    for name, num_tokens in PRIMED.items():
        if f"{TRANSFORMERS} {name}" in labels:
            yield (
                f"{TRANSFORMERS} {name} keeps the scale of its first update, so that token by token, too, its first "
                f"{num_tokens} tokens come at once (their predictions are the full cache's): the scale of one token "
                "would cut off most of what follows."
            )


def _failed(table: pd.DataFrame) -> Iterable[str]:
    for _, row in table[table["outcome"] != COMPLETED].iterrows():
        yield f"{_title(row)}: {str(row['outcome']).replace('_', ' ')}; figures of what it did not finish are empty."


def _of(table: pd.DataFrame, strategy: str, budget: float) -> pd.Series:
    same = table["strategy"].eq(strategy) & table["kind"].eq(KVBENCH) & table["budget_tokens"].eq(budget)
    return table[same].iloc[0]


def _pairs(table: pd.DataFrame, one: str, other: str, column: str) -> Iterable[tuple[float, tuple[float, float]]]:
    """Each budget at which both have a figure, and the two figures."""
    rows = table[table["kind"].eq(KVBENCH)].dropna(subset=["budget_tokens", column])
    first, second = (rows[rows["strategy"].eq(name)].set_index("budget_tokens")[column] for name in (one, other))
    for budget in first.index.intersection(second.index):
        yield float(budget), (float(first[budget]), float(second[budget]))


def _value(table: pd.DataFrame, strategy: str, column: str) -> float:
    rows = table[table["strategy"].eq(strategy) & table["kind"].eq(KVBENCH)]
    return float(rows[column].iloc[0]) if len(rows) else math.nan
