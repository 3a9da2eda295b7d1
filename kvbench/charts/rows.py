"""A summary's rows as charts and sentences speak of them: their names, their jobs, their intervals, and what failed."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from kvbench.charts.text import listed, markdown_escape, number, value_text
from kvbench.results.front import is_reference
from kvbench.results.provenance import model_notes
from kvbench.results.replays import DRAWS
from kvbench.results.schema import SUMMARY, parameter_applies

MAX_JOBS = 8
SAME = 1e-3
"""Figures nearer than this share of the larger are told as equal."""


class Metric(NamedTuple):
    """A metric that sentences compare: words, the summary's column, how a value is written, whether less is better."""

    words: str
    column: str
    write: Callable[[float], str]
    less_is_better: bool = True


THROUGHPUT = Metric("throughput", "tokens_per_s", lambda value: f"{number(value)} tokens/s", False)


def strategy_names(summary: pd.DataFrame) -> list[str]:
    """The strategies of a summary, each once, in its order."""
    return list(dict.fromkeys(summary["strategy"].astype(str)))


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of which every request completed."""
    return rows[rows["outcome"].astype(str) == "completed"]


def is_lossy(summary: pd.DataFrame) -> pd.Series:
    """Whether each row's strategy is lossy."""
    return summary["lossless"] == False  # noqa: E712, may be missing


def notes_of(summary: pd.DataFrame) -> list[str]:
    """What stands at the foot of every chart of a summary: what modelled times are worth, who failed, references."""
    references = strategy_names(summary[is_reference(summary)])
    hollow = [f"For reference, on no front and never the best: {', '.join(references)}."] if references else []
    return [*model_notes(summary), *failures(summary), *hollow]


def failures(summary: pd.DataFrame) -> list[str]:
    """A sentence for each outcome other than completed, with the strategies that it befell."""
    failed = summary[summary["outcome"].astype(str) != "completed"]
    names = failed["strategy"].astype(str)
    if "scenario" in summary and summary["scenario"].nunique() > 1:
        names = names + " on " + failed["scenario"].astype(str)
    befell: dict[str, list[str]] = {}
    for name, outcome in zip(names, failed["outcome"].astype(str), strict=True):
        befell.setdefault(outcome, []).append(name)
    return [f"Not completed ({outcome}): {', '.join(dict.fromkeys(who))}." for outcome, who in sorted(befell.items())]


def parameters_of(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """The columns that tell jobs apart: those given, or those that are no metric, scenario and machine if they vary."""
    if parameters is not None:
        return list(parameters)
    own = [column for column in summary.columns if column not in SUMMARY and not column.endswith(DRAWS)]
    varying = [column for column in ("scenario", "hardware") if column in summary and summary[column].nunique() > 1]
    return varying + own


def jobs_of(summary: pd.DataFrame, swept: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each job's rows, with words that name the job ("" where there is one job)."""
    if not swept:
        yield "", summary
        return
    for values, rows in summary.groupby(swept, sort=False, dropna=False):
        yield f" ({setting(swept, values)})", rows


def by_job(
    summary: pd.DataFrame, swept: list[str], say: Callable[[pd.DataFrame], list[str]], most: int = MAX_JOBS
) -> list[str]:
    """What `say` has to say of each job; of a sweep, of the first jobs."""
    jobs = list(jobs_of(summary, swept))
    sentences = []
    for where, rows in jobs[:most]:
        said = say(rows)
        sentences += [f"**{where[2:-1]}** {said[0]}", *said[1:]] if where and said else said
    if len(jobs) > most:
        sentences.append(f"The table has the other {len(jobs) - most} jobs.")
    return sentences


def setting(swept: list[str], values: tuple[object, ...]) -> str:
    """Parameters and their values, in words."""
    return ", ".join(
        markdown_escape(value)
        if key == "scenario"
        else markdown_escape(f"{key.removeprefix('strategy.')} {value_text(value)}")
        for key, value in zip(swept, values, strict=True)
    )


def row_names(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Each row's strategy, with the parameters that change it; Markdown."""
    strategies = summary["strategy"].astype(str).tolist()
    names = []
    for name, values in zip(strategies, summary[swept].to_dict("records"), strict=True):
        own = {str(key): value for key, value in values.items() if parameter_applies(str(key), name, strategies)}
        told = f" ({setting(list(own), tuple(own.values()))})" if own else ""
        names.append(f"{markdown_escape(name)}{told}")
    return names


def named(rows: pd.DataFrame) -> str:
    """The strategies of rows as a clause; Markdown."""
    return listed([markdown_escape(name) for name in strategy_names(rows)])


def ends(rows: pd.DataFrame, metric: Metric) -> str:
    """From whose figure to whose a metric runs, the better end first; "" where no row has one. References are left out.

    Args:
        rows: of a summary.
        metric: a column, and how it is written.
    """
    known = rows[rows[metric.column].notna().to_numpy() & ~is_reference(rows)]
    if known.empty:
        return ""
    order = known.sort_values(metric.column, ascending=metric.less_is_better, kind="stable")[metric.column]
    texts = [
        f"{metric.write(value)} ({named(known[known[metric.column] == value])})"
        for value in dict.fromkeys(order.iloc[[0, -1]])
    ]
    return f"from {texts[0]} to {texts[1]}" if len(texts) > 1 else texts[0]


def most_of(rows: pd.DataFrame, column: str, within: float = SAME) -> pd.DataFrame:
    """The rows, references left out, of which a column is the most, within a share of it; none where that is 0."""
    competing = rows[column].mask(is_reference(rows))
    most: pd.DataFrame = rows[(competing > 0) & (competing >= (1 - within) * competing.max())]
    return most


def plural(count: float, word: str) -> str:
    """A count and its noun, such as "no resize" or "2 resizes"."""
    return f"no {word}" if count == 0 else f"{number(count)} {word}{'' if count == 1 else 's'}"
