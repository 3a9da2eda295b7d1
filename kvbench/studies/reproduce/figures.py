"""Published figures beside ours: what each is, and those that need no simulation of traffic."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import cast

import pandas as pd

from kvbench.model.geometry import KVGeometry
from kvbench.studies.base import Setting
from kvbench.studies.claims.article import MAXIMUM
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.counted import TABLE, counted, waste_table
from kvbench.workload.trace_columns import TraceColumns

BYTES_PER_TOKEN = {
    "llama2_7b": (524_288, "Touvron et al. 2023, arXiv:2307.09288: 2 x 32 layers x 32 heads x 128 x 2 bytes"),
    "llama3_8b": (131_072, "Llama team 2024, arXiv:2407.21783, table 3: 2 x 32 layers x 8 KV heads x 128 x 2 bytes"),
    "llama3_70b": (327_680, "Llama team 2024, arXiv:2407.21783, table 3: 2 x 80 layers x 8 KV heads x 128 x 2 bytes"),
    "qwen2_5_7b": (57_344, "Qwen team 2024, arXiv:2412.15115, table 1: 2 x 28 layers x 4 KV heads x 128 x 2 bytes"),
    "qwen3_8b": (147_456, "Qwen team 2025, arXiv:2505.09388, table 1: 2 x 36 layers x 8 KV heads x 128 x 2 bytes"),
    "deepseek_v3": (70_272, "DeepSeek-AI 2024, arXiv:2412.19437, section 4.2: 61 layers x (512 + 64) x 2 bytes"),
}
"""Bytes of a token's K and V in bfloat16, and what they follow from."""
HIT_RATES = {
    2_048: {"fifo": 22.5, "lru": 22.8, "optimal": 50.2},
    8_192: {"fifo": 50.7, "lru": 54.8, "optimal": 79.3},
    32_768: {"fifo": 80.1, "lru": 84.5, "optimal": 86.3},
}
"""Percent of the prompt tokens of the last half of the requests, by blocks held and policy."""
COUNTED_FROM = 0.5
CEILING = 64.0
"""Percent of all prompt blocks that a cache which never evicts has held before."""
SIMULATOR = "KVCache.AI, kvcache-simulator 0.1.3 on Mooncake's synthetic trace (FAST'25 release)"
TRACE = "Qin et al. 2025, Mooncake (FAST'25), the synthetic trace, with a cache that never evicts"
DEFINITION = (
    "Prefix hit rates: reused prompt tokens / all prompt tokens of the last half of the requests, which is the "
    "simulator's definition; the unlimited cache's rate is of prompt blocks, over all requests."
)
PRINTED_DIGIT = 0.05
"""Half of the last digit printed."""


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """A published figure beside ours.

    Args:
        result: which published result it belongs to.
        quantity: what it is, of which system.
        unit: of both.
        published: as printed; None where only ours exists.
        ours: computed; None where a trace is missing.
        goal: the largest difference that counts as reproduced, in the same unit; None where it is shown, not judged.
        source: where it was printed.
    """

    result: str
    quantity: str
    unit: str
    published: float | None
    ours: float | None
    goal: float | None
    source: str

    @property
    def difference(self) -> float | None:
        """Ours less the published one."""
        if self.published is None or self.ours is None:
            return None
        return self.ours - self.published

    @property
    def verdict(self) -> str:
        """Whether ours is within the goal."""
        if self.ours is None:
            return "not run"
        if self.goal is None or self.difference is None:
            return "shown"
        # Figures are printed with few digits: a difference in the last of ours is none.
        return "reproduced" if abs(self.difference) <= self.goal + 1e-9 else "missed"


def figures_frame(figures: Iterable[PublishedFigure]) -> pd.DataFrame:
    """A row a figure."""
    rows = [asdict(figure) | {"difference": figure.difference, "verdict": figure.verdict} for figure in figures]
    columns = ["result", "quantity", "published", "ours", "difference", "goal", "unit", "verdict", "source"]
    return pd.DataFrame(rows, columns=columns)


def byte_figures(geometries: Mapping[str, KVGeometry]) -> Iterator[PublishedFigure]:
    """Bytes of a token of each published model, by kvbench's own arithmetic.

    Args:
        geometries: by the names of kvbench's model files, in 16 bits; those that are not there are left out.
    """
    for name, (published, source) in BYTES_PER_TOKEN.items():
        if name not in geometries:
            continue
        ours = geometries[name].bytes_per_token
        yield PublishedFigure(
            result="KV bytes",
            quantity=f"{geometries[name].name}, a token",
            unit="bytes",
            published=published,
            ours=ours,
            goal=0,
            source=source,
        )


def waste_figures(setting: Setting) -> Iterator[PublishedFigure]:
    """The article's waste table, counted as for its first claim."""
    found = counted(waste_table)(ClaimsBench(setting, 1, {})).findings
    for (num_tokens, published), finding in zip(TABLE.items(), found, strict=True):
        yield PublishedFigure(
            result="Static waste",
            quantity=f"{num_tokens:,} of {MAXIMUM:,} tokens",
            unit="%",
            published=published,
            ours=finding.measured,
            goal=0.05,
            source="the article, static's waste (claim C1)",
        )


def hit_rate_figures(columns: TraceColumns) -> Iterator[PublishedFigure]:
    """Hit rates of each size and policy, and of a cache that never evicts.

    Args:
        columns: the trace, with its prompts' blocks.
    """
    # Imported here: it needs Numba, which an extra brings.
    from kvbench.fleet.prefix.sweep import ceiling, sweep
    from kvbench.fleet.prefix.tree import plant

    tree = plant(columns)
    policies = list(next(iter(HIT_RATES.values())))
    rows = sweep(tree, sizes=list(HIT_RATES), policies=policies, reuse="block_hash", warmup_share=COUNTED_FROM)
    found = {
        (cast("int", row["num_blocks"]), str(row["policy"])): 100 * cast("float", row["token_hit_rate"]) for row in rows
    }
    yield from _hit_rates(found, 100 * cast("float", ceiling(tree, warmup_share=0.0)["block_hit_rate"]))


def missing_hit_rates() -> Iterator[PublishedFigure]:
    """The printed figures alone, where the trace is missing."""
    return _hit_rates({}, None)


def _hit_rates(found: Mapping[tuple[int, str], float], unlimited: float | None) -> Iterator[PublishedFigure]:
    for size, by_policy in HIT_RATES.items():
        for policy, published in by_policy.items():
            yield PublishedFigure(
                result="Prefix hit rate",
                quantity=f"{policy}, {size:,} blocks",
                unit="%",
                published=published,
                ours=found.get((size, policy)),
                goal=PRINTED_DIGIT,
                source=SIMULATOR,
            )
    yield PublishedFigure(
        result="Unlimited hit rate",
        quantity="all requests",
        unit="%",
        published=CEILING,
        ours=unlimited,
        goal=PRINTED_DIGIT,
        source=TRACE,
    )
