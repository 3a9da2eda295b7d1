"""What a reader must know of modelled times, and of rows that may not be compared."""

import pandas as pd

from kvbench.charts.text import duration, markdown_escape, number, percent
from kvbench.results.provenance import is_modelled, kinds, model_errors

US_PER_S = 1e6


def apart(summary: pd.DataFrame) -> list[str]:
    """A sentence where a table has rows of several sources, scopes or engines; plain text."""
    words = [kind.words for kind in kinds(summary)]
    if len(words) == 1:
        return []
    return [
        f"These rows are not all of one kind ({'; '.join(words)}). Charts and sentences compare the times of one kind "
        "only, but for those of the model's error."
    ]


def doubts(summary: pd.DataFrame) -> list[str]:
    """A sentence where modelled times were never held against measured ones."""
    modelled = summary[is_modelled(summary)]
    unknown = modelled["step_error"].isna() if "step_error" in modelled else pd.Series(data=True, index=modelled.index)
    if modelled.empty or not unknown.any():
        return []
    which = "" if unknown.all() else f" ({', '.join(map(markdown_escape, modelled.loc[unknown, 'strategy'].unique()))})"
    return [
        f"How far modelled times{which} are from a machine's was never measured: they are what its figures come to by "
        "the model, and no more."
    ]


def error_sentences(summary: pd.DataFrame, parameters: list[str]) -> list[str]:
    """What the chart of modelled against measured times shows, as Markdown; nothing where no run is both.

    Args:
        summary: a row a strategy and job.
        parameters: swept columns.
    """
    errors = model_errors(summary, parameters)
    sentences = []
    for name, rows in errors.groupby(errors["strategy"].astype(str), sort=False):
        first, off = rows.iloc[0], rows["error"]
        if len(rows) == 1:
            times = [duration(first[column] / US_PER_S) for column in ("modelled_us", "measured_us")]
            more = "more" if first["error"] > 0 else "less"
            text = f"a step takes {times[0]} modelled, {times[1]} measured: {percent(abs(first['error']))} {more}"
        else:
            ends = f"from {number(100 * off.min())} to {number(100 * off.max())} %"
            text = (
                f"modelled times a step are off by {percent(off.abs().mean())} on average, {ends}, of {len(rows)} runs"
            )
        sentences.append(f"{markdown_escape(name)}: {text}.")
    if len(sentences) > 1:
        mean = errors["error"].abs().groupby(errors["strategy"].astype(str)).mean().mean()
        sentences.append(f"Mean over the strategies: {percent(mean)}.")
    return sentences
