"""What charts show, in sentences computed from the rows."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.report.table import is_lossy, parameters_of
from kvbench.report.text import duration, listed, markdown_escape, mib, number, percent, value_text
from kvbench.schema import LEAST_ERROR, parameter_applies

LARGE_SPREAD = 0.10
MAX_PAIRS = 6
MAX_LINES = 8


class _Metric(NamedTuple):
    """A metric that sentences compare: words, the summary's column, how a value is written, whether less is better."""

    words: str
    column: str
    write: Callable[[float], str]
    less_is_better: bool = True


PEAK = _Metric("peak memory", "peak_bytes", mib)
UTILIZATION = _Metric("mean utilization", "utilization_mean", percent, False)
RESIZES = _Metric("resizes", "num_resizes", number)
EFFICIENCY = _Metric("efficiency", "efficiency", number, False)
STALL = _Metric("total stall", "stall_s", duration)
SLOWEST = _Metric("slowest step", "step_max_us", lambda value: duration(value / 1e6))
DECODE_P99 = _Metric("99th percentile of decode steps", "decode_p99_us", lambda value: duration(value / 1e6))
STEP_P99 = _Metric("99th percentile of steps", "step_p99_us", lambda value: duration(value / 1e6))
ERROR = _Metric("error of attention's output", "error_relative", percent)
THROUGHPUT = _Metric("throughput", "tokens_per_s", lambda value: f"{number(value)} tokens/s", False)


def chart_sentences(summary: pd.DataFrame, parameters: list[str] | None = None) -> dict[str, list[str]]:
    """Sentences for the charts of a run or a sweep, as Markdown.

    Args:
        summary: a row a strategy, or a row a strategy and job.
        parameters: columns that tell jobs apart; None finds them.
    Returns:
        A chart's name to its sentences: memory, latency, panels, pareto, quality, workload, and sweep, or sweep_1,
        sweep_2, …
    """
    swept = parameters_of(summary, parameters)
    sentences = {
        "memory": _by_job(summary, swept, _memory),
        "latency": _by_job(summary, swept, _latency),
        "panels": _by_job(summary, swept, _panels),
        "pareto": _pareto(summary, swept),
        "quality": _quality(summary, swept),
        "workload": _by_job(summary, swept, _workload),
    }
    for turn, parameter in enumerate(swept, start=1):
        name = "sweep" if len(swept) == 1 else f"sweep_{turn}"
        sentences[name] = _sweep(summary, parameter, [other for other in swept if other != parameter])
    return sentences


def failures(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """A sentence for each row whose outcome is not completed."""
    names = _row_names(summary, parameters_of(summary, parameters))
    return [
        f"{name}: {markdown_escape(outcome)}"
        for name, outcome in zip(names, summary["outcome"], strict=True)
        if str(outcome) != "completed"
    ]


def warnings(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """What the reader must know before comparing: large spread, and pairs that cannot be told apart.

    Two rows of one job cannot be told apart in a time when their 95 % confidence intervals overlap.
    """
    swept = parameters_of(summary, parameters)
    names = _row_names(summary, swept)
    spreads = zip(names, summary["spread"].to_numpy(dtype=float), strict=True)
    unsteady = [f"{name} {percent(spread)}" for name, spread in spreads if spread > LARGE_SPREAD]
    found = []
    if unsteady:
        words = "Times are unsteady; the total time's standard deviation over repetitions, as a share of its mean"
        found.append(f"{words}: {listed(unsteady)}.")
    timed = summary["tokens_per_s"].notna()
    if timed.any() and summary.loc[timed, "tokens_per_s_ci"].isna().all():
        found.append("One repetition only: there are no intervals, and no difference in time can be judged.")
    found += _contention(summary, names)
    found += _inactive(summary, names)
    pairs = []
    for where, rows in _jobs(summary, swept):
        pairs += [f"{listed(pair)}{where}" for pair in _alike(rows, THROUGHPUT)]
    if pairs:
        found.append(
            f"By {THROUGHPUT.words}, these cannot be told apart, since their 95 % confidence intervals overlap: "
            f"{'; '.join(pairs[:MAX_PAIRS])}{_and_more(len(pairs) - MAX_PAIRS)}."
        )
    return found


def _contention(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """What requests did to each other: preemptions, and peaks that depend on how many met."""
    found = []
    rows = zip(names, summary["num_preemptions"], summary["recomputed_tokens"], strict=True)
    preempted = [f"{name} {number(times)} times ({number(again)} tokens)" for name, times, again in rows if times > 0]
    if preempted:
        found.append(f"Requests were preempted, and their tokens computed again: {listed(preempted)}.")
    rows = zip(names, summary["peak_least_bytes"], summary["peak_bytes"], strict=True)
    varied = [f"{name} {mib(least)} to {mib(peak)}" for name, least, peak in rows if least < peak]
    if varied:
        words = "Peak memory differs between repetitions, since the machine's speed decides which requests meet"
        found.append(f"{words}: {listed(varied)}.")
    return found


def _inactive(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """Lossy strategies whose figures show no loss because they had nothing to do, and those that were not probed."""
    found = []
    lossy = is_lossy(summary).to_numpy()
    acted, probed = (summary[name].to_numpy(dtype=float) for name in ("altered_tokens", "probed_altered_tokens"))
    tokens, errors = (summary[name].to_numpy(dtype=float) for name in ("probed_tokens", "error_relative"))
    for name, seen, is_idle in zip(names, summary["seen_tokens"], lossy & (acted == 0), strict=True):
        if is_idle:
            words = f"{name} is lossy but never acted: it evicted and rounded nothing in this run"
            rest = "Neither its memory nor its times are those of compression."
            found.append(f"{words}, of {number(seen, 6)} tokens seen. {rest}")
    for name, size, is_idle in zip(names, tokens, lossy & (acted > 0) & (probed == 0), strict=True):
        if is_idle:
            words = f"{name} acted in the run, but not in the {number(size, 6)} tokens that were probed"
            found.append(f"{words}: its error and recall say nothing (quality_tokens sets how many are).")
    for name, size, is_missing in zip(names, tokens, (tokens > 0) & np.isnan(errors), strict=True):
        if is_missing:
            found.append(f"{name} has no quality: it does not hold the {number(size, 6)} tokens that were probed.")
    return found


def _and_more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""


def _alike(rows: pd.DataFrame, metric: _Metric) -> list[list[str]]:
    """Pairs of completed rows whose intervals of a metric overlap."""
    done = _completed(rows).dropna(subset=[metric.column, f"{metric.column}_ci"])
    names = [markdown_escape(name) for name in done["strategy"]]
    values, half = done[metric.column].to_numpy(), done[f"{metric.column}_ci"].to_numpy()
    return [
        [names[a], names[b]]
        for a, b in combinations(range(len(done)), 2)
        if abs(values[a] - values[b]) <= half[a] + half[b]
    ]


def _completed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["outcome"].astype(str) == "completed"]


def _jobs(summary: pd.DataFrame, swept: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each job's rows, with words that name the job ("" where there is one job)."""
    if not swept:
        yield "", summary
        return
    for values, rows in summary.groupby(swept, sort=False, dropna=False):
        yield f" ({_setting(swept, values)})", rows


def _setting(swept: list[str], values: tuple) -> str:
    return ", ".join(
        markdown_escape(value)
        if key == "scenario"
        else markdown_escape(f"{key.removeprefix('strategy.')} {value_text(value)}")
        for key, value in zip(swept, values, strict=True)
    )


def _row_names(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Each row's strategy, with the parameters that change it."""
    strategies = summary["strategy"].astype(str).tolist()
    names = []
    for name, values in zip(strategies, summary[swept].to_dict("records"), strict=True):
        own = {key: value for key, value in values.items() if parameter_applies(key, name, strategies)}
        setting = f" ({_setting(list(own), tuple(own.values()))})" if own else ""
        names.append(f"{markdown_escape(name)}{setting}")
    return names


def _by_job(
    summary: pd.DataFrame, swept: list[str], say: Callable[[pd.DataFrame], list[str]], most: int = MAX_LINES
) -> list[str]:
    """What `say` has to say of each job; of a sweep, of the first jobs."""
    jobs = list(_jobs(summary, swept))
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
    """Each strategy's peak as a share of the highest, and what it pays in resizes."""
    done = _completed(rows).sort_values("peak_bytes", ascending=False, kind="stable")
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
    return f"pays {_plural(row['num_resizes'], 'resize')}{stalled}"


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
    """Who is best in each panel."""
    done = _completed(rows)
    if done.empty:
        return ["No strategy completed."]
    best = [
        f"in {metric.words} {_best(done, metric)}"
        for metric in (PEAK, UTILIZATION, RESIZES, EFFICIENCY)
        if done[metric.column].notna().any()
    ]
    return [f"Best of those that completed: {', '.join(best)}."]


def _best(rows: pd.DataFrame, metric: _Metric) -> str:
    values = rows[metric.column]
    best = values.min() if metric.less_is_better else values.max()
    names = [markdown_escape(name) for name in rows.loc[values == best, "strategy"]]
    return f"{listed(list(dict.fromkeys(names)))} ({metric.write(best)})"


def _workload(rows: pd.DataFrame) -> list[str]:
    row = rows.iloc[0]
    tokens = rows["num_tokens"].max()
    return [f"{_plural(row['num_requests'], 'request')}; {number(tokens, 6)} tokens appended in a repetition."]


def _pareto(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Which rows are on each front, and that the others are beaten in both."""
    names = pd.Series(_row_names(summary, swept), index=summary.index)
    p99 = DECODE_P99 if summary["decode_p99_us"].notna().any() else STEP_P99
    return [_on_front(summary, names, metric) for metric in (SLOWEST, STALL, p99)]


def _on_front(summary: pd.DataFrame, names: pd.Series, metric: _Metric) -> str:
    """Which rows no other beats in peak memory and in a metric of which less is better."""
    done = _completed(summary).dropna(subset=["peak_bytes", metric.column])
    if done.empty:
        return f"Peak memory against {metric.words}: no value."
    on_front = front(done["peak_bytes"].to_numpy(dtype=float), done[metric.column].to_numpy(dtype=float))
    kept = list(dict.fromkeys(names.loc[done.index[on_front]]))
    beaten = set(names.loc[done.index]) - set(kept)
    rest = f"; {len(beaten)} other{'s are' if len(beaten) > 1 else ' is'} beaten" if beaten else ""
    return f"On the front of peak memory against {metric.words}: {listed(kept)}{rest}."


def _quality(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Which rows are on the front of memory against error, and what each lossy one loses."""
    if "error_relative" not in summary or summary["error_relative"].isna().all():
        return []
    names = pd.Series(_row_names(summary, swept), index=summary.index)
    errors = summary["error_relative"].astype(float)
    sentences = [_on_front(summary.assign(error_relative=errors.where(~(errors < LEAST_ERROR), 0.0)), names, ERROR)]
    for index, row in summary[is_lossy(summary)].dropna(subset=["error_relative"]).iterrows():
        found = (
            f", and finds {percent(row['needle_recall'])} of the needles" if np.isfinite(row["needle_recall"]) else ""
        )
        kept, error = percent(row["kept_fraction"]), percent(row["error_relative"])
        sentences.append(f"{names[index]} keeps {kept} of the tokens, errs by {error} of the output{found}.")
    return sentences


def front(cost: np.ndarray, other_cost: np.ndarray) -> np.ndarray:
    """Whether no other point is at most as costly in both and cheaper in one.

    Args:
        cost: [num_points] finite, smaller is better.
        other_cost: [num_points] the other cost.
    """
    no_worse = (cost[:, None] <= cost) & (other_cost[:, None] <= other_cost)
    better = (cost[:, None] < cost) | (other_cost[:, None] < other_cost)
    return ~(no_worse & better).any(axis=0)


def _sweep(summary: pd.DataFrame, parameter: str, others: list[str]) -> list[str]:
    """Where along a parameter each strategy that it can change is at its ends."""
    sentences, unchanged = [], []
    names = list(dict.fromkeys(summary["strategy"].astype(str)))
    for name in names:
        if not parameter_applies(parameter, name, names):
            unchanged.append(markdown_escape(name))
            continue
        done = _completed(summary[summary["strategy"].astype(str) == name])
        parts = [part for metric in (PEAK, STALL, THROUGHPUT) if (part := _range(done, metric, parameter, others))]
        if parts:
            sentences.append(f"{markdown_escape(name)}: {'; '.join(parts)}.")
    if unchanged:
        sentences.append(f"Measured again in every job, unchanged by this parameter: {listed(unchanged)}.")
    return sentences or ["No strategy completed."]


def _range(rows: pd.DataFrame, metric: _Metric, parameter: str, others: list[str]) -> str:
    """A metric's least and most over the jobs, and where."""
    values = rows[metric.column].dropna()
    if values.empty:
        return ""
    low, high = rows.loc[values.idxmin()], rows.loc[values.idxmax()]
    if low[metric.column] == high[metric.column]:
        return f"{metric.words} is {metric.write(values.iloc[0])} throughout"
    ends = []
    for row in (low, high):
        where = markdown_escape(value_text(row[parameter])) + (
            f", {_setting(others, tuple(row[others]))}" if others else ""
        )
        ends.append(f"{metric.write(row[metric.column])} at {where}")
    return f"{metric.words} from {ends[0]} to {ends[1]}"
