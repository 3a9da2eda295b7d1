"""What the reader must know before comparing rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from kvbench.charts.rows import is_lossy, jobs_of, parameters_of, row_names
from kvbench.charts.text import listed, markdown_escape, mib, number, percent
from kvbench.results.front import splitters
from kvbench.results.intervals import halves_of, is_replayed
from kvbench.results.provenance import is_fleet, is_modelled, kinds

LARGE_SPREAD = 0.10
MAX_GROUPS = 6
BUSY = 0.10
LAUNCH_BOUND = 1.5
"""Host times so many times a device's own are what a step takes."""


def failures(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """A sentence for each row whose outcome is not completed."""
    names = row_names(summary, parameters_of(summary, parameters))
    return [
        f"{name}: {markdown_escape(outcome)}"
        for name, outcome in zip(names, summary["outcome"], strict=True)
        if str(outcome) != "completed"
    ]


def warnings(summary: pd.DataFrame, parameters: list[str] | None = None) -> list[str]:
    """What the reader must know before comparing: large spread, no intervals, what requests did to each other."""
    swept = parameters_of(summary, parameters)
    names = row_names(summary, swept)
    spreads = zip(names, summary["spread"].to_numpy(dtype=float), strict=True)
    unsteady = [f"{name} {percent(spread)}" for name, spread in spreads if spread > LARGE_SPREAD]
    found = []
    if unsteady:
        words = "Times are unsteady; the total time's standard deviation over repetitions, as a share of its mean"
        found.append(f"{words}: {listed(unsteady)}.")
    timed = summary["tokens_per_s"].notna() & ~is_modelled(summary)
    if timed.any() and np.isnan(halves_of(summary[timed], "tokens_per_s")).all():
        found.append("One repetition only: there are no intervals, and no difference in time can be judged.")
    found += [] if is_fleet(summary) else [*_contention(summary, names), *_smaller_steps(summary, swept)]
    found += _launch_bound(summary, names)
    found += _inactive(summary, names)
    return found + doubts(summary)


def of_busy_machine(shares: Iterable[float | None]) -> list[str]:
    """A sentence where others took more than a tenth of the processors while times were measured.

    Args:
        shares: what they took, of each job; None where that is not known.
    """
    shares = list(shares)
    busy = [share for share in shares if share is not None and share > BUSY]
    if not busy:
        return []
    when = "the run" if len(shares) == 1 else f"{len(busy)} of {len(shares)} jobs"
    most = f"{'' if len(shares) == 1 else 'up to '}{percent(max(busy))}"
    return [f"The machine was busy: other programs took {most} of the processors during {when}."]


def of_small_caches(steps: pd.DataFrame, environment: Mapping[str, Any]) -> list[str]:
    """A sentence where all that strategies held fits into a GPU's L2: its memory is then hardly read.

    Args:
        steps: rows of the run; none where it kept none.
        environment: the run's.
    """
    most = environment.get("accelerator", {}).get("l2_bytes")
    if most is None or "allocated_bytes" not in steps:
        return []
    peaks = steps.groupby(steps["strategy"].astype(str))["allocated_bytes"].max()
    fitting = peaks[peaks <= most]
    if fitting.empty:
        return []
    names = [markdown_escape(name) for name in fitting.index]
    which = "all strategies" if len(names) == len(peaks) else listed(names)
    words = f"What {which} held fits into the device's L2 of {mib(most)}"
    return [f"{words} (at most {mib(fitting.max())}): their times are of that cache, not of the device's memory."]


def _contention(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """What requests did to each other: preemptions, and peaks that depend on how many met."""
    found = []
    rows = zip(names, summary["num_preemptions"], summary["recomputed_tokens"], strict=True)
    preempted = [
        f"{name} {number(times)} time{'' if times == 1 else 's'} ({number(again)} tokens)"
        for name, times, again in rows
        if times > 0
    ]
    if preempted:
        found.append(f"Requests were preempted, and their tokens computed again: {listed(preempted)}.")
    rows = zip(names, summary["peak_least_bytes"], summary["peak_bytes"], strict=True)
    varied = [f"{name} {mib(least)} to {mib(peak)}" for name, least, peak in rows if least < peak]
    if varied:
        words = "Peak memory differs between repetitions, since the machine's speed decides which requests meet"
        found.append(f"{words}: {listed(varied)}.")
    return found


def _launch_bound(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """Whose decode steps take as long as the host takes to launch them; who has no busy time is not among them."""
    if "busy_us" not in summary:  # written before it was measured
        return []
    rows = zip(names, summary["busy_host_us"].to_numpy(float), summary["busy_us"].to_numpy(float), strict=True)
    bound = [f"{name} {number(host)} µs for {number(busy)}" for name, host, busy in rows if host > LAUNCH_BOUND * busy]
    if not bound:
        return []
    words = "Bound by launches: the host takes longer to give the device a decode step than the device to do it"
    return [f"{words} ({listed(bound)}). Their times are the host's; busy_us has the device's."]


def _smaller_steps(summary: pd.DataFrame, swept: list[str]) -> list[str]:
    """Who takes more steps than others for the same tokens, as those do that split appends."""
    rest = "its steps are smaller, and not to be compared with theirs"
    told = (
        f"{markdown_escape(name)} takes {number(count, 6)} steps for what takes others {number(least, 6)}: {rest}."
        for _, rows in jobs_of(summary, swept)
        for name, (count, least) in splitters(rows).items()
    )
    return list(dict.fromkeys(told))


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
    unknown &= ~is_replayed(modelled)
    if modelled.empty or not unknown.any():
        return []
    which = "" if unknown.all() else f" ({', '.join(map(markdown_escape, modelled.loc[unknown, 'strategy'].unique()))})"
    return [
        f"How far modelled times{which} are from a machine's was never measured: they are what its figures come to by "
        "the model, and no more."
    ]
