"""Prefix hit rates on a trace of Mooncake's, by the definition of KVCache.AI's simulator."""

from collections.abc import Iterator, Mapping

from kvbench.studies.reproduce.figure import Figure
from kvbench.workload.trace_columns import TraceColumns

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


def hit_rate_figures(columns: TraceColumns) -> Iterator[Figure]:
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
    found = {(row["num_blocks"], row["policy"]): 100 * row["token_hit_rate"] for row in rows}
    yield from _figures(found, 100 * ceiling(tree, warmup_share=0.0)["block_hit_rate"])


def missing_figures() -> Iterator[Figure]:
    """The printed figures alone, where the trace is missing."""
    return _figures({}, None)


def _figures(found: Mapping[tuple[int, str], float], unlimited: float | None) -> Iterator[Figure]:
    for size, by_policy in HIT_RATES.items():
        for policy, published in by_policy.items():
            yield Figure(
                result="Prefix hit rate",
                quantity=f"{policy}, {size:,} blocks",
                unit="%",
                published=published,
                ours=found.get((size, policy)),
                goal=PRINTED_DIGIT,
                source=SIMULATOR,
            )
    yield Figure(
        result="Unlimited hit rate",
        quantity="all requests",
        unit="%",
        published=CEILING,
        ours=unlimited,
        goal=PRINTED_DIGIT,
        source=TRACE,
    )
