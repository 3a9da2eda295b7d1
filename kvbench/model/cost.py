"""What work costs on an accelerator, in whole picoseconds: many steps at once cost exactly what they cost one by one.

Plain functions of integers. The modelled backend calls them; the fleet simulation compiles them as they stand.
"""

from typing import NamedTuple

from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters

PS_PER_S = 10**12
PS_PER_NS = 1_000
MOST_PS = 2**60
"""A price, at most: 13 days."""
CACHE_KERNELS = 3
"""Launches a layer where the cache alone is priced: K and V written, attention."""
MODEL_KERNELS = 10
"""Launches a layer of a whole model: besides those, norms, projections and the feed-forward's parts."""
FULL_RATE_BYTES = 2
"""Bytes of a number that the peak rate of operations holds for; those with one of four bytes take twice as long."""


class Prices(NamedTuple):
    """Prices of a model on an accelerator, in picoseconds.

    Args:
        weights_ps: reading all parameters once.
        active_ps: reading those that a single token needs.
        token_ps: the floating-point operations of one token of one row outside attention.
        read_ps: attention of one query over one slot, all layers: its bytes or its operations, whichever take longer.
        pair_ps: the operations of one query with one key, all layers.
        write_ps: writing one token's K and V.
        copy_ps: copying one slot on the device.
        swap_ps: moving one slot to the host's memory, or back.
        storage_ps: allocating a cache's tensors, all layers.
        transfer_ps: beginning a transfer to another tier, or back.
        step_ps: what every iteration costs: launches, and the host.
    """

    weights_ps: int
    active_ps: int
    token_ps: int
    read_ps: int
    pair_ps: int
    write_ps: int
    copy_ps: int
    swap_ps: int
    storage_ps: int
    transfer_ps: int
    step_ps: int


def linear_ps(num_tokens: int, prices: Prices) -> int:
    """All but attention, for the tokens of all sequences together: weights are read once, or operations bound it."""
    if num_tokens == 0:
        return 0
    return max(min(prices.weights_ps, num_tokens * prices.active_ps), num_tokens * prices.token_ps)


def prefill_ps(num_new: int, num_before: int, prices: Prices) -> int:
    """Attention of new tokens over those before them and each other, and the writing of their K and V."""
    pairs = num_new * num_before + num_new * (num_new + 1) // 2
    return max(pairs * prices.pair_ps, (num_before + num_new) * prices.read_ps) + num_new * prices.write_ps


def decode_ps(num_steps: int, num_sequences: int, num_context: int, prices: Prices) -> int:
    """Attention and writing of so many decode steps of sequences in lock-step.

    Args:
        num_steps: steps, >= 0.
        num_sequences: sequences that each add a token a step.
        num_context: slots that all of them together read in the first of the steps, their new tokens included.
        prices: in picoseconds.
    """
    reads = num_steps * num_context + num_sequences * (num_steps * (num_steps - 1) // 2)
    return reads * prices.read_ps + num_steps * num_sequences * prices.write_ps


def resize_ps(num_live: int, prices: Prices) -> int:
    """A new storage, and the live slots copied to it."""
    return prices.storage_ps + num_live * prices.copy_ps


def prices_of(hardware: Hardware, geometry: KVGeometry, weights: ModelParameters | None, num_rows: int = 1) -> Prices:
    """The prices of a model on an accelerator.

    Args:
        hardware: its figures.
        geometry: bytes of a slot.
        weights: the model's parameters; None prices the cache alone.
        num_rows: rows of every sequence's batch.
    """
    memory_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency
    rate = min(1.0, FULL_RATE_BYTES / DTYPE_BYTES[geometry.dtype])
    flops_per_s = hardware.flops_per_s * hardware.compute_efficiency * rate
    slot_bytes = geometry.bytes_per_token * num_rows
    pair_s = geometry.pair_flops * num_rows / flops_per_s
    kernels = CACHE_KERNELS if weights is None else MODEL_KERNELS
    return Prices(
        weights_ps=_ps(weights.num_bytes / memory_per_s) if weights else 0,
        active_ps=_ps(weights.active_bytes / memory_per_s) if weights else 0,
        token_ps=_ps(2 * weights.num_active_parameters / flops_per_s) if weights else 0,
        read_ps=_ps(max(slot_bytes / memory_per_s, pair_s)),
        pair_ps=_ps(pair_s),
        write_ps=_ps(slot_bytes / memory_per_s),
        copy_ps=_ps(2 * slot_bytes / memory_per_s),
        swap_ps=_ps(slot_bytes / (hardware.host_bytes_per_s * hardware.host_efficiency)),
        storage_ps=_ps(geometry.num_tensors * (hardware.allocation_s + hardware.launch_s)),
        transfer_ps=_ps(hardware.transfer_s),
        step_ps=_ps(hardware.step_s * (weights is not None) + kernels * geometry.num_layers * hardware.launch_s),
    )


def _ps(seconds: float) -> int:
    if not seconds * PS_PER_S < MOST_PS:
        raise ValueError(
            f"by the machine's figures a piece of work takes {seconds:.4g} s; at most {MOST_PS / PS_PER_S:.4g} s"
        )
    return max(round(seconds * PS_PER_S), 1)
