"""What the charts of a fleet's simulation show, in sentences computed from its rows."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from kvbench.charts.text import duration, listed, markdown_escape, number, percent
from kvbench.results.front import is_reference

SAME = 1e-3
"""Figures nearer than this share of the larger are told as equal."""
NONE = "No request completed."
REFERENCES = "Only strategies that are there for reference were run: none serves best."


def service(rows: pd.DataFrame) -> list[str]:
    """Who gives the most goodput and throughput, and how many requests run together."""
    if not rows["num_completed"].gt(0).any():
        return [NONE]
    if is_reference(rows).all():
        return [REFERENCES]
    most = rows["goodput_per_s"].mask(is_reference(rows)).max()
    sentences = []
    if most > 0:
        share = percent(rows.loc[_leads(rows, "goodput_per_s"), "attained_share"].max())
        within = f"{share} of all requests are within the objectives"
        others = _others(rows, "goodput_per_s", lambda value: number(value))
        best = _leaders(rows, "goodput_per_s")
        sentences.append(f"Most goodput: {best}, {number(most)} requests/s; {within}. {others}".rstrip())
    else:
        sentences.append("No strategy serves a request within the objectives.")
    tokens = rows["tokens_per_s"].mask(is_reference(rows)).max()
    others = _others(rows, "tokens_per_s", lambda value: f"{number(value)} ({percent(value / tokens)} of that)")
    best = _leaders(rows, "tokens_per_s")
    sentences.append(f"Most throughput: {best}, {number(tokens)} tokens/s. {others}".rstrip())
    batches = [f"{markdown_escape(row['strategy'])} {number(row['mean_batch'])}" for _, row in rows.iterrows()]
    sentences.append(f"Requests live together on a replica, averaged over time: {listed(batches)}.")
    return sentences


def memory(rows: pd.DataFrame) -> list[str]:
    """What each strategy's memory is spent on."""
    sentences = ["Of memory that is allocated, or free but unusable while a request waits for it, averaged over time:"]
    for _, row in rows.iterrows():
        held = 1 - row["external_share"]
        shares = (
            (held * row["utilization_mean"], "used"),
            (held * row["reserved_share"], "reserved for tokens to come"),
            (held * row["waste_share"], "internal waste"),
            (row["external_share"], "external waste"),
        )
        name = markdown_escape(row["strategy"])
        if not all(np.isfinite(share) for share, _ in shares):
            sentences.append(f"{name}: not told apart.")
            continue
        parts = [f"{percent(share)} {words}" for share, words in shares if share > 0]
        sentences.append(f"{name}: {listed(parts)}.")
    return sentences


def load(rows: pd.DataFrame) -> list[str]:
    """Who makes requests wait, and who preempts."""
    waited = rows.dropna(subset=["queue_mean_s"])
    sentences = []
    if waited["queue_mean_s"].gt(0).any():
        ordered = waited.sort_values("queue_mean_s", kind="stable")
        texts = [f"{markdown_escape(row['strategy'])} {_queued(row)}" for _, row in ordered.iterrows()]
        sentences.append(f"Waiting for admission, on average: {listed(texts)}.")
    else:
        sentences.append("No request waits for admission.")
    preempted = [
        f"{markdown_escape(row['strategy'])} {number(row['num_preemptions'], 6)} times{_again(row)}"
        for _, row in rows[rows["num_preemptions"] > 0].iterrows()
    ]
    sentences.append(f"Preempted: {listed(preempted)}." if preempted else "No request is preempted.")
    return sentences


def times(rows: pd.DataFrame) -> list[str]:
    """How long each strategy's requests take: median and 99th percentile, or the mean of too few."""
    sentences = []
    for _, row in rows[rows["num_completed"] > 0].iterrows():
        parts = [f"{words} {_spread(row, name)}" for name, words in _TIMES if np.isfinite(row[f"{name}_mean_s"])]
        sentences.append(f"{markdown_escape(row['strategy'])}: {'; '.join(parts)}.")
    return sentences or [NONE]


FLEET_SENTENCES: dict[str, Callable[[pd.DataFrame], list[str]]] = {
    "fleet_service": service,
    "fleet_memory": memory,
    "fleet_load": load,
    "fleet_times": times,
}
"""What is said of each chart of a fleet's simulation, of the rows of one job."""
_TIMES = (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "latency"))


def _leads(rows: pd.DataFrame, column: str) -> pd.Series:
    competing = rows[column].mask(is_reference(rows))
    return competing >= (1 - SAME) * competing.max()


def _leaders(rows: pd.DataFrame, column: str) -> str:
    return listed([markdown_escape(name) for name in rows.loc[_leads(rows, column), "strategy"]])


def _others(rows: pd.DataFrame, column: str, write: Callable[[float], str]) -> str:
    """Those that do not lead, the better first."""
    others = rows[~_leads(rows, column)].sort_values(column, ascending=False, kind="stable")
    marks = np.where(is_reference(others), ", for reference", "")
    texts = [
        f"{markdown_escape(row['strategy'])} {write(row[column])}{mark}"
        for mark, (_, row) in zip(marks, others.iterrows(), strict=True)
    ]
    return f"The others: {listed(texts)}." if texts else ""


def _queued(row: pd.Series) -> str:
    p99 = row["queue_p99_s"]
    return duration(row["queue_mean_s"]) + (f" (99th percentile {duration(p99)})" if np.isfinite(p99) else "")


def _again(row: pd.Series) -> str:
    again = row["recomputed_tokens"]
    return f" ({number(again, 6)} tokens computed again)" if again > 0 else ""


def _spread(row: pd.Series, name: str) -> str:
    p50, p99 = row[f"{name}_p50_s"], row[f"{name}_p99_s"]
    if not np.isfinite(p50):
        return f"{duration(row[f'{name}_mean_s'])} on average"
    return f"{duration(p50)} in the median" + (f", {duration(p99)} at the 99th percentile" if np.isfinite(p99) else "")
