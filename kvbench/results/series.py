"""What is shown of long frames: the last repetition, medians over repetitions, and few enough points and stretches."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.results.schema import TIMELINE

MAX_POINTS = 5_000
FOUND = {"device": "hit_tokens", "host": "host_tokens", "disk": "disk_tokens", "remote": "remote_tokens"}
"""Columns of prompt tokens found in the cache, by tier, the nearest first."""
US_PER_S = 1e6


def appending(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps that appended tokens, warm-up left out."""
    return steps[~steps["warmup"].to_numpy(dtype=bool) & (steps["num_tokens"].to_numpy() > 0)]


def last_repetitions(steps: pd.DataFrame, names: list[str]) -> dict[str, pd.DataFrame]:
    """Each strategy's appending steps in its last repetition that is no warm-up.

    Returns:
        Name to rows, with a column `appended_tokens`: tokens appended up to and including the step, over all
        requests. A strategy without such steps is left out.
    """
    by_name = {str(name): rows for name, rows in appending(steps).groupby("strategy", observed=True, sort=False)}
    shown = {}
    for name in names:
        if name in by_name:
            rows = by_name[name]
            last = rows[rows["repetition"] == rows["repetition"].max()]
            shown[name] = last.assign(appended_tokens=last["num_tokens"].cumsum())
    return shown


def median_steps(steps: pd.DataFrame, name: str) -> tuple[pd.DataFrame, bool]:
    """A strategy's appending steps, step_us as the median over repetitions where all ran the same steps in one order.

    Returns:
        The rows of the last repetition, with that step_us; and whether it is a median over more than one. Repetitions
        differ in their steps where requests arrive by the clock: then step_us is the last repetition's own.
    """
    rows = appending(steps)
    rows = rows[(rows["strategy"] == name).to_numpy()]
    parts = [part for _, part in rows.groupby("repetition", sort=True)]
    if not parts:
        return rows, False
    last = parts[-1]
    what = last[["session", "num_tokens"]].to_numpy()
    if len(parts) == 1 or any(not np.array_equal(part[["session", "num_tokens"]], what) for part in parts[:-1]):
        return last, False
    times = np.stack([part["step_us"].to_numpy(dtype=float) for part in parts])
    return last.assign(step_us=np.median(times, axis=0)), True


class Band(NamedTuple):
    """Stretches of a long series: where each is, its median, and its 10th and 90th percentile."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(values: np.ndarray, most: int) -> Band:
    """The median and the spread of each of at most `most` stretches of a series, all as long but the last.

    Args:
        values: [num_values], at least one; NaN is left out.
        most: stretches, > 0.
    Returns:
        Their middles as positions from 1, and three values each.
    """
    values = np.asarray(values, dtype=float)
    width = -(-len(values) // most)
    padded = np.full(-(-len(values) // width) * width, np.nan)
    padded[: len(values)] = values
    low, middle, high = np.nanquantile(padded.reshape(-1, width), (0.1, 0.5, 0.9), axis=1)
    starts = np.arange(0, len(values), width)
    ends = np.minimum(starts + width, len(values))
    return Band((starts + ends + 1) / 2, middle, low, high)


def thinned(x: np.ndarray, y: np.ndarray, limit: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A line of at most about `limit` points that keeps every stretch's lowest and highest, and both ends.

    Args:
        x: positions in order.
        y: values; NaN counts as neither lowest nor highest.
        limit: points to keep, >= 4.
    """
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    if len(x) <= limit:
        return x, y
    stretch = -(-2 * len(x) // (limit - 2))
    starts = np.arange(0, len(x), stretch)
    padded = np.full(len(starts) * stretch, np.nan)
    padded[: len(y)] = y
    table = padded.reshape(len(starts), stretch)
    lowest = np.argmin(np.where(np.isnan(table), np.inf, table), axis=1) + starts
    highest = np.argmax(np.where(np.isnan(table), -np.inf, table), axis=1) + starts
    kept = np.unique(np.concatenate([[0], lowest, highest, [len(x) - 1]]))
    return x[kept], y[kept]


def distribution(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Values in order, and the share that is no larger than each; of many, those at even steps of the share.

    Args:
        values: finite, at least one.
        most: points to keep.
    """
    ordered = np.sort(values)
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), most)).round().astype(int))
    return ordered[kept], (kept + 1) / len(ordered)


def live_over_time(steps: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """From when on how many requests were computed: none while idle, and none after the last step."""
    begun_s = (steps["end_s"] - steps["step_us"] / US_PER_S).to_numpy()
    idle_s = steps["idle_us"].to_numpy() / US_PER_S
    waited = idle_s > 0
    last_s = steps["end_s"].to_numpy()[-1:]
    times = np.concatenate([(begun_s - idle_s)[waited], begun_s, last_s])
    counts = np.concatenate([np.zeros(waited.sum(), int), steps["num_live"].to_numpy(), np.zeros(len(last_s), int)])
    order = np.argsort(times, kind="stable")
    changed = order[np.append(True, np.diff(counts[order]) != 0)]
    return times[changed], counts[changed]


class Stretches(NamedTuple):
    """One strategy's timeline: edges of its stretches in s, one more than there are, and values of each column."""

    edges_s: np.ndarray
    values: dict[str, np.ndarray]

    def stepped(self, column: str) -> np.ndarray:
        """A value an edge, for a line that steps after each: the last is repeated."""
        return np.append(self.values[column], self.values[column][-1:])


def stretches_of(timeline: pd.DataFrame, summary: pd.DataFrame, most: int) -> dict[str, Stretches]:
    """Each strategy's stretches; neighbouring ones are joined into one where there are more than can be seen.

    Args:
        timeline: a row a stretch and strategy.
        summary: a row a strategy; its makespan ends a timeline of a single stretch.
        most: stretches to keep of a strategy.
    """
    found = {}
    makespans = dict(zip(summary["strategy"].astype(str), summary["makespan_s"].astype(float), strict=True))
    for name, rows in timeline.groupby(timeline["strategy"].astype(str), sort=False):
        starts = rows["time_s"].to_numpy(dtype=float)
        width = starts[1] - starts[0] if len(starts) > 1 else makespans.get(str(name), 0.0) or 1.0
        edges = np.append(starts, starts[-1] + width)
        joined = -(-len(starts) // most)
        firsts = np.arange(0, len(starts), joined)
        counts = np.diff(np.append(firsts, len(starts)))
        columns = [column for column in TIMELINE if column not in ("strategy", "time_s")]
        values = {column: _joined(column, rows[column].to_numpy(dtype=float), firsts, counts) for column in columns}
        found[str(name)] = Stretches(np.append(edges[firsts], edges[-1]), values)
    return found


def _joined(column: str, values: np.ndarray, firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of means, the most of what is the most."""
    together = np.maximum if "_max" in column else np.add
    joined: np.ndarray = together.reduceat(values, firsts)
    return joined if "_max" in column else joined / counts


class ByTurn(NamedTuple):
    """One strategy's requests by their turn: turns that enough have reached, and a value of each."""

    turns: np.ndarray
    middle_s: np.ndarray
    slow_s: np.ndarray
    hit_share: np.ndarray


def by_turn(requests: pd.DataFrame, least: int) -> dict[str, ByTurn]:
    """Times to the first token by turn, from 1, and the share of prompts' tokens that was reused, from whichever tier.

    Args:
        requests: rows of requests, with hit_tokens, and those of tiers below, where a prefix cache was simulated.
        least: requests with a first token that a turn has, at least, to be shown.
    Returns:
        Medians, 90th percentiles, and sums of reused tokens over sums of prompts' tokens; NaN where none are reused.
    """
    rows = requests[~requests["warmup"].to_numpy(dtype=bool)].dropna(subset=["ttft_s"])
    found = {}
    for name, own in rows.groupby(rows["strategy"].astype(str), sort=False):
        groups = own.groupby(own["turn"].to_numpy() + 1)
        times = groups["ttft_s"].quantile(np.array([0.5, 0.9])).unstack()[groups.size() >= least]
        shares = np.full(len(times), np.nan)
        if "hit_tokens" in own:
            tiers = [column for column in FOUND.values() if column in own]
            sums = groups[[*tiers, "prompt_tokens"]].sum().loc[times.index]
            shares = (sums[tiers].sum(axis=1) / sums["prompt_tokens"]).to_numpy(dtype=float)
        found[str(name)] = ByTurn(times.index.to_numpy(), times[0.5].to_numpy(), times[0.9].to_numpy(), shares)
    return found
