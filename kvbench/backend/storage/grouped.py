"""A sequence whose layers are of several groups: a chain of areas for each, and what layers with a state hold."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import gcd

import torch
from torch import Tensor

from kvbench.backend.background import Worker
from kvbench.backend.storage.areas import Areas
from kvbench.backend.storage.base import Shape
from kvbench.backend.storage.memory import Memory
from kvbench.backend.storage.sequence import SequenceStore
from kvbench.ledger.costs import covered
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LATENT, LayerGroup, StateTensor
from kvbench.plan.area import DEVICE, Area, Blocks, num_staging_buffers
from kvbench.plan.ops import MAIN, Append, Fork, Operation, Reserve, Reuse, Truncate


class GroupedAreas:
    """What all sequences share: areas for each group of layers that holds tokens; workers and staging buffers are one.

    Layers are counted over all groups that hold tokens, in the model's order.

    Args:
        areas: how each sequence lives, in every group.
        geometry: the groups.
        num_rows: rows of the batch.
        device: where attention runs.
    Attributes:
        groups: those that hold tokens, of the least bytes a tensor first: so are they replaced where they grow.
        layers: of each, the numbers of its layers.
        places: of each layer, its group, and its number there.
    """

    def __init__(self, areas: tuple[Area, ...], geometry: KVGeometry, num_rows: int, device: torch.device) -> None:
        self.groups = sorted(
            (group for group in geometry.groups if group.holds_tokens), key=lambda group: group.tensor_bytes_per_token
        )
        num_sharing = 1
        if any(area.layers is None and _frees_windows(area) for area in areas) and any(
            group.tokens for group in self.groups
        ):
            self.groups = _alike(self.groups, geometry)
            num_sharing = len(self.groups)
        order = sorted(layer for group in self.groups for layer in group.layers)
        self.layers = [[order.index(layer) for layer in group.layers] for group in self.groups]
        self.places = [
            next((at, own.index(number)) for at, own in enumerate(self.layers) if number in own)
            for number in range(len(order))
        ]
        self._states = [group for group in geometry.groups if group.state]
        self._num_rows = num_rows
        self._memory = Memory(DEVICE, device)
        shapes = tuple(Shape.of_group(group, num_rows, device) for group in self.groups)
        own = [tuple(area for area in areas if _is_of(area, group, geometry)) for group in self.groups]
        num_buffers = num_staging_buffers(areas)
        first = Areas(own[0], shapes[0], staged=shapes, num_sharing=num_sharing, num_buffers=num_buffers)
        rest = zip(own[1:], shapes[1:], strict=True)
        self.areas = [first, *(Areas(each, shape, beside=first) for each, shape in rest)]

    @property
    def background(self) -> Worker:
        """What works beside the steps."""
        return self.areas[0].background

    def states(self) -> list[Tensor]:
        """New states of a sequence, a tensor each."""
        return [
            new_state(tensor, self._num_rows, self._memory)
            for group in self._states
            for _ in group.layers
            for tensor in group.state
        ]

    def select_rows(self, num_rows: int) -> None:
        """States that come are of so many rows."""
        self._num_rows = num_rows

    def rows(self, states: Sequence[Tensor], index: Tensor) -> list[Tensor]:
        """Chosen rows of states."""
        return [self._memory.rows(state, index) for state in states]

    def drop(self, key: Hashable) -> None:
        """See `Areas.drop`."""
        for areas in self.areas:
            areas.drop(key)

    def close(self) -> None:
        """Wait for background work, and end the workers."""
        for areas in reversed(self.areas):
            areas.close()


def new_state(tensor: StateTensor, num_rows: int, memory: Memory) -> Tensor:
    """Zeros, [num_rows, rows, columns], for a layer's state before the first token."""
    return memory.empty((num_rows, tensor.rows, tensor.columns), getattr(torch, tensor.dtype)).zero_()


def are_alike(groups: Sequence[LayerGroup]) -> bool:
    """Whether their layers hold the same of a token, so that a block of one pool is any layer's."""
    return len({(group.kind == LATENT, group.num_kv_heads, group.key_dim, group.value_dim) for group in groups}) <= 1


def _alike(groups: list[LayerGroup], geometry: KVGeometry) -> list[LayerGroup]:
    """The groups in parts of as many layers each, so that a block of one pool is any part's.

    Raises:
        ValueError: layers hold other bytes of a token.
    """
    if not are_alike(groups):
        raise ValueError(
            f"blocks of one pool are of layers that hold K and V alike: window_blocks is keep, or windows are beside "
            f"blocks (Limits.has_own_pools); got free, and {geometry.called} has "
            f"{geometry.kinds}"
        )
    size = gcd(*(group.num_layers for group in groups))
    return [
        replace(group, layers=group.layers[first : first + size])
        for group in groups
        for first in range(0, group.num_layers, size)
    ]


def _frees_windows(area: Area) -> bool:
    return isinstance(area.layout, Blocks) and area.layout.frees_windows


def _is_of(area: Area, group: LayerGroup, geometry: KVGeometry) -> bool:
    return any(set(group.layers) <= set(whole.layers) for _, whole in covered(area, geometry))


class GroupedSequence(SequenceStore):
    """One sequence: a sequence's store for each group of layers, and its states.

    States are held, not computed: a step reads and writes them whole.

    Args:
        shared: what it shares with the others.
    """

    __slots__ = ("_capacities", "grouped", "parts", "states")

    def __init__(self, shared: GroupedAreas) -> None:
        super().__init__(shared.areas[0])
        self.grouped = shared
        self.parts = [SequenceStore(areas) for areas in shared.areas]
        self.score = next((part.score for part in self.parts if part.score is not None), None)
        self.states: list[Tensor] = []
        self._capacities: dict[str, int] = {}

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, area: str = MAIN) -> None:
        """Write new tokens, a layer each over all groups that hold them; of latents, keys alone are read."""
        for part, layers in zip(self.parts, self.grouped.layers, strict=True):
            if area in part.area_names:
                part.append([keys[layer] for layer in layers], [values[layer] for layer in layers], num_tokens, area)
        if area not in self.parts[0].area_names:
            return
        self.num_seen += num_tokens
        for state in self.states:
            state.mul_(1)

    def carry_out(self, op: Operation, keys: list[Tensor], values: list[Tensor]) -> None:
        """Carry out an operation in all groups, one after the other."""
        parts = self.parts
        match op:
            case Append():
                self.append(keys, values, op.num_tokens, op.area)
                return
            case Reserve(_, num_tokens, area):
                if num_tokens < self._capacities.get(area, 0):
                    parts = parts[::-1]
                self._capacities[area] = num_tokens
                for areas in self.grouped.areas:
                    areas.begin()
                if not self.states:
                    self.states = self.grouped.states()
            case Truncate(_, num_tokens):
                self.num_seen -= num_tokens
        for part in parts:
            part.carry_out(op, keys, values)
        if isinstance(op, Reuse):
            self.num_seen = max(part.num_seen for part in parts)

    def land(self) -> None:
        """See `SequenceStore.land`."""
        for part in self.parts:
            part.land()

    def select_rows(self, index: Tensor) -> None:
        """See `SequenceStore.select_rows`."""
        for part in self.parts:
            part.select_rows(index)
        self.grouped.select_rows(len(index))
        self.states = self.grouped.rows(self.states, index)

    def fork(self, op: Fork, new: SequenceStore) -> None:
        """See `SequenceStore.fork`; states are copied."""
        assert isinstance(new, GroupedSequence)
        for part, own in zip(self.parts, new.parts, strict=True):
            part.fork(op, own)
        new.num_seen = op.num_tokens
        new.states = [state.clone() for state in self.states]

    @property
    def num_held(self) -> int:
        """Tokens in all areas, of the group that holds most of them; of windows only where there is no other."""
        return max(part.num_held for part in [each for each in self.parts if each.window is None] or self.parts)

    @property
    def is_growing(self) -> bool:
        """Whether a resize is under way in the background."""
        return any(part.is_growing for part in self.parts)

    def failure(self, seq: int, slot_bytes: int) -> Exception | None:
        """See `SequenceStore.failure`."""
        errors = (part.failure(seq, slot_bytes) for part in self.parts)
        return next((error for error in errors if error is not None), None)

    def release(self, seq: int, slot_bytes: int) -> Exception | None:
        """See `SequenceStore.release`."""
        errors = [part.release(seq, slot_bytes) for part in self.parts]
        self.states = []
        return next((error for error in errors if error is not None), None)


def check_groups(geometry: KVGeometry) -> None:
    """Refuse groups that are not held on tensors here.

    Raises:
        ValueError: a group holds more than K and V or latents, in another dtype than the model computes in, or none
            holds tokens.
    """
    for group in geometry.groups:
        if group.holds_tokens and (group.dtype != geometry.dtype or group.index_bytes or group.scales_per_head):
            further = " with an indexer's keys" * bool(group.index_bytes) + " with scales" * bool(group.scales_per_head)
            raise ValueError(
                f"it holds K and V, or latents, in the dtype that is computed in, {geometry.dtype}; {geometry.called} "
                f"has {group.where} in {group.dtype}{further}: use backend=modelled"
            )
    if not any(group.holds_tokens for group in geometry.groups):
        raise ValueError(f"it measures layers that hold tokens; {geometry.called} has {geometry.kinds}")
