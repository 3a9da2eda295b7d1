"""What is to be told of prefix reuse: policies, their distance from the optimum, what memory and tiers buy."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, cast

import pandas as pd

from kvbench.charts.text import duration, listed, number, percent

OPTIMUM = "optimal"
GIB = 1 << 30
NEAR = 0.01
"""A hit rate is near the ceiling where it is at most so much below it."""


def sentences_of(table: pd.DataFrame, unlimited: pd.DataFrame, lower_blocks: Mapping[str, int]) -> list[str]:
    """What is counted, which policy is best, how far it is from the optimum, what memory and tiers buy.

    Args:
        table: a row a scenario, kind of reuse, size and policy.
        unlimited: a row a scenario: what a cache that holds everything reuses, and the denominators.
        lower_blocks: blocks of each tier behind the device, by name.
    """
    sentences: list[str] = []
    for ceiling in unlimited.to_dict("records"):
        name = ceiling["scenario"]
        rows = table[table["scenario"] == name]
        told = [*_counted(ceiling), *_best(rows), *_from_optimum(rows), *_memory(rows, ceiling)]
        told += [*_tiers(rows, ceiling, lower_blocks), *_not_full(rows, ceiling, lower_blocks)]
        sentences += [f"{name}: {sentence}" for sentence in told]
    return sentences


def _counted(ceiling: Mapping[Any, Any]) -> Iterator[str]:
    yield (
        f"the last {ceiling['num_counted']:,} of {ceiling['num_requests']:,} requests count; those before fill the "
        f"cache. The token hit rate is of their {ceiling['prompt_tokens']:,} prompt tokens, the block hit rate of "
        f"their {ceiling['blocks']:,} blocks of {ceiling['block_tokens']:,} tokens, one filled in part being one."
    )
    yield (
        f"a cache that holds every block, {ceiling['num_distinct']:,} of them in {_gib(ceiling['distinct_bytes'])}, "
        f"reuses {percent(ceiling['token_hit_rate'])} of the tokens and {percent(ceiling['block_hit_rate'])} of the "
        "blocks: no cache can do more. As vLLM counts, which reuses full blocks only and computes a prompt's last one "
        f"again, that is {percent(ceiling['vllm_token_hit_rate'])} of the tokens."
    )


def _named(way: Hashable) -> str:
    reuse, policy = cast(tuple[str, str], way)
    return f"{policy} with {reuse}"


def _by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Token hit rates: a row a size, a column a kind of reuse and policy, as they come in the table."""
    ways = list(dict.fromkeys(zip(rows["reuse"], rows["policy"], strict=True)))
    return rows.pivot(index="device_blocks", columns=["reuse", "policy"], values="token_hit_rate")[ways]


def _real(rows: pd.DataFrame) -> pd.DataFrame:
    """The same of what can be built: without the optimum, which knows what comes."""
    rates = _by_size(rows)
    return rates[[way for way in rates.columns if way[1] != OPTIMUM]]


def _wins(rates: pd.DataFrame) -> pd.Series:
    """At how many sizes each is the best, or as good; only sizes count at which not all are equal."""
    differing = rates[rates.nunique(axis=1) > 1]
    return differing.eq(differing.max(axis=1), axis=0).sum()


def _best(rows: pd.DataFrame) -> Iterator[str]:
    rates = _real(rows)
    if len(rates.columns) < 2:  # noqa: PLR2004
        return
    wins = _wins(rates)
    wins = wins[wins > 0].sort_values(ascending=False, kind="stable")
    if wins.empty:
        yield "all policies and kinds of reuse but the optimum are equal at each size."
        return
    gaps = rates.max(axis=1) - rates.min(axis=1)
    size: Any = gaps.idxmax()
    rated = rates.loc[size]
    ways = [f"{_named(way)} (at {count} of {len(rates)} sizes)" for way, count in wins.items()]
    yield (
        f"short of the optimum, most is reused by {listed(ways)}. The choice matters most at {size:,} blocks: "
        f"{percent(rated.max())} by {_named(rated.idxmax())}, {percent(rated.min())} by {_named(rated.idxmin())}."
    )


def _from_optimum(rows: pd.DataFrame) -> Iterator[str]:
    """How far lru is from Belady's optimum; kinds of reuse of which the same is to be told stand in one sentence."""
    rates = _by_size(rows)
    told: dict[str, list[str]] = {}
    for reuse in dict.fromkeys(rows["reuse"]):
        if {(reuse, "lru"), (reuse, OPTIMUM)} <= set(rates):
            told.setdefault(_distance(rates[reuse, "lru"], rates[reuse, OPTIMUM]), []).append(reuse)
    for text, kinds in told.items():
        yield f"lru with {listed(kinds)} {text}"


def _distance(lru: pd.Series, optimum: pd.Series) -> str:
    gaps = optimum - lru
    if not gaps.any():
        return "reuses as much as Belady's optimum at each size."
    size: Any = gaps.idxmax()
    enough = lru.index[lru >= optimum[size]]
    needed = f"with {enough.min():,}" if len(enough) else "at no size that was run"
    return (
        f"is up to {_points(gaps[size])} below Belady's optimum: {percent(lru[size])} against "
        f"{percent(optimum[size])} at {size:,} blocks; it reuses as much as that {needed}."
    )


def _way(rows: pd.DataFrame) -> tuple[str, str]:
    """What memory and tiers are told of: the best at most sizes; the optimum where nothing else was run."""
    rates = _real(rows)
    return cast(tuple[str, str], _by_size(rows).columns[0] if rates.columns.empty else _wins(rates).idxmax())


def _memory(rows: pd.DataFrame, ceiling: Mapping[Any, Any]) -> Iterator[str]:
    way = _way(rows)
    rates = _by_size(rows)[way]
    if len(rates) < 2:  # noqa: PLR2004
        return
    sizes = dict(zip(rows["device_blocks"], rows["device_bytes"], strict=True))
    gains = rates.diff()
    step: Any = gains.idxmax()
    before = rates.index[rates.index.tolist().index(step) - 1]
    near = rates.index[rates >= ceiling["token_hit_rate"] - NEAR]
    end = f"the ceiling is within a point from {near[0]:,} on" if len(near) else "the ceiling is never within a point"
    yield (
        f"more memory, {_named(way)}: {percent(rates.iloc[0])} with {rates.index[0]:,} blocks "
        f"({_gib(sizes[rates.index[0]])}), {percent(rates.iloc[-1])} with {rates.index[-1]:,} "
        f"({_gib(sizes[rates.index[-1]])}); the step that gains most is from {before:,} to {step:,}, "
        f"{_points(gains[step])}; {end}."
    )


def _tiers(rows: pd.DataFrame, ceiling: Mapping[Any, Any], lower_blocks: Mapping[str, int]) -> Iterator[str]:
    """What tiers behind the smallest device give, and what their loads take."""
    if not lower_blocks:
        return
    way = _way(rows)
    own = rows[(rows["reuse"] == way[0]) & (rows["policy"] == way[1])]
    row = own.sort_values("device_blocks").iloc[0]
    behind = listed([f"{count:,} blocks of {name}" for name, count in lower_blocks.items()])
    time_s = row["load_s"]
    parts = listed([f"{percent(row[f'from_{name}'])} from the {name}" for name in ("device", *lower_blocks)])
    yield (
        f"with {behind} behind {row['device_blocks']:,} of the device, {_named(way)} reuses {parts}; loading "
        f"{_gib(row['loaded_bytes'])} takes {duration(time_s)}, {duration(time_s / ceiling['num_counted'])} a "
        "request, at the full bandwidth and where nothing hides it."
    )


def _not_full(rows: pd.DataFrame, ceiling: Mapping[Any, Any], lower_blocks: Mapping[str, int]) -> Iterator[str]:
    behind = sum(lower_blocks.values())
    sizes = sorted(set(rows.loc[~rows["filled_first"], "device_blocks"]))
    ample = [f"{size:,}" for size in sizes if size + behind >= ceiling["num_distinct"]]
    late = [f"{size:,}" for size in sizes if size + behind < ceiling["num_distinct"]]
    if ample:
        yield f"with {listed(ample)} blocks of the device everything is held, and nothing leaves the cache."
    if late:
        yield (
            f"with {listed(late)} blocks of the device the cache was not full before the first request that counts: "
            "part of what counts came while it filled up."
        )


def _points(share: float) -> str:
    return f"{number(100 * share)} points"


def _gib(num_bytes: float) -> str:
    return f"{number(num_bytes / GIB)} GiB"
