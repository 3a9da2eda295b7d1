"""Prefix reuse: what a cache of prompts' blocks would have held, by size, policy and kind of reuse."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvbench.charts.prefix import prefix_rates_chart, prefix_tiers_chart
from kvbench.checks import check_int, check_number
from kvbench.fleet.prefix.kinds import check_policy, check_reuse
from kvbench.fleet.prefix.tiers import Tier, TierUse
from kvbench.studies.base import Experiment, Findings, Setting
from kvbench.studies.prefix_sentences import sentences_of
from kvbench.workload.scenario import Scenario
from kvbench.workload.trace import DEFAULT_FOLDER, FOLDER_VARIABLE, Trace, TraceMissing
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_formats import SHARING

if TYPE_CHECKING:
    from kvbench.fleet.prefix.simulate import PrefixResult
    from kvbench.fleet.prefix.tree import PromptTree


RATES = ("token_hit_rate", "block_hit_rate", "vllm_token_hit_rate", "vllm_block_hit_rate")
CURVE_SIZES = 200
"""Of the curve over sizes, which is known at each: at so many it is written and drawn."""


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
        policies: of fifo, lru, lfu, which is of block_hash and the device alone, and optimal, which knows what is used
            next. Under block_hash all but fifo are a fleet's, see `Paged`, with time left out; there fifo counts as
            kvcache-simulator does, in which blocks leave whichever blocks need them.
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
        if "lfu" in self.policies and (set(self.reuse) != {"block_hash"} or self.lower_tiers()):
            raise ValueError("lfu is of the device alone and of block_hash: set reuse to [block_hash], or leave it out")
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
            that holds everything reuses, and the denominators; in the files `tiers`, a row a tier of each
            row, and `curve`, what lru with block_hash reuses at further sizes.
        Raises:
            ValueError: a trace is missing or not of its format, or what compiles simulations is not installed.
        """
        traces = {name: _columns(name, scenario, setting.seed) for name, scenario in self.scenarios.items()}
        rows, tiers, ceilings, curves = [], [], [], []
        for name, columns in traces.items():
            tree = _tree(name, columns)
            block_bytes = setting.backend.geometry.bytes_per_token * tree.block_tokens
            for what, result in self._results(tree, block_bytes):
                row = {"scenario": name} | what
                rows.append(row | _rates(result, block_bytes))
                tiers += [row | _tier_row(use) for use in result.tiers]
            ceilings.append({"scenario": name} | _ceiling(tree, block_bytes, self.warmup_share))
            curves.append(self._curve(name, tree))
        table, unlimited, curve = pd.DataFrame(rows), pd.DataFrame(ceilings), pd.concat(curves)
        return Findings(
            summary=table,
            sentences=sentences_of(table, unlimited, {tier.name: tier.num_blocks for tier in self.lower_tiers()}),
            charts=self._charts(table, unlimited, curve, setting.backend.geometry.about),
            tables={"unlimited": unlimited},
            files={"tiers": pd.DataFrame(tiers), "curve": curve},
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

    def _curve(self, name: str, tree: "PromptTree") -> pd.DataFrame:
        """What lru with block_hash reuses from the first of the sizes to the last, exactly."""
        from kvbench.fleet.prefix.curve import lru_curve
        from kvbench.fleet.prefix.simulate import first_request

        first = first_request(tree, self.warmup_share)
        curve = lru_curve(tree, first)
        sizes = np.geomspace(min(self.device_blocks), max(self.device_blocks), CURVE_SIZES).round().astype(np.int64)
        sizes = np.unique(np.append(sizes, self.device_blocks))
        behind = sum(tier.num_blocks for tier in self.lower_tiers())
        held = np.minimum(sizes + behind, tree.num_nodes)
        return pd.DataFrame(
            {
                "scenario": name,
                "device_blocks": sizes,
                "token_hit_rate": curve.tokens[held] / tree.prompt_tokens[first:].sum(),
                "block_hit_rate": curve.blocks[held] / tree.num_blocks[first:].sum(),
            }
        )

    def _charts(
        self, table: pd.DataFrame, unlimited: pd.DataFrame, curve: pd.DataFrame, subject: str
    ) -> dict[str, Figure]:
        """Hit rates over the device's size, and where there are tiers, a chart of hits by tier a scenario."""
        lower = {tier.name: tier.num_blocks for tier in self.lower_tiers()}
        charts = {"prefix_reuse": prefix_rates_chart(table, unlimited, lower, subject, curve)}
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
