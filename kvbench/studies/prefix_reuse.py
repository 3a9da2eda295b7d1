"""Prefix reuse: what a cache of prompts' blocks would have held, by size, policy and kind of reuse."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.prefix import prefix_rates_chart, prefix_tiers_chart
from kvbench.charts.text import duration, listed, number, percent
from kvbench.checks import check_int, check_number
from kvbench.fleet.prefix.kinds import check_policy, check_reuse
from kvbench.fleet.prefix.tiers import Tier, TierUse
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.workload.scenario import Scenario
from kvbench.workload.trace import DEFAULT_FOLDER, FOLDER_VARIABLE, Trace, TraceMissing
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_formats import SHARING

if TYPE_CHECKING:
    from kvbench.fleet.prefix.simulate import PrefixResult
    from kvbench.fleet.prefix.tree import PromptTree


RATES = ("token_hit_rate", "block_hit_rate", "vllm_token_hit_rate", "vllm_block_hit_rate")
OPTIMUM = "optimal"
GIB = 1 << 30
NEAR = 0.01
"""A hit rate is near the ceiling where it is at most so much below it."""


@dataclass(frozen=True, kw_only=True)
class PrefixReuse(Experiment):
    """Replay traces' prompts through caches of several sizes, and count what each would have held.

    A hit is a prompt's longest run of blocks, from its start, that are held when it arrives. A token hit rate is reused
    prompt tokens ÷ prompt tokens, a block hit rate reused blocks ÷ blocks, both of the requests that count. A prompt
    may be reused whole, and a block filled in part is one; rates named vllm count as vLLM does, which reuses full
    blocks only and computes a prompt's last one again. A block's bytes are those of its tokens in the configured model.

    Args:
        scenarios: traces with block ids, by name; all their requests are replayed.
        device_blocks: sizes of the device's cache, in blocks, each >= 1.
        host_blocks: blocks that the host's memory holds beside these, >= 0; 0 for no such tier.
        disk_blocks: blocks that a disk holds beside these, >= 0; 0 for no such tier.
        host_bytes_per_s: at which blocks come from the host to the device, > 0.
        disk_bytes_per_s: at which blocks come from the disk, > 0; through the host where there is one.
        policies: of fifo, lru and optimal, which knows what is used next.
        reuse: kinds, of block_hash, radix and radix_trimmed.
        warmup_share: of the requests, those at the start that only fill the cache; >= 0, < 1.
    Raises:
        ValueError: a parameter is out of its range or unknown, or a scenario does not say which blocks prompts share.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.4 (block_hash); Zheng et al. 2024, arXiv:2312.07104, section 3
        (radix); Belady 1966 (optimal); Qin et al. 2025, Mooncake (FAST'25), and KVCache.AI's kvcache-simulator (rates).
    Departs: prompts take no time, so that none holds its blocks while it runs; loads neither overlap nor wait for each
        other; layers with a sliding window hold all tokens of a block.
    """

    scenarios: Mapping[str, Scenario]
    device_blocks: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
    host_blocks: int = 0
    disk_blocks: int = 0
    host_bytes_per_s: float = 6.4e10
    disk_bytes_per_s: float = 7.0e9
    policies: tuple[str, ...] = ("fifo", "lru", "optimal")
    reuse: tuple[str, ...] = ("block_hash", "radix", "radix_trimmed")
    warmup_share: float = 0.5
    repetitions: int = 1
    attend: bool = False

    def __post_init__(self) -> None:
        for name, what in (("device_blocks", "size"), ("policies", "policy"), ("reuse", "kind of reuse")):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not value:
                raise ValueError(f"{name} is a list of at least one {what}, got {value!r}")
        for size in self.device_blocks:
            check_int("each of device_blocks", size, 1)
        for policy in self.policies:
            check_policy(policy)
        for kind in self.reuse:
            check_reuse(kind)
        check_number("warmup_share", self.warmup_share, 0, 1, below=True)
        self.lower_tiers()
        for name, scenario in self.scenarios.items():
            _check_shares_blocks(name, scenario)

    def lower_tiers(self) -> tuple[Tier, ...]:
        """The tiers behind the device that there are, the faster first."""
        tiers = []
        for name in ("host", "disk"):
            num_blocks, rate = getattr(self, f"{name}_blocks"), getattr(self, f"{name}_bytes_per_s")
            # A rate is checked whether its tier is there or not.
            tier = Tier(name=name, num_blocks=1, bytes_per_s=rate)
            check_int(f"{name}_blocks", num_blocks, 0)
            if num_blocks:
                tiers.append(Tier(name=tier.name, num_blocks=num_blocks, bytes_per_s=rate))
        return tuple(tiers)

    @property
    def num_tokens(self) -> int:
        """None: nothing is appended to a cache of tensors."""
        return 0

    def run(self, setting: Setting) -> Findings:
        """Replay all traces.

        Returns:
            A row a scenario, kind of reuse, size and policy; in the table `unlimited`, a row a scenario: what a cache
            that holds everything reuses, and the denominators; in the file `tiers`, a row a tier of each row.
        Raises:
            ValueError: a trace is missing or not of its format, or what compiles simulations is not installed.
        """
        traces = {name: _columns(name, scenario, setting.seed) for name, scenario in self.scenarios.items()}
        rows, tiers, ceilings = [], [], []
        for name, columns in traces.items():
            tree = _tree(name, columns)
            block_bytes = setting.backend.geometry.bytes_per_token * tree.block_tokens
            for what, result in self._results(tree, block_bytes):
                row = {"scenario": name} | what
                rows.append(row | _rates(result, block_bytes))
                tiers += [row | _tier_row(use) for use in result.tiers]
            ceilings.append({"scenario": name} | _ceiling(tree, block_bytes, self.warmup_share))
        table, unlimited = pd.DataFrame(rows), pd.DataFrame(ceilings)
        return Findings(
            summary=table,
            sentences=sentences_of(table, unlimited, {tier.name: tier.num_blocks for tier in self.lower_tiers()}),
            charts=self._charts(table, unlimited, setting.backend.geometry.about),
            tables={"unlimited": unlimited},
            files={"tiers": pd.DataFrame(tiers)},
        )

    def _results(self, tree: "PromptTree", block_bytes: int) -> Iterator[tuple[dict[str, object], "PrefixResult"]]:
        """What each kind of reuse, size and policy does, and which it is."""
        from kvbench.fleet.prefix.simulate import simulate

        kinds, policies = dict.fromkeys(self.reuse), dict.fromkeys(self.policies)
        for kind, size, policy in product(kinds, sorted(set(self.device_blocks)), policies):
            device = Tier(name="device", num_blocks=size, bytes_per_s=float("inf"))
            result = simulate(
                tree,
                tiers=(device, *self.lower_tiers()),
                policy=policy,
                reuse=kind,
                block_bytes=block_bytes,
                warmup_share=self.warmup_share,
            )
            yield {"reuse": kind, "device_blocks": size, "policy": policy}, result

    def _charts(self, table: pd.DataFrame, unlimited: pd.DataFrame, subject: str) -> dict[str, Figure]:
        """Hit rates over the device's size, and where there are tiers, a chart of hits by tier a scenario."""
        lower = {tier.name: tier.num_blocks for tier in self.lower_tiers()}
        charts = {"prefix_reuse": prefix_rates_chart(table, unlimited, lower, subject)}
        for name in self.scenarios if lower else ():
            key = "tiers" if len(self.scenarios) == 1 else f"tiers_{name}"
            charts[key] = prefix_tiers_chart(table, unlimited, name, lower, subject)
        return charts


def _check_shares_blocks(name: str, scenario: Scenario) -> None:
    """Refuse a scenario whose requests do not say which blocks their prompts share.

    Raises:
        ValueError: it is none that says so.
    """
    if isinstance(scenario, Trace) and scenario.format in (None, *SHARING):
        return
    got = f"a trace of the format {scenario.format}" if isinstance(scenario, Trace) else "no trace"
    raise ValueError(
        f"scenarios: {name} does not say which blocks its prompts share: it is {got}; allowed are traces of the format "
        f"{', '.join(SHARING[:-1])} or {SHARING[-1]}, such as mooncake_synthetic"
    )


def _columns(name: str, scenario: Scenario, seed: int) -> TraceColumns:
    assert isinstance(scenario, Trace), "an experiment refuses others"
    try:
        return scenario.columns(np.random.default_rng(seed))
    except TraceMissing as error:
        raise ValueError(
            f"{name}: trace file {scenario.path or scenario.file} is missing.\n"
            f"  published: {scenario.source}\n"
            f"  put it into the folder {DEFAULT_FOLDER}, or into the one that the environment variable "
            f"{FOLDER_VARIABLE} names"
        ) from error


def _tree(name: str, columns: TraceColumns) -> "PromptTree":
    try:
        # Imported here: it needs Numba, which an extra brings.
        from kvbench.fleet.prefix.tree import plant
    except ImportError as error:
        raise ValueError(str(error)) from error
    try:
        return plant(columns)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _rates(result: "PrefixResult", block_bytes: int) -> dict[str, object]:
    """The columns of a row; those of tiers where there are several."""
    rates = {
        "device_bytes": result.tiers[0].num_blocks * block_bytes,
        **{name: getattr(result, name) for name in RATES},
        "filled_first": result.filled_first,
    }
    if len(result.tiers) > 1:
        rates |= {f"from_{use.name}": use.hit_tokens / result.prompt_tokens for use in result.tiers}
        rates |= {
            "loaded_bytes": sum(use.loaded_bytes for use in result.tiers),
            "stored_bytes": sum(use.stored_bytes for use in result.tiers),
            "load_s": result.load_s,
        }
    return rates


def _tier_row(use: TierUse) -> dict[str, object]:
    figures = asdict(use)
    return {"tier": figures.pop("name"), "tier_blocks": figures.pop("num_blocks")} | figures


def _ceiling(tree: "PromptTree", block_bytes: int, warmup_share: float) -> dict[str, object]:
    """What a cache that holds everything reuses, and of what."""
    from kvbench.fleet.prefix.simulate import unlimited

    most = unlimited(tree, warmup_share=warmup_share)
    return {
        "num_requests": tree.num_requests,
        "num_counted": most.num_requests,
        "prompt_tokens": most.prompt_tokens,
        "blocks": most.blocks,
        "block_tokens": tree.block_tokens,
        "num_distinct": tree.num_nodes,
        "distinct_bytes": tree.num_nodes * block_bytes,
        **{name: getattr(most, name) for name in RATES},
    }


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
