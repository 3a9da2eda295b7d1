"""Which tensors a sequence's areas are made of: allocated and freed in an allocator's model as they are on a device."""

from dataclasses import dataclass, field
from typing import Protocol

from kvbench.ledger import AreaCost
from kvbench.ledger.accounts import Account, Holding
from kvbench.model.geometry import TRACK_BYTES, KVGeometry
from kvbench.plan.area import DEVICE, STAGING_TOKENS, Blocks, Chunks, Packed, num_staging_buffers


class Allocator(Protocol):
    """Hands out device memory."""

    def allocate(self, num_bytes: int) -> int:
        """Memory of so many bytes, by a handle."""
        ...

    def free(self, handle: int) -> None:
        """Give it back."""
        ...


@dataclass(slots=True)
class _Held:
    """A sequence's tensors of one area: of contiguous slots one storage, of chunks one a chunk, each a list of handles.

    `coming` are those of a background resize.
    """

    capacity: int = 0
    storages: list[list[int]] = field(default_factory=list)
    coming: list[int] = field(default_factory=list)


class Storages:
    """The device tensors of all sequences.

    A contiguous area has a tensor each for K and V (and for every figure beside a slot) of a layer, replaced one after
    another when it is resized; a chunk has the same; a pool of blocks and staging buffers are there from the start. Of
    packed slots, all that a layer's chunk has for keys counts as one tensor, and so for values.

    Args:
        allocator: the model that hands memory out.
        costs: the areas and their bytes, by name.
        geometry: the shape of a token's K and V.
        num_rows: rows of every sequence's batch.
    """

    def __init__(self, allocator: Allocator, costs: dict[str, AreaCost], geometry: KVGeometry, num_rows: int) -> None:
        self._allocator = allocator
        on_device = {name: cost for name, cost in costs.items() if cost.area.tier == DEVICE}
        self._tensor_bytes = {name: _tensor_bytes(cost, geometry, num_rows) for name, cost in on_device.items()}
        self._layouts = {name: cost.area.layout for name, cost in on_device.items()}
        self._held: dict[tuple[int, str], _Held] = {}
        of_layer = STAGING_TOKENS * geometry.tensor_bytes_per_token * num_rows
        for _ in range(2 * num_staging_buffers(tuple(cost.area for cost in costs.values()))):
            allocator.allocate(of_layer)
        for name, layout in self._layouts.items():
            if isinstance(layout, Blocks):
                self._new(name, layout.pool)

    def follow(self, seq: int, account: Account | None, evicts: bool = False) -> None:
        """Make a sequence's tensors what its account says.

        Args:
            seq: the sequence.
            account: what it holds now; None where it was released.
            evicts: whether chunks that went are the oldest, not the newest.
        """
        for name, layout in self._layouts.items():
            if isinstance(layout, Blocks):
                continue
            own = self._held.setdefault((seq, name), _Held())
            holding = None if account is None else account.holdings[name]
            if isinstance(layout, Chunks):
                self._follow_chunks(own, name, layout.num_tokens, holding, evicts)
            else:
                self._follow_contiguous(own, name, holding)
            if account is None:
                del self._held[seq, name]

    def _follow_chunks(self, own: _Held, name: str, chunk_tokens: int, holding: Holding | None, evicts: bool) -> None:
        num_chunks = 0 if holding is None else holding.capacity // chunk_tokens
        while len(own.storages) > num_chunks:
            self._free(own.storages.pop(0 if evicts else -1))
        while len(own.storages) < num_chunks:
            own.storages.append(self._new(name, chunk_tokens))

    def _follow_contiguous(self, own: _Held, name: str, holding: Holding | None) -> None:
        capacity, next_capacity = (0, 0) if holding is None else (holding.capacity, holding.next_capacity)
        if own.coming and not next_capacity:  # settled, or released before that
            self._free(own.storages.pop() if own.storages else [])
            own.storages, own.coming, own.capacity = [own.coming], [], capacity
            if not capacity:
                self._free(own.storages.pop())
        elif next_capacity and not own.coming:
            own.coming = self._new(name, next_capacity)
        if own.capacity != capacity:
            olds = own.storages.pop() if own.storages else []
            own.storages = [self._replaced(name, olds, capacity)] if capacity else []
            if not capacity:
                self._free(olds)
            own.capacity = capacity

    def _replaced(self, name: str, olds: list[int], capacity: int) -> list[int]:
        """Tensor by tensor: the new one, then the old one back."""
        news = []
        for place, slot_bytes in enumerate(self._tensor_bytes[name]):
            news.append(self._allocator.allocate(round(slot_bytes * capacity)))
            if olds:
                self._allocator.free(olds[place])
        return news

    def _new(self, name: str, num_tokens: int) -> list[int]:
        return [self._allocator.allocate(round(slot_bytes * num_tokens)) for slot_bytes in self._tensor_bytes[name]]

    def _free(self, handles: list[int]) -> None:
        for handle in handles:
            self._allocator.free(handle)


def _tensor_bytes(cost: AreaCost, geometry: KVGeometry, num_rows: int) -> list[float]:
    """Bytes a slot of each tensor of an area, layer by layer."""
    if isinstance(cost.area.format, Packed):
        return [cost.unit_bytes / cost.unit_tokens / geometry.num_tensors] * geometry.num_tensors
    track: list[float] = [TRACK_BYTES * geometry.num_kv_heads * num_rows] * cost.area.num_tracks
    of_layer = geometry.num_tensors // geometry.num_layers
    return ([geometry.tensor_bytes_per_token * num_rows] * of_layer + track) * geometry.num_layers
