"""What work costs on an accelerator, in whole picoseconds: many steps at once cost exactly what they cost one by one.

Plain functions of integers. The modelled backend calls them; the fleet simulation compiles them as they stand.
"""

from typing import NamedTuple

from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, LayerGroup
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters

PS_PER_S = 10**12
PS_PER_NS = 1_000
MOST_PS = 2**60
"""A price, at most: 13 days."""
UNBOUNDED = 2**62
MOST_SIGHTS = 8
"""Windows and chunks of different lengths that a model's layers have, at most."""
CACHE_KERNELS = 3
"""Launches a layer where the cache alone is priced: K and V written, attention."""
MODEL_KERNELS = 10
"""Launches a layer of a whole model: besides those, norms, projections and the feed-forward's parts."""
FULL_RATE_BYTES = 2
"""Bytes of a number that the peak rate of operations holds for; those with one of four bytes take twice as long."""


class Sight(NamedTuple):
    """What a query sees of a sequence in the layers that see as much, and what that takes, in picoseconds.

    Args:
        reach: tokens, the query's own included: all (UNBOUNDED), a window's, or a chunk's.
        is_chunk: 1 where it sees those of its own chunk only, 0 where it sees the last ones.
        read_ps: attention of one query over one slot: its bytes or its operations, whichever take longer.
        pair_ps: the operations of one query with one key.
    """

    reach: int
    is_chunk: int
    read_ps: int
    pair_ps: int


class Prices(NamedTuple):
    """Prices of a model on an accelerator, in picoseconds.

    Args:
        weights_ps: reading all parameters once.
        active_ps: reading those that a single token needs.
        token_ps: the floating-point operations of one token of one row outside attention.
        write_ps: writing one token's K and V.
        state_ps: reading and writing a sequence's states, which every step does.
        unit_bytes: what the next two are of: a slot, as long as every layer holds it; of states alone, a sequence's.
        copy_ps: copying so many bytes on the device.
        swap_ps: moving so many to the host's memory, or back.
        storage_ps: allocating a cache's tensors, all layers.
        transfer_ps: beginning a transfer to another tier, or back.
        step_ps: what every iteration costs: launches, and the host.
        num_sights: how many of the next there are.
        sights: attention, by how far layers see.
    """

    weights_ps: int
    active_ps: int
    token_ps: int
    write_ps: int
    state_ps: int
    unit_bytes: int
    copy_ps: int
    swap_ps: int
    storage_ps: int
    transfer_ps: int
    step_ps: int
    num_sights: int
    sights: tuple[Sight, ...]


def linear_ps(num_tokens: int, prices: Prices) -> int:
    """All but attention, for the tokens of all sequences together: weights are read once, or operations bound it."""
    if num_tokens == 0:
        return 0
    return max(min(prices.weights_ps, num_tokens * prices.active_ps), num_tokens * prices.token_ps)


def num_seen(num_tokens: int, sight: Sight) -> int:
    """Slots that the newest of so many tokens sees, its own included; at least 1 token."""
    return (num_tokens - 1) % sight.reach + 1 if sight.is_chunk else min(num_tokens, sight.reach)


def num_pairs(num_tokens: int, sight: Sight) -> int:
    """Slots that each of so many tokens sees, summed up."""
    reach = sight.reach
    within = num_tokens % reach if sight.is_chunk else min(num_tokens, reach)
    beyond = num_tokens - within
    whole = beyond // reach * (reach * (reach + 1) // 2) if sight.is_chunk else beyond * reach
    return whole + within * (within + 1) // 2


def reading_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """Reading once what new tokens see, those before them and each other, and their sequence's states."""
    spent_ps = prices.state_ps
    for i in range(prices.num_sights):
        sight = prices.sights[i]
        spent_ps += (num_seen(num_before + 1, sight) - 1 + num_new) * sight.read_ps
    return spent_ps


def products_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """The operations of new tokens with all that they see."""
    spent_ps = 0
    for i in range(prices.num_sights):
        sight = prices.sights[i]
        spent_ps += (num_pairs(num_before + num_new, sight) - num_pairs(num_before, sight)) * sight.pair_ps
    return spent_ps


def prefill_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """Attention of new tokens over those before them and each other, and the writing of their K and V."""
    attention_ps = max(products_ps(num_new, num_before, prices), reading_ps(num_new, num_before, prices))
    return attention_ps + num_new * prices.write_ps


def moved_ps(num_bytes: int, unit_ps: int, prices: Prices) -> int:
    """Moving bytes, at the price of `unit_bytes` of them."""
    rest = num_bytes % prices.unit_bytes * unit_ps // prices.unit_bytes
    return num_bytes // prices.unit_bytes * unit_ps + rest


def resize_ps(copied_bytes: int, prices: Prices) -> int:
    """A new storage, and the live slots copied to it."""
    return prices.storage_ps + moved_ps(copied_bytes, prices.copy_ps, prices)


def prices_of(
    hardware: Hardware,
    geometry: KVGeometry,
    weights: ModelParameters | None,
    num_rows: int = 1,
    held: KVGeometry | None = None,
) -> Prices:
    """The prices of a model on an accelerator.

    Args:
        hardware: its figures.
        geometry: what the layers hold and see that a token passes.
        weights: the model's parameters; None prices the cache alone.
        num_rows: rows of every sequence's batch.
        held: what those of one accelerator hold, where a token passes several, which copy it at once; None: all.
    Raises:
        ValueError: a price is beyond what is counted, or layers see too many different stretches.
    """
    memory_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency
    held = held or geometry
    rate = min(1.0, FULL_RATE_BYTES / DTYPE_BYTES[geometry.dtype])
    flops_per_s = hardware.flops_per_s * hardware.compute_efficiency * rate
    slot_bytes, state_bytes = (each * num_rows for each in (geometry.bytes_per_token, geometry.state_bytes))
    unit_bytes = num_rows * (held.bytes_per_token or held.state_bytes) or 1
    sights = _sights_of(geometry, memory_per_s / num_rows, flops_per_s / num_rows)
    kernels = CACHE_KERNELS if weights is None else MODEL_KERNELS
    return Prices(
        weights_ps=_ps(weights.num_bytes / memory_per_s) if weights else 0,
        active_ps=_ps(weights.active_bytes / memory_per_s) if weights else 0,
        token_ps=_ps(_products_s(hardware, weights, flops_per_s)) if weights else 0,
        write_ps=_ps(slot_bytes / memory_per_s),
        state_ps=_ps(2 * state_bytes / memory_per_s) if state_bytes else 0,
        unit_bytes=unit_bytes,
        copy_ps=_ps(2 * unit_bytes / memory_per_s),
        swap_ps=_ps(unit_bytes / (hardware.host_bytes_per_s * hardware.host_efficiency)),
        storage_ps=_ps(held.num_tensors * (hardware.allocation_s + hardware.launch_s)),
        transfer_ps=_ps(hardware.transfer_s),
        step_ps=_ps(hardware.step_s * (weights is not None) + kernels * geometry.num_layers * hardware.launch_s),
        num_sights=len(sights),
        sights=sights,
    )


def _products_s(hardware: Hardware, weights: ModelParameters, flops_per_s: float) -> float:
    """A token's products with the parameters that it needs, in seconds: those of floats of 8 and 4 bits at such rates,
    where the machine states them, and all else as what is computed in."""
    spent_s, num_left = 0.0, weights.num_active_parameters
    rates = {"fp8": hardware.flops_8bit_per_s, "nvfp4": hardware.flops_4bit_per_s}
    for dtype, num_parameters in weights.active_by_dtype:
        rate = rates.get(dtype)
        if rate is not None:
            spent_s += 2 * num_parameters / (rate * hardware.compute_efficiency)
            num_left -= num_parameters
    return spent_s + 2 * num_left / flops_per_s


def _sights_of(geometry: KVGeometry, memory_per_s: float, flops_per_s: float) -> tuple[Sight, ...]:
    """How far layers see, each length once, and what that takes."""
    alike: dict[tuple[int, int], list[LayerGroup]] = {}
    for group in geometry.groups:
        if group.num_heads:
            reach = UNBOUNDED if group.tokens is None else group.tokens
            alike.setdefault((reach, int(group.kind == CHUNKED)), []).append(group)
    if len(alike) > MOST_SIGHTS:
        raise ValueError(
            f"{geometry.called}: windows and chunks of at most {MOST_SIGHTS} different lengths are priced, got "
            f"{len(alike)}"
        )
    sights = []
    for (reach, is_chunk), groups in alike.items():
        pair_s = sum(group.pair_flops for group in groups) / flops_per_s
        read_s = sum(group.token_bytes for group in groups) / memory_per_s
        sights.append(Sight(reach, is_chunk, _ps(max(read_s, pair_s)), _ps(pair_s)))
    return tuple(sights)


def _ps(seconds: float) -> int:
    if not seconds * PS_PER_S < MOST_PS:
        raise ValueError(
            f"by the machine's figures a piece of work takes {seconds:.4g} s; at most {MOST_PS / PS_PER_S:.4g} s"
        )
    return max(round(seconds * PS_PER_S), 1)
