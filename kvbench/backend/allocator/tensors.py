"""Which tensors a sequence's areas are made of: allocated and freed in an allocator's model as they are on a device."""

from dataclasses import dataclass, field
from typing import Protocol

from kvbench.ledger import AreaCost, Posting
from kvbench.ledger.costs import held_as
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import TRACK_BYTES
from kvbench.plan.area import DEVICE, STAGING_TOKENS, Blocks, Chunks, Packed, num_staging_buffers
from kvbench.plan.ops import Keep, Move, Release, Reserve, Settle


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
        self._layouts = {
            name: cost.area.layout for name, cost in on_device.items() if not isinstance(cost.area.layout, Blocks)
        }
        self._held: dict[tuple[int, str], _Held] = {}
        of_layer = STAGING_TOKENS * geometry.tensor_bytes_per_token * num_rows
        for _ in range(2 * num_staging_buffers(tuple(cost.area for cost in costs.values()))):
            allocator.allocate(of_layer)
        for name, cost in on_device.items():
            if isinstance(cost.area.layout, Blocks):
                self._new(name, cost.area.layout.pool)

    def follow(self, posting: Posting) -> None:
        """Make a sequence's tensors what an operation makes of them."""
        match posting.op:
            case Reserve(seq, num_tokens, name, background) if name in self._layouts:
                own = self._held.setdefault((seq, name), _Held())
                if background:
                    own.coming = self._new(name, num_tokens)
                elif isinstance(layout := self._layouts[name], Chunks):
                    self._reserve_chunks(own, name, num_tokens, layout.num_tokens)
                elif num_tokens != posting.num_before:
                    self._resize(own, name, num_tokens)
            case Keep(seq, _, name) | Move(seq, name) if (seq, name) in self._held:
                layout, own = self._layouts[name], self._held[seq, name]
                while isinstance(layout, Chunks) and len(own.storages) > posting.capacity // layout.num_tokens:
                    self._free(own.storages.pop(0))
            case Settle(seq):
                for own in self._of(seq):
                    if own.coming:
                        self._free(own.storages.pop() if own.storages else [])
                        own.storages, own.coming = [own.coming], []
            case Release(seq):
                for own in self._of(seq):
                    for handles in (*own.storages, own.coming):
                        self._free(handles)
                for name in self._layouts:
                    self._held.pop((seq, name), None)

    def _of(self, seq: int) -> list[_Held]:
        return [self._held[seq, name] for name in self._layouts if (seq, name) in self._held]

    def _reserve_chunks(self, own: _Held, name: str, num_tokens: int, chunk_tokens: int) -> None:
        while len(own.storages) > num_tokens // chunk_tokens:
            self._free(own.storages.pop())
        while len(own.storages) < num_tokens // chunk_tokens:
            own.storages.append(self._new(name, chunk_tokens))

    def _resize(self, own: _Held, name: str, num_tokens: int) -> None:
        olds = own.storages.pop() if own.storages else []
        if num_tokens:
            own.storages = [self._replaced(name, olds, num_tokens)]
        else:
            self._free(olds)

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
    found: list[float] = []
    for group in held_as(cost.area, geometry).groups:
        track = [TRACK_BYTES * group.num_kv_heads * num_rows] * cost.area.num_tracks
        found += ([group.tensor_bytes_per_token * num_rows] * group.tensors_per_layer + track) * group.num_layers
    return found
