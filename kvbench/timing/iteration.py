"""How long an iteration's work takes by kind of work, in seconds: of as many tokens or sequences as there may be."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.model.groups import CHUNKED, LATENT, LayerGroup
from kvbench.model.hardware import Hardware
from kvbench.timing.kernels import Kernels, kernels_of
from kvbench.timing.prices import MOST_SIGHTS, NODES, PARTS, SIZES, UNBOUNDED
from kvbench.timing.rooflines import Seconds
from kvbench.timing.shapes import AttentionShape
from kvbench.timing.work import Row, Work

USUAL_BATCH = 64
"""Sequences of a decode step by which layers' slots are weighed against each other."""
MOST_UNITS = 32
"""Of a slot in the layers that take least for it."""
NEAR = 1e-3


class Seen(NamedTuple):
    """Layers that see equally far: how far, whether of the newest chunk, and their groups."""

    reach: int
    is_chunk: int
    groups: tuple[LayerGroup, ...]


class Steps(NamedTuple):
    """Seconds of decode steps' attention, by sequences: whatever they see, and of each unit that they see."""

    fixed: Seconds
    unit: Seconds


class Iteration(NamedTuple):
    """Seconds of an iteration's kinds of work.

    Args:
        tokens: by kind of work, and by tokens from 0 to SIZES.
        sequences: by kind of work, and by sequences.
        decode: attention of decode steps.
        mixed: the same beside prompts.
        weights: by sight, units that a slot is.
        prompts: attention of an iteration's prompts, whatever they have.
        pairs: by sight, and by NODES of new tokens and of those before them: attention of a pair.
    """

    tokens: Mapping[str, Seconds]
    sequences: Mapping[str, Seconds]
    decode: Steps
    mixed: Steps
    weights: tuple[int, ...]
    prompts: float
    pairs: tuple[Seconds, ...]


def sights_of(work: Work) -> list[Seen]:
    """How far layers see, each length once.

    Raises:
        ValueError: they are too many.
    """
    alike: dict[tuple[int, int], list[LayerGroup]] = {}
    for group in work.geometry.groups:
        if group.num_heads:
            reach = UNBOUNDED if group.tokens is None else group.tokens
            alike.setdefault((reach, int(group.kind == CHUNKED)), []).append(group)
    if len(alike) > MOST_SIGHTS:
        raise ValueError(
            f"{work.geometry.called}: windows and chunks of at most {MOST_SIGHTS} different lengths are priced, got "
            f"{len(alike)}"
        )
    return [Seen(reach, is_chunk, tuple(groups)) for (reach, is_chunk), groups in alike.items()]


def iteration_of(hardware: Hardware, work: Work) -> Iteration:
    """Seconds of an iteration's kinds of work on an accelerator; kept, for who asks again."""
    return _iteration(_Known(hardware), work)


def spent_s(iteration: Iteration, num_tokens: NDArray[np.int64], num_sequences: NDArray[np.int64]) -> dict[str, float]:
    """Seconds of many iterations together by kind of work; attention left out.

    Args:
        iteration: of a model on an accelerator.
        num_tokens: of each, all sequences together.
        num_sequences: of each, those that get logits.
    """
    found: dict[str, float] = {}
    for numbers, kinds in ((num_tokens, iteration.tokens), (num_sequences, iteration.sequences)):
        for kind, seconds in kinds.items():
            found[kind] = found.get(kind, 0.0) + float(np.interp(numbers, np.arange(seconds.size), seconds).sum())
    return found


class _Known:
    """A machine, known by its figures, some of which are mappings."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware, self._figures = hardware, repr(hardware)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self._figures == other._figures

    def __hash__(self) -> int:
        return hash(self._figures)


@lru_cache(maxsize=32)
def _iteration(known: _Known, work: Work) -> Iteration:
    kernels, number = kernels_of(known.hardware), np.arange(SIZES + 1.0)
    bytes_per_s = known.hardware.memory_bytes_per_s * known.hardware.memory_efficiency
    sights = sights_of(work)
    alone, slots = _slots_s(kernels.decode_terms, work, sights)
    beside, slots_beside = _slots_s(kernels.mixed_terms, work, sights)
    floors = [
        each.num_layers * float(kernels.prefill_s(0, 0, shape, 0))
        for seen in sights
        for each, shape in _shapes(work, seen)
    ]
    # Prompts give back a part of a step's floor, and less than they take.
    beside = np.maximum(beside, alone - sum(floors) / 2)
    weights = _weights([slot[USUAL_BATCH] for slot in slots])
    units = max(sum(weights), 1)
    return Iteration(
        tokens=_row_s(kernels, work.tokens, number),
        sequences=_row_s(kernels, work.sequences, number),
        decode=Steps(alone, sum(slots, np.zeros(SIZES + 1)) / units),
        mixed=Steps(beside, sum(slots_beside, np.zeros(SIZES + 1)) / units),
        weights=weights,
        prompts=sum(floors),
        pairs=tuple(_pairs_s(kernels, work, sight, bytes_per_s) for sight in sights),
    )


def _slots_s(
    terms: Callable[[Seconds, AttentionShape], tuple[Seconds, Seconds]], work: Work, sights: Sequence[Seen]
) -> tuple[Seconds, list[Seconds]]:
    """Attention of decode steps by sequences: whatever they see, and, by sight, of each slot that they see."""
    number, fixed, slots = np.arange(SIZES + 1.0), np.zeros(SIZES + 1), []
    for sight in sights:
        slot = np.zeros(SIZES + 1)
        for group, shape in _shapes(work, sight):
            fixed_s, token_s = terms(np.maximum(number, 1), shape)
            fixed += group.num_layers * fixed_s
            slot += group.num_layers * token_s * _held_share(group)
        slots.append(slot)
    fixed[0] = 0.0
    return fixed, slots


def _row_s(kernels: Kernels, row: Row, number: NDArray[np.float64]) -> dict[str, Seconds]:
    """Seconds of a row of kernels by kind; none for nothing."""
    found = {kind: np.zeros(number.size) for kind in ("products", "experts", "traffic", "exchange")}
    some = np.maximum(number, 1)
    for product in row.products:
        shape = product.outputs, product.inputs
        found["products"] += product.times * kernels.product_s(some, *shape, product.dtype, converts=False)
    for routed in row.experts:
        found["experts"] += routed.times * kernels.experts_s(some * routed.sources, routed.shape)
    for moved in row.moved:
        found["traffic"] += moved.times * kernels.traffic_s(some * moved.num_bytes)
    for sent in row.exchanged:
        found["exchange"] += sent.times * kernels.exchange_s(sent.kind, some * sent.num_bytes, sent.ranks)
    for seconds in found.values():
        seconds[0] = 0.0
    return found


def _shapes(work: Work, sight: Seen) -> list[tuple[LayerGroup, AttentionShape]]:
    return [
        (
            group,
            AttentionShape(
                num_heads=group.num_heads,
                num_kv_heads=group.num_kv_heads,
                key_dim=group.key_dim,
                value_dim=0 if group.kind == LATENT else group.value_dim,
                dtype=work.geometry.dtype,
                kv_dtype=group.dtype,
                window=group.tokens or 0,
            ),
        )
        for group in sight.groups
        if group.holds_tokens
    ]


def _held_share(group: LayerGroup) -> float:
    """Bytes of a slot with all that lies beside K and V: scales, and an indexer's keys."""
    beside = group.index_bytes + group.scales_per_head * group.num_kv_heads * 4
    return group.layer_token_bytes / (group.layer_token_bytes - beside)


def _weights(slot_s: list[float]) -> tuple[int, ...]:
    """Whole units that slots of some layers are, nearly in the ratio of what they take."""
    least = min((seconds for seconds in slot_s if seconds > 0), default=0.0)
    if not least:
        return (0,) * len(slot_s)
    exact = np.arange(1, MOST_UNITS + 1)[:, None] * np.array(slot_s) / least
    whole = np.round(exact)
    lost = np.max(np.abs(whole / np.maximum(exact, 1e-9) - 1) * (exact > 0), axis=1)
    best = int(np.argmax(lost <= max(float(lost.min()), NEAR)))
    return tuple(int(each) for each in whole[best])


def node_tokens() -> NDArray[np.int64]:
    """The length of each node: see `prices.node_of`."""
    nodes = np.arange(NODES)
    shift = np.maximum(nodes // PARTS - 1, 0)
    lengths: NDArray[np.int64] = (nodes - PARTS * shift) << shift
    return lengths


def _pairs_s(kernels: Kernels, work: Work, sight: Seen, bytes_per_s: float) -> Seconds:
    """Seconds of a pair of query and key by new tokens and those before them, all layers of a sight."""
    tokens = node_tokens()
    new, before = np.maximum(tokens, 1)[:, None], tokens[None]
    pairs = new * before + new * (new + 1) / 2
    if sight.reach < UNBOUNDED:
        over, hidden = np.maximum(new + before - sight.reach, 0), np.maximum(before - sight.reach, 0)
        pairs = pairs - (over * (over + 1) - hidden * (hidden + 1)) / 2
    found = np.zeros((NODES, NODES))
    for group, shape in _shapes(work, sight):
        # Kernels write K and V to the cache, which is a price by itself; what a call takes at least is one for all.
        beside_s = new * group.layer_token_bytes / bytes_per_s + kernels.prefill_s(0, 0, shape, 0)
        found += group.num_layers * np.maximum(kernels.prefill_s(new, before, shape) - beside_s, 0.0) / pairs
    return found
