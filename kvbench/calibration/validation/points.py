"""An end-to-end measurement, whichever file it is from: what served, how requests came, what was reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns

ROUNDS = 10
"""Requests that a client of a closed loop sends, where a table does not say how many: benchmarks are usually run so
(aiconfigurator and InferenceMAX have ten). They count all of them, from the first ones on, which come together."""
FEW = 16
"""Clients up to which a load is light."""
THROUGHPUT, REQUESTS_PER_S, LAST_FINISH = "output_tokens_per_s", "requests_per_s", "last_finish"
UNITS = {THROUGHPUT: "tokens/s", REQUESTS_PER_S: "requests/s"}
"""Of kinds that are no times."""


def kind_of(measure: str, statistic: str = "mean") -> str:
    """What a figure's kind is called: of a mean the measure alone."""
    return measure if statistic == "mean" else f"{measure}_{statistic}"


class System(NamedTuple):
    """What served, as a file says it; "" where it does not.

    Args:
        model: its published name, or one of kvbench's.
        hardware: one of kvbench's.
        engine: its name.
        version: the engine's.
        tensor: ranks.
        pipeline: stages.
        data: replicas.
        weights_dtype: of the model's weights; "": its own.
        kv_dtype: of its cache; "": its own.
    """

    model: str = ""
    hardware: str = ""
    engine: str = ""
    version: str = ""
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    weights_dtype: str = ""
    kv_dtype: str = ""


class KnownLimits(NamedTuple):
    """How an engine was set up, under a fleet's names; None: as it has it."""

    max_batch: int | None
    prefill_chunk_tokens: int | None
    memory_fraction: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ServingPoint:
    """One measurement of a system.

    Args:
        what: its name in the file.
        region: what tells loads apart: few or many at once, and so on.
        system: what served.
        columns: the requests, and when they come.
        reported: figures by kind: seconds, or of a kind of UNITS a rate; > 0.
        judged: which of the requests the figures are of; None: all.
        max_batch: requests that the engine took at once, where that is known.
        step_tokens: tokens that it computed in a step at most, where that is known.
        memory_fraction: share of the memory left for caches, where that is known.
        held_out: whether it fitted nothing.
        judges: whether it says if intervals hold, having had no part in them.
        by_formula: whether a rate reported follows from mean times and the number of clients, and ours is told so.
        by_request: what was reported of each judged request, by measure; NaN where nothing was.
    """

    what: str
    region: str
    system: System
    columns: TraceColumns
    reported: Mapping[str, float]
    judged: NDArray[np.bool_] | None = None
    max_batch: int | None = None
    step_tokens: int | None = None
    memory_fraction: float | None = None
    held_out: bool = True
    judges: bool = True
    by_formula: bool = False
    by_request: Mapping[str, NDArray[np.float64]] | None = None

    @property
    def limits(self) -> KnownLimits:
        """What is known of how the engine was set up."""
        return KnownLimits(self.max_batch, self.step_tokens, self.memory_fraction)


def clients(num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, concurrency: int, number: int) -> TraceColumns:
    """Clients that each send their next request when their last one has ended.

    Args:
        num_prompt_tokens: of requests, which are repeated.
        num_output_tokens: the same.
        concurrency: clients.
        number: of requests.
    """
    return TraceColumns(
        arrival_ns=np.zeros(number, np.int64),
        num_prompt_tokens=np.resize(np.asarray(num_prompt_tokens, np.int64), number),
        num_output_tokens=np.resize(np.asarray(num_output_tokens, np.int64), number),
        num_clients=concurrency,
    )


def closed_loop(num_prompt_tokens: int, num_output_tokens: int, concurrency: int) -> TraceColumns:
    """The same, of equal requests: ROUNDS of each client."""
    return clients(num_prompt_tokens, num_output_tokens, concurrency, ROUNDS * concurrency)


def at_times(arrival_s: ArrayLike, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike) -> TraceColumns:
    """Requests that come at moments, in that order.

    Args:
        arrival_s: moments, ascending; one for all, or one each.
        num_prompt_tokens: the same.
        num_output_tokens: the same.
    """
    seconds, prompts, outputs = np.broadcast_arrays(arrival_s, num_prompt_tokens, num_output_tokens)
    return TraceColumns(
        arrival_ns=np.round((seconds - seconds[0]) * NS_PER_S).astype(np.int64),
        num_prompt_tokens=np.array(prompts, np.int64),
        num_output_tokens=np.array(outputs, np.int64),
    )


def all_at_once(num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, number: int) -> TraceColumns:
    """So many requests that are all there at the start."""
    return at_times(np.zeros(number), num_prompt_tokens, num_output_tokens)


def region_of(columns: TraceColumns) -> str:
    """What tells a load apart from others."""
    if columns.num_clients is None:
        return "queued" if not columns.arrivals_ns.any() else "replayed"
    return "light load" if columns.num_clients <= FEW else "heavy load"
