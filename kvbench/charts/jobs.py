"""A summary's rows by job: their names in words, and the metrics that sentences compare."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from kvbench.charts.text import markdown_escape, number, value_text
from kvbench.results.schema import parameter_applies


class Metric(NamedTuple):
    """A metric that sentences compare: words, the summary's column, how a value is written, whether less is better."""

    words: str
    column: str
    write: Callable[[float], str]
    less_is_better: bool = True


THROUGHPUT = Metric("throughput", "tokens_per_s", lambda value: f"{number(value)} tokens/s", False)


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of which every request completed."""
    return rows[rows["outcome"].astype(str) == "completed"]


def jobs_of(summary: pd.DataFrame, swept: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each job's rows, with words that name the job ("" where there is one job)."""
    if not swept:
        yield "", summary
        return
    for values, rows in summary.groupby(swept, sort=False, dropna=False):
        yield f" ({setting(swept, values)})", rows


def setting(swept: list[str], values: tuple) -> str:
    """Parameters and their values, in words."""
    return ", ".join(
        markdown_escape(value)
        if key == "scenario"
        else markdown_escape(f"{key.removeprefix('strategy.')} {value_text(value)}")
        for key, value in zip(swept, values, strict=True)
    )


def row_names(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Each row's strategy, with the parameters that change it."""
    strategies = summary["strategy"].astype(str).tolist()
    names = []
    for name, values in zip(strategies, summary[swept].to_dict("records"), strict=True):
        own = {key: value for key, value in values.items() if parameter_applies(key, name, strategies)}
        told = f" ({setting(list(own), tuple(own.values()))})" if own else ""
        names.append(f"{markdown_escape(name)}{told}")
    return names
