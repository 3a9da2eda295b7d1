"""PagedAttention's figure 2: where the memory of a KV cache goes under four ways to hold it, and how many requests fit.

What the paper leaves open, and how it was chosen:

- The arrival rate behind the figure is not given. The shares are those of iterations in which a request waits for
  memory, averaged over time, at the rate of the paper's mean batch (figure 13: 2 requests/s); `rates` shows how they
  move with the rate.
- "12 GB for KV cache" is 12 GiB: 15,728 slots of 819,200 bytes, the 15.7K of its table 1.
- Orca's cache lies in an address space that a buddy allocator hands out (section 6.1). What that rounds up counts as
  external, since the paper's Oracle, which reserves exactly what it needs, has no internal fragmentation.
- Pow2 reserves the prompt and the least power of two that the output fits in.
- The step's time is that of a data sheet's A100 and of 12.85e9 parameters in 16 bits; it moves the mean batch of an
  unsaturated system only, which is why vLLM's is shown and not judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvbench.engine.scheduling import Scheduling
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.base import Strategy
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
from kvbench.strategy.power_of_two import PowerOfTwo
from kvbench.strategy.static import Static
from kvbench.studies.reproduce.figures import PublishedFigure
from kvbench.timing.prices import Prices
from kvbench.workload.arrivals import Poisson
from kvbench.workload.trace_columns import TraceColumns

SOURCE = "Kwon et al. 2023, arXiv:2309.06180, figure 2"
BATCH_SOURCE = "Kwon et al. 2023, arXiv:2309.06180, figure 13 (a)"
MAX_TOKENS = 2048
CACHE_BYTES = 12 << 30
BLOCK_TOKENS = 16
MAX_BATCH = 256
STEPS = Scheduling()
"""Both systems' iterations take all live requests, and prompts whole: neither engine's rules of today."""
PARTS = ("token states", "reserved", "internal", "external")
SHARES = {
    "Orca (Max)": (20.4, 13.3, 57.3, 8.9),
    "Orca (Pow2)": (26.8, 17.9, 13.6, 41.6),
    "Orca (Oracle)": (38.2, 25.2, 0.0, 36.6),
    "vLLM": (96.3, None, None, None),
}
"""Percent of the cache's memory, as in the figure: used by token states, reserved, internal, external."""
BATCHES = {"Orca (Max)": 7.00, "Orca (Pow2)": 9.81, "Orca (Oracle)": 13.62, "vLLM": 30.42}
"""Mean number of requests in a batch."""
USED_GOAL, OTHER_GOAL, BATCH_GOAL = 3.0, 6.0, 0.15


class Occupancy(NamedTuple):
    """Where one system's memory went at one rate.

    Args:
        shares: percent, in the order of PARTS.
        mean_batch: requests in an iteration, over all time in which something was live.
        waiting_share: share of that time in which a request waited for memory.
    """

    shares: tuple[float, ...]
    mean_batch: float
    waiting_share: float


def systems(num_slots: int) -> dict[str, Strategy]:
    """The four ways to hold a cache, as kvbench's strategies."""
    return {
        "Orca (Max)": Static(max_seq_len=MAX_TOKENS),
        "Orca (Pow2)": PowerOfTwo(max_seq_len=MAX_TOKENS),
        "Orca (Oracle)": Exact(round_to=1),
        "vLLM": Paged(block_size=BLOCK_TOKENS, pool_tokens=num_slots // BLOCK_TOKENS * BLOCK_TOKENS),
    }


def arrivals(lengths: TraceColumns, rate_per_s: float, seed: int) -> TraceColumns:
    """The chats that fit the model's 2,048 tokens, arriving as a Poisson process; the same ones at every rate."""
    fits = lengths.num_prompt_tokens + lengths.num_output_tokens <= MAX_TOKENS
    times_ns = Poisson(rate_per_s=rate_per_s).times_ns(int(fits.sum()), np.random.default_rng(seed))
    return TraceColumns(
        arrival_ns=times_ns,
        num_prompt_tokens=lengths.num_prompt_tokens[fits],
        num_output_tokens=lengths.num_output_tokens[fits],
    )


def occupancy(columns: TraceColumns, strategy: Strategy, prices: Prices, geometry: KVGeometry) -> Occupancy:
    """Serve the chats under one system."""
    # Imported here: it needs Numba, which an extra brings.
    from kvbench.fleet import simulate
    from kvbench.ledger.costs import workspace_bytes

    is_paged = isinstance(strategy, Paged)
    result = simulate(
        columns,
        strategy,
        prices,
        geometry=geometry,
        budget_bytes=CACHE_BYTES + workspace_bytes(strategy.areas, geometry, 1),
        max_batch=MAX_BATCH,
        scheduling=STEPS,
        space="counting" if is_paged else "buddy",
    )
    whole, waiting = result.shares(), result.shares(for_memory=True)
    own = waiting if waiting.time_s > 0 else whole
    parts = (own.used, own.reserved, own.internal_waste, own.free + own.rounded)
    return Occupancy(tuple(100 * part for part in parts), whole.mean_batch, waiting.time_s / whole.time_s)


def occupancies(
    lengths: TraceColumns, rates: tuple[float, ...], prices: Prices, geometry: KVGeometry, seed: int
) -> dict[float, dict[str, Occupancy]]:
    """All systems at each rate, in requests/s."""
    num_slots = CACHE_BYTES // geometry.bytes_per_token
    return {
        rate: {
            name: occupancy(arrivals(lengths, rate, seed), strategy, prices, geometry)
            for name, strategy in systems(num_slots).items()
        }
        for rate in rates
    }


def figures(found: Mapping[str, Occupancy]) -> Iterator[PublishedFigure]:
    """The paper's figures beside ours, at the rate of its mean batch."""
    for name, published in SHARES.items():
        for part, printed, ours in zip(PARTS, published, found[name].shares, strict=True):
            yield PublishedFigure(
                result="PagedAttention, shares",
                quantity=f"{name}, {part}",
                unit="%",
                published=printed,
                ours=ours,
                goal=USED_GOAL if part == PARTS[0] else OTHER_GOAL,
                source=SOURCE,
            )
    for name, mean_batch in BATCHES.items():
        yield PublishedFigure(
            result="PagedAttention, batch",
            quantity=name,
            unit="requests",
            published=mean_batch,
            ours=found[name].mean_batch,
            goal=None if name == "vLLM" else BATCH_GOAL * mean_batch,
            source=BATCH_SOURCE,
        )


def missing_figures() -> Iterator[PublishedFigure]:
    """The paper's figures alone, where the trace is missing."""
    nothing = Occupancy((np.nan,) * len(PARTS), np.nan, np.nan)
    return (replace(figure, ours=None) for figure in figures(dict.fromkeys(SHARES, nothing)))


def rates_frame(found: Mapping[float, Mapping[str, Occupancy]]) -> pd.DataFrame:
    """A row a rate and system: shares in percent, mean batch, and how much of the time a request waited for memory."""
    rows = []
    for rate, by_system in found.items():
        for name, own in by_system.items():
            shares = dict(zip((f"{part.replace(' ', '_')}_percent" for part in PARTS), own.shares, strict=True))
            rows.append(
                {"rate_per_s": rate, "system": name}
                | shares
                | {"mean_batch": own.mean_batch, "waiting_share": own.waiting_share}
            )
    return pd.DataFrame(rows)
