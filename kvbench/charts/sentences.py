"""What charts show, in sentences computed from the rows."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from kvbench.charts.fleet_sentences import FLEET_SENTENCES
from kvbench.charts.jobs import THROUGHPUT, Metric, completed, jobs_of, row_names, setting
from kvbench.charts.modelled import error_sentences
from kvbench.charts.table import is_lossy, parameters_of
from kvbench.charts.text import duration, listed, markdown_escape, mib, number, percent, value_text
from kvbench.results.front import contested, cost_of, front_of, is_reference, leaders_of, may_win
from kvbench.results.provenance import is_fleet, kinds
from kvbench.results.schema import SUMMARY, parameter_applies

MAX_LINES = 8

PEAK = Metric("peak memory", "peak_bytes", mib)
UTILIZATION = Metric("mean utilization", "utilization_mean", percent, False)
RESIZES = Metric("resizes", "num_resizes", number)
EFFICIENCY = Metric("efficiency", "efficiency", number, False)
STALL = Metric("stalls and admissions", "allocation_s", duration)
ERROR = Metric("error of attention's output", "error_relative", percent)
GOODPUT = Metric("goodput", "goodput_per_s", lambda value: f"{number(value)} requests/s", False)
FIRST_P99 = Metric("99th percentile of TTFT", "ttft_p99_s", duration)
METRICS = (PEAK, STALL, THROUGHPUT)
FLEET_METRICS = (THROUGHPUT, GOODPUT, FIRST_P99)
"""What a sweep's sentences tell of."""


def chart_sentences(summary: pd.DataFrame, parameters: list[str] | None = None) -> dict[str, list[str]]:
    """Sentences for the charts of a run or a sweep, as Markdown.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart; None finds them.
    Returns:
        A chart's name to its sentences: memory, latency, panels, pareto, quality, workload, and sweep, or sweep_1,
        sweep_2, …; of a fleet's, those of its charts; and model_error. Of rows of several sources, scopes or engines
        each has its own, which compare nothing with another's, and names end as the charts' do.
    """
    swept = parameters_of(summary, parameters)
    sentences = {"model_error": error_sentences(summary, swept)}
    for kind in kinds(summary):
        sentences |= {f"{name}{kind.ending}": said for name, said in _of_kind(kind.rows, swept).items()}
    return sentences


def _of_kind(summary: pd.DataFrame, swept: list[str]) -> dict[str, list[str]]:
    """Sentences for the charts of rows that may be compared."""
    of_fleet = is_fleet(summary)
    if of_fleet:
        sentences = {name: _by_job(summary, swept, say) for name, say in FLEET_SENTENCES.items()}
    else:
        sentences = _of_steps(summary, swept)
    sentences["workload"] = _by_job(summary, swept, _workload)
    for turn, parameter in enumerate(swept, start=1):
        name = "sweep" if len(swept) == 1 else f"sweep_{turn}"
        others = [other for other in swept if other != parameter]
        sentences[name] = _sweep(summary, parameter, others, FLEET_METRICS if of_fleet else METRICS)
    return sentences


def _of_steps(summary: pd.DataFrame, swept: list[str]) -> dict[str, list[str]]:
    """Sentences for the charts of runs step by step, but for those that all have."""
    return {
        "memory": _by_job(summary, swept, _memory),
        "latency": _by_job(summary, swept, _latency),
        "panels": _by_job(summary, swept, _panels),
        "pareto": _pareto(summary, swept),
        "quality": _quality(summary, swept),
    }


def _by_job(
    summary: pd.DataFrame, swept: list[str], say: Callable[[pd.DataFrame], list[str]], most: int = MAX_LINES
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


def _plural(count: float, word: str) -> str:
    return f"no {word}" if count == 0 else f"{number(count)} {word}{'' if count == 1 else 's'}"


def _memory(rows: pd.DataFrame) -> list[str]:
    """Each strategy's peak as a share of the highest, and what it pays in resizes and at admissions."""
    done = completed(rows).sort_values("peak_bytes", ascending=False, kind="stable")
    sentences = [] if len(done) else ["No strategy completed."]
    for turn, (_, row) in enumerate(done.iterrows()):
        top = done.iloc[0]
        share = f"{percent(row['peak_bytes'] / top['peak_bytes'])} of " if top["peak_bytes"] else "as "
        whose = f", {share}{markdown_escape(top['strategy'])}'s {mib(top['peak_bytes'])}," if turn else ""
        peak = f"peaks at {mib(row['peak_bytes'])}{_beside(row)}{whose}"
        sentences.append(f"{markdown_escape(row['strategy'])} {peak} and {_paid(row)}.")
    for _, row in rows.drop(done.index).iterrows():
        until = f"it peaked at {mib(row['peak_bytes'])}"
        sentences.append(f"{markdown_escape(row['strategy'])} did not complete; {until}.")
    return sentences


def _beside(row: pd.Series) -> str:
    """What a strategy holds for reading, and on other tiers."""
    held = [
        (row["workspace_bytes"], "of it staging buffers"),
        (row["peak_host_bytes"], "in the host's memory beside it"),
        (row["peak_disk_bytes"], "in files"),
    ]
    parts = [f"{mib(num_bytes)} {where}" for num_bytes, where in held if num_bytes > 0]
    return f" ({listed(parts)})" if parts else ""


def _paid(row: pd.Series) -> str:
    stalled = f" ({duration(row['stall_s'])} stalled)" if row["num_resizes"] > 0 and np.isfinite(row["stall_s"]) else ""
    admitted = f" and {duration(row['admit_s'])} at admissions" if row["admit_s"] > 0 else ""
    return f"pays {_plural(row['num_resizes'], 'resize')}{stalled}{admitted}"


def _latency(rows: pd.DataFrame) -> list[str]:
    """Each strategy's slowest step, against its middle one."""
    sentences = []
    for _, row in rows.dropna(subset=["step_max_us"]).iterrows():
        word = "median" if np.isfinite(row["step_p50_us"]) else "mean"
        middle = row["step_p50_us"] if word == "median" else row["step_mean_us"]
        p99 = f", the 99th percentile {duration(row['step_p99_us'] / 1e6)}" if np.isfinite(row["step_p99_us"]) else ""
        sentences.append(
            f"{markdown_escape(row['strategy'])}: the {word} step takes {duration(middle / 1e6)}{p99}, "
            f"the slowest {duration(row['step_max_us'] / 1e6)}, {number(row['step_max_us'] / middle)} times the {word}."
        )
    return sentences or ["No strategy appended a token."]


def _panels(rows: pd.DataFrame) -> list[str]:
    """Who is best in each panel, and in throughput; those that cannot be told apart are so together."""
    if completed(rows).empty:
        return ["No strategy completed."]
    if not may_win(rows).any():
        return ["Only strategies that are there for reference completed: none is the best."]
    best = [
        f"in {metric.words} {told}"
        for metric in (PEAK, UTILIZATION, RESIZES, EFFICIENCY, THROUGHPUT)
        if (told := _best(rows, metric))
    ]
    return [f"Best of those that completed: {', '.join(best)}."]


def _best(rows: pd.DataFrame, metric: Metric) -> str:
    """Who leads, and with what; of figures that cannot be told apart, from the least to the most."""
    led = rows[leaders_of(rows, metric.column, metric.less_is_better)]
    if led.empty:
        return ""
    names = listed(list(dict.fromkeys(map(markdown_escape, led["strategy"]))))
    ends = dict.fromkeys(metric.write(value) for value in (led[metric.column].min(), led[metric.column].max()))
    return f"{names} ({' to '.join(ends)})"


def _workload(rows: pd.DataFrame) -> list[str]:
    row = rows.iloc[0]
    tokens = rows["num_tokens"].max()
    what = "tokens, of completed requests" if is_fleet(rows) else "prompt and output tokens in a repetition"
    return [f"{_plural(row['num_requests'], 'request')}; {number(tokens, 6)} {what}."]


def _pareto(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Which rows are on each front, that the others are beaten in both, and which are there to compare with only."""
    names = pd.Series(row_names(summary, swept), index=summary.index)
    sentences = [_on_front(summary, names, _time(column)) for column in contested(summary)]
    references = list(dict.fromkeys(summary.loc[is_reference(summary), "strategy"]))
    if references:
        told = listed([markdown_escape(name) for name in references])
        sentences.append(f"For reference, on no front and never the best: {told}.")
    return sentences


def _time(column: str) -> Metric:
    """A column of times as a metric, called what charts call it."""
    meaning = SUMMARY[column]
    words = meaning.label if meaning.label[:2].isupper() else meaning.label[0].lower() + meaning.label[1:]
    return Metric(words, column, duration)


def _on_front(summary: pd.DataFrame, names: pd.Series, metric: Metric) -> str:
    """Which rows no other beats in peak memory and in a metric of which less is better."""
    what = f"memory against {metric.words}"
    competing = may_win(summary)
    values = summary[metric.column].notna().to_numpy() & competing
    if not values.any():
        return f"Peak {what}: no value."
    if not (cost_of(summary, metric.column).is_known & competing).any():
        return f"Peak {what}: no front, since one repetition has no interval."
    on_front = front_of(summary, metric.column)
    kept = list(dict.fromkeys(names[on_front]))
    beaten = set(names[values]) - set(kept)
    rest = f"; {len(beaten)} other{'s are' if len(beaten) > 1 else ' is'} beaten" if beaten else ""
    return f"On the front of peak {what}: {listed(kept)}{rest}."


def _quality(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Which rows are on the front of memory against error, and what each lossy one loses."""
    if "error_relative" not in summary or summary["error_relative"].isna().all():
        return []
    names = pd.Series(row_names(summary, swept), index=summary.index)
    sentences = [_on_front(summary, names, ERROR)]
    for index, row in summary[is_lossy(summary)].dropna(subset=["error_relative"]).iterrows():
        found = (
            f", and finds {percent(row['needle_recall'])} of the needles" if np.isfinite(row["needle_recall"]) else ""
        )
        kept, error = percent(row["kept_fraction"]), percent(row["error_relative"])
        sentences.append(f"{names[index]} keeps {kept} of the tokens, errs by {error} of the output{found}.")
    return sentences


def _sweep(
    summary: pd.DataFrame, parameter: str, others: list[str], metrics: tuple[Metric, ...] = METRICS
) -> list[str]:
    """Where along a parameter each strategy that it can change is at its ends."""
    sentences, unchanged = [], []
    names = list(dict.fromkeys(summary["strategy"].astype(str)))
    for name in names:
        if not parameter_applies(parameter, name, names):
            unchanged.append(markdown_escape(name))
            continue
        own = summary[summary["strategy"].astype(str) == name]
        done = own if metrics is FLEET_METRICS else completed(own)
        parts = [part for metric in metrics if (part := _range(done, metric, parameter, others))]
        if parts:
            sentences.append(f"{markdown_escape(name)}: {'; '.join(parts)}.")
    if unchanged:
        sentences.append(f"Measured again in every job, unchanged by this parameter: {listed(unchanged)}.")
    return sentences or ["No strategy completed."]


def _range(rows: pd.DataFrame, metric: Metric, parameter: str, others: list[str]) -> str:
    """A metric's least and most over the jobs, and where, if they can be told apart."""
    rows = rows.dropna(subset=[metric.column])
    if rows.empty:
        return ""
    values = rows[metric.column].to_numpy(dtype=float)
    least, most = values.argmin(), values.argmax()
    low, high = rows.iloc[least], rows.iloc[most]
    if values[least] == values[most]:
        return f"{metric.words} is {metric.write(values[least])} throughout"
    cost = cost_of(rows, metric.column)
    if not cost.less()[least, most]:
        span = f"{metric.words}, {metric.write(values[least])} to {metric.write(values[most])}, cannot be told apart"
        known = cost.is_known[[least, most]].all()
        return span if known else f"{span} without intervals, which one repetition has not"
    ends = []
    for row in (low, high):
        where = markdown_escape(value_text(row[parameter])) + (
            f", {setting(others, tuple(row[others]))}" if others else ""
        )
        ends.append(f"{metric.write(row[metric.column])} at {where}")
    return f"{metric.words} from {ends[0]} to {ends[1]}"
