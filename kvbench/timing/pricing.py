"""The prices of a model on an accelerator: its kinds of work, in seconds, as tables of whole picoseconds."""

import numpy as np
from numpy.typing import NDArray

from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.timing.iteration import Iteration, Seen, iteration_of, sights_of
from kvbench.timing.prices import (
    DECODE_FIXED,
    LINEAR,
    MOST_PS,
    NODES,
    PREFILL,
    PS_PER_S,
    SCALE,
    SEQUENCES,
    SIZES,
    STEP,
    STEP_ROWS,
    Prices,
    Sight,
)
from kvbench.timing.rooflines import Seconds
from kvbench.timing.shapes import AS_IT_IS, Factors
from kvbench.timing.stages import lay_in_stages
from kvbench.timing.work import Work

CACHE_KERNELS = 3
"""Launches a layer where the cache alone is priced: K and V written, attention."""
FULL_RATE_BYTES = 2
"""Bytes of a number that the peak rate of operations holds for; those with one of four bytes take twice as long."""
MOST_TABLED = 2**46
"""Of an entry of a table, so that products with small numbers stay within 64 bits."""
MOST_SIZED = 2**54
"""Of an entry by tokens or sequences, of which an iteration has one: a processor takes hours for all of them."""


def prices_of(
    hardware: Hardware,
    work: Work,
    num_rows: int = 1,
    held: KVGeometry | None = None,
    factors: Factors = AS_IT_IS,
) -> Prices:
    """The prices of a model on an accelerator.

    Args:
        hardware: its figures.
        work: what an iteration of it runs; of the cache alone, the layers.
        num_rows: rows of every sequence's batch.
        held: what those of one accelerator hold, where a token passes several, which copy it at once; None: all.
        factors: what each kind of work's time is multiplied by.
    Raises:
        ValueError: a price is beyond what is counted, or layers see too many different stretches.
    """
    geometry, sights = work.geometry, sights_of(work)
    memory_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency
    held, num_stages = held or geometry, work.num_stages
    slot_bytes, state_bytes = (each * num_rows for each in (geometry.bytes_per_token, geometry.state_bytes))
    unit_bytes = num_rows * (held.bytes_per_token or held.state_bytes) or 1
    tables = np.zeros((PREFILL + len(sights), SIZES + 1), np.int64)
    weights: tuple[int, ...] = (0,) * len(sights)
    prompt_ps, step_s = 0, CACHE_KERNELS * geometry.num_layers * hardware.launch_s
    if work.is_whole:
        iteration, step_s = iteration_of(hardware, work), hardware.step_s * factors.host
        _fill(tables, iteration, num_rows, factors)
        weights, prompt_ps = iteration.weights, _ps(factors.prefill * iteration.prompts)
    host_per_s = hardware.host_bytes_per_s * hardware.host_efficiency
    traffic = factors.traffic / memory_per_s
    write_ps, step_ps = _ps(slot_bytes * traffic / num_stages), _ps(step_s)
    state_ps = _ps(2 * state_bytes * traffic / num_stages) if state_bytes else 0
    if work.is_whole:
        if num_stages > 1:
            lay_in_stages(tables, work.stages)
        number = np.arange(SIZES + 1)
        tables[STEP] = tables[LINEAR, -(-number // num_stages)] + tables[[SEQUENCES, DECODE_FIXED]].sum(axis=0)
        tables[STEP] += number * (write_ps + state_ps) + step_ps
    return Prices(
        write_ps=write_ps,
        state_ps=state_ps,
        unit_bytes=unit_bytes,
        copy_ps=_ps(2 * unit_bytes * traffic),
        swap_ps=_ps(unit_bytes / host_per_s),
        storage_ps=_ps(held.num_tensors * (hardware.allocation_s + hardware.launch_s)),
        transfer_ps=_ps(hardware.transfer_s),
        step_ps=step_ps,
        prompt_ps=prompt_ps,
        num_sights=len(sights),
        sights=tuple(
            _sight(hardware, geometry, each, weight, num_rows) for each, weight in zip(sights, weights, strict=True)
        ),
        tables=tables,
        launch_ps=round(held.num_layers * hardware.launch_s * PS_PER_S),
        num_stages=num_stages,
        disk_ps=_ps(unit_bytes / min(host_per_s, hardware.disk_bytes_per_s)),
    )


def _fill(tables: NDArray[np.int64], iteration: Iteration, num_rows: int, factors: Factors) -> None:
    """Write an iteration's seconds into a table of prices; more of anything never takes less."""
    for row, kinds in ((LINEAR, iteration.tokens), (SEQUENCES, iteration.sequences)):
        seconds = sum(getattr(factors, kind) * each for kind, each in kinds.items())
        tables[row] = np.maximum.accumulate(_tabled(seconds, MOST_SIZED))
    for (fixed, unit), steps in zip(STEP_ROWS, (iteration.decode, iteration.mixed), strict=True):
        tables[fixed] = _tabled(factors.decode * steps.fixed)
        tables[unit] = _tabled(factors.decode * num_rows * steps.unit)
    for row, pairs in enumerate(iteration.pairs, PREFILL):
        tables[row, : NODES * NODES] = _tabled(SCALE * factors.prefill * num_rows * pairs.ravel())


def _sight(hardware: Hardware, geometry: KVGeometry, seen: Seen, weight: int, num_rows: int) -> Sight:
    """What layers see that see equally far, and the roofline of the cache alone."""
    rate = min(1.0, FULL_RATE_BYTES / DTYPE_BYTES[geometry.dtype])
    flops_per_s = hardware.flops_per_s * hardware.compute_efficiency * rate / num_rows
    memory_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency / num_rows
    pair_s = sum(group.pair_flops for group in seen.groups) / flops_per_s
    read_s = sum(group.token_bytes for group in seen.groups) / memory_per_s
    return Sight(seen.reach, seen.is_chunk, weight, _ps(max(read_s, pair_s)), _ps(pair_s))


def _tabled(seconds: Seconds, most: int = MOST_TABLED) -> NDArray[np.int64]:
    found = np.round(seconds * PS_PER_S)
    if not found.max(initial=0) < most:
        raise _beyond(float(found.max()) / PS_PER_S, most)
    return found.astype(np.int64)


def _ps(seconds: float) -> int:
    if not seconds * PS_PER_S < MOST_PS:
        raise _beyond(seconds, MOST_PS)
    return max(round(seconds * PS_PER_S), 1)


def _beyond(seconds: float, most: int) -> ValueError:
    return ValueError(
        f"by the machine's figures a piece of work takes {seconds:.4g} s; at most {most / PS_PER_S:.4g} s"
    )
