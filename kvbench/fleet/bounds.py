"""What a fleet computes with: whole numbers of 64 bits, and no sum of what passes here outgrows them."""

import math
import os

import numpy as np
from numpy.typing import NDArray

from kvbench.engine.scheduling import Scheduling
from kvbench.fleet.state import FOREVER
from kvbench.ledger import UNLIMITED
from kvbench.timing.iteration import node_tokens
from kvbench.timing.prices import (
    DECODE_FIXED,
    DECODE_UNIT,
    LINEAR,
    MIXED_FIXED,
    MIXED_UNIT,
    NODES,
    PREFILL,
    PS_PER_S,
    SCALE,
    SEQUENCES,
    SIZES,
    Prices,
)
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns

LATEST_NS = FOREVER // 2
"""The last arrival, and the longest think time, at most: 18 years."""
MOST_PS = 2**62 - 2**52
"""What an iteration may take; the rest is left to what floats lose."""
MOST_TOKENS, MOST_BYTES, MOST_BATCH, MOST_REPLICAS = 2**40, 2**50, 2**20, 2**16
MOST_FACTOR = 2**16
EACH_ITS_STEP = Scheduling()
"""No engine's rules: an iteration takes a step of every live request."""
ROW_BYTES = 450
"""Memory that a request's row takes, about, from the simulation to the file and the charts."""
MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_figures(name: str, figures: tuple[int | float | None, ...]) -> None:
    """Refuse what a strategy's rule could not compute with.

    Raises:
        ValueError: a figure is too large.
    """
    for figure in figures:
        most = MOST_TOKENS if isinstance(figure, int) else MOST_FACTOR
        if figure not in (None, UNLIMITED) and abs(figure) > most:
            raise ValueError(f"{name} decides by {_told(figure)}; a fleet computes with at most {most:,} there")


def check_memory(what: str, num_bytes: int) -> None:
    """Refuse what this machine has no memory for.

    Raises:
        ValueError: it has not.
    """
    if num_bytes > MEMORY_BYTES:
        raise ValueError(f"{what} would take {_told(num_bytes)} bytes, and this machine has {MEMORY_BYTES:,}")


def check_repeats(columns: TraceColumns, repeats: int, *, has_rows: bool) -> None:
    """Refuse to repeat a trace beyond the clock or, where every request has its row, beyond memory.

    Raises:
        ValueError: it goes beyond.
    """
    if has_rows:
        num_bytes = columns.num_requests * repeats * ROW_BYTES
        check_memory(f"repeats={_told(repeats)}, at {ROW_BYTES} bytes a request,", num_bytes)
    _check_moment((columns.period_ns + 1) * repeats, f"repeats={_told(repeats)}: arrivals to")


def scaled(arrival_ns: NDArray[np.int64], rate_scale: float) -> NDArray[np.int64]:
    """Arrivals so many times as fast.

    Raises:
        ValueError: the last one is beyond the clock.
    """
    if arrival_ns.size:
        _check_moment(int(arrival_ns[-1]) / rate_scale, f"rate_scale={rate_scale!r}: arrivals to")
    return (arrival_ns / rate_scale).astype(np.int64)


def check_requests(
    columns: TraceColumns,
    prices: Prices,
    max_batch: int,
    repeats: int = 1,
    *,
    scheduling: Scheduling = EACH_ITS_STEP,
    has_links: bool = False,
) -> int:
    """Refuse requests and prices that would outgrow an iteration's time, or begin beyond the clock.

    An iteration's time is bounded by all that the `max_batch` costliest requests could do in one, in no more tokens of
    prompts than it has. Where slots lie over links, each step reads all of them from there. How long all requests take
    is seen as they are served: no iteration begins at FOREVER or later, and who has not ended by then is told.

    Returns:
        How many iterations may be taken at once.
    Raises:
        ValueError: they would.
    """
    prompts, outputs = columns.num_prompt_tokens, columns.num_output_tokens
    if prices.unit_bytes * max(prices.copy_ps, prices.swap_ps, prices.disk_ps) > MOST_PS:
        raise ValueError(f"{prices.unit_bytes:,} bytes a token take longer to move than a fleet computes with")
    if prompts.min() < 1 or outputs.min() < 0:
        raise ValueError("a request has a prompt of at least 1 token and 0 output tokens or more")
    if max(prompts.max(), outputs.max()) > MOST_TOKENS:
        raise ValueError(f"a request has at most {MOST_TOKENS:,} tokens, got {max(prompts.max(), outputs.max()):,}")
    _check_moment(last_arrival_ns(columns, repeats), "the last request: arrivals to")
    if columns.think_ns is not None:
        _check_moment(columns.think_ns.max(), "think times: to")
    num_live = min(max_batch, prompts.size * repeats)
    costliest = np.sort(prompts + outputs)[::-1][: -(-num_live // repeats)].astype(np.float64)
    tokens = np.repeat(costliest, min(repeats, num_live))[:num_live]
    most_ps = _iteration_ps(tokens, prices, scheduling, has_links)
    if most_ps > MOST_PS:
        raise ValueError(
            f"an iteration of the longest requests ({tokens[0]:,.0f} tokens) may take {most_ps / PS_PER_S:,.4g} s; "
            f"a fleet computes with at most {MOST_PS / PS_PER_S:,.4g} s: shorten them, or lower max_batch"
        )
    longest = tokens[:1]
    step_ps = (_step_ps(longest, prices) + _link_ps(longest, prices) * has_links)[0]
    return max(int(MOST_PS / (_shared_ps(prices) + num_live * step_ps)), 1)


def last_arrival_ns(columns: TraceColumns, repeats: int) -> int:
    """When the last request of a trace arrives that comes so many times."""
    return int(columns.arrivals_ns[-1]) + (repeats - 1) * columns.period_ns


def _iteration_ps(tokens: NDArray[np.float64], prices: Prices, scheduling: Scheduling, has_links: bool) -> float:
    """The most that requests of so many tokens, the longest first, do in an iteration together."""
    link_ps, score_ps = _link_ps(tokens, prices) * has_links, tokens * _score_ps(prices)
    each_ps = _token_ps(tokens, prices) + score_ps + link_ps
    computed_ps = float((tokens * each_ps).sum())
    if scheduling.tokens is not None:
        most_tokens = scheduling.tokens if scheduling.chunks else max(scheduling.tokens, tokens[0])
        computed_ps = min(computed_ps, most_tokens * float(each_ps.max()))
    alone_ps = _alone_ps(tokens, prices) + score_ps + link_ps
    return computed_ps + float(alone_ps.sum()) + _shared_ps(prices)


def _alone_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """The most that a request adds to an iteration, but for attention of its prompt: its tokens moved and copied."""
    each = prices.state_ps + prices.write_ps + prices.swap_ps + prices.copy_ps + prices.storage_ps
    once = prices.transfer_ps + 2 * prices.storage_ps + prices.state_ps * (1 + prices.swap_ps / prices.copy_ps)
    return tokens * each + _linear_ps(tokens, prices) + _decode_ps(tokens, prices) + once


def _step_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """The most that a decode step of a request takes by itself."""
    each = prices.write_ps + prices.state_ps + prices.launch_ps + prices.copy_ps
    return _shared_ps(prices) + _decode_ps(tokens, prices) + tokens * _score_ps(prices) + float(each)


def _link_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """All of a request's slots over a link, or two of them."""
    return 2.0 * prices.transfer_ps + tokens * float(prices.swap_ps + prices.disk_ps)


def _score_ps(prices: Prices) -> float:
    """Scoring a slot in a decode step, where a strategy asks for it."""
    return float(sum(max(sight.read_ps, sight.pair_ps) for sight in prices.sights))


def _token_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """Attention of one token of a prompt after so many: several at once take less, each."""
    found = np.full(tokens.size, float(prices.prompt_ps))
    for row, sight in enumerate(prices.sights, PREFILL):
        of_one = prices.tables[row, NODES : 2 * NODES].astype(np.float64)
        found += np.minimum(tokens + 1, sight.reach) * np.interp(tokens, node_tokens(), of_one) / SCALE
    return found


def _decode_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """Attention of a decode step over so many, in whichever batch."""
    units = sum(sight.weight for sight in prices.sights)
    rows = ([DECODE_FIXED, MIXED_FIXED], [DECODE_UNIT, MIXED_UNIT])
    fixed_ps, unit_ps = (float(prices.tables[each].max()) for each in rows)
    found: NDArray[np.float64] = fixed_ps + tokens * units * unit_ps
    return found


def _linear_ps(tokens: NDArray[np.float64], prices: Prices) -> NDArray[np.float64]:
    """What hangs on tokens and sequences alone, for a request's."""
    table, half = prices.tables[LINEAR].astype(np.float64), SIZES // 2
    within = table[np.minimum(tokens, SIZES).astype(np.int64)]
    beyond = np.maximum(tokens - SIZES, 0) * (table[SIZES] - table[half]) / half
    found: NDArray[np.float64] = within + beyond + float(prices.tables[SEQUENCES, 1])
    return found


def _shared_ps(prices: Prices) -> float:
    return float(prices.tables[LINEAR, 1] + prices.tables[SEQUENCES, 1] + prices.step_ps)


def _check_moment(moment_ns: float, what: str) -> None:
    if not moment_ns <= LATEST_NS:
        told = f"{what} {_told(moment_ns / NS_PER_S)} s"
        raise ValueError(f"{told}; a fleet's clock takes them to {LATEST_NS / NS_PER_S:,.4g} s")


def _told(value: float) -> str:
    """A number of any size, in few characters."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return f"about 10^{int(math.log10(abs(value)))}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
