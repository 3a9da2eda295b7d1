"""What the ledger knows of each sequence: slots and bytes of its areas."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kvbench.model.geometry import TRACK_BYTES, KVGeometry
from kvbench.plan.area import (
    DEVICE,
    STAGING_TOKENS,
    Area,
    Blocks,
    Chunks,
    Contiguous,
    Holes,
    Native,
    Packed,
    num_staging_buffers,
)
from kvbench.plan.ops import Operation


@dataclass(frozen=True, slots=True)
class AreaCost:
    """An area's bytes, for a batch of so many rows.

    A layer with a sliding window holds the slots of the last tokens only, and reuses them from the oldest on. Once
    there are as many as its window has, it neither grows nor moves.

    Args:
        area: the area.
        unit_tokens: slots that bytes are exact for: a block, a chunk's group, or one.
        unit_bytes: their bytes over all layers, rows and tracks.
        tensor_bytes: those of them in the largest tensor, as the model gives it; a resize replaces one tensor after
            another, and packed areas are never resized.
        window_tokens: slots that layers with a sliding window hold at most.
        window_bytes: a slot's bytes in those layers; 0 where every layer holds all slots.
    """

    area: Area
    unit_tokens: int
    unit_bytes: int
    tensor_bytes: int
    window_tokens: int = 0
    window_bytes: int = 0

    def bytes_of(self, num_tokens: int) -> int:
        """Bytes of so many slots; rounded down where a group's bytes do not divide."""
        num_bytes = num_tokens * self.unit_bytes // self.unit_tokens
        if self.window_bytes and num_tokens > self.window_tokens:
            num_bytes -= (num_tokens - self.window_tokens) * self.window_bytes
        return num_bytes

    def full_bytes(self, num_tokens: int) -> int:
        """Those of them in layers that hold all slots."""
        return num_tokens * (self.unit_bytes - self.window_bytes) // self.unit_tokens

    def replaced_bytes(self, num_tokens: int, old_capacity: int, new_capacity: int) -> int:
        """Those of them in tensors that a resize replaces: layers that hold their whole window keep theirs."""
        if self.window_bytes and min(old_capacity, new_capacity) >= self.window_tokens:
            return self.full_bytes(num_tokens)
        return self.bytes_of(num_tokens)

    def slots_in(self, num_bytes: int, beside: int = 0) -> int:
        """The most slots that so many bytes hold, at least none.

        Args:
            num_bytes: what there is; below 0 where too much is held already.
            beside: fewer slots of the same sequence, which stay; layers that hold their whole window there have it.
        """
        slots = num_bytes * self.unit_tokens // self.unit_bytes
        if self.window_bytes:
            full_bytes = self.unit_bytes - self.window_bytes
            if beside >= self.window_tokens:
                slots = num_bytes // full_bytes
            elif slots >= self.window_tokens:
                slots = (num_bytes - self.window_tokens * self.window_bytes) // full_bytes
        return max(slots, 0)

    def largest_bytes(self, num_tokens: int) -> int:
        """Bytes of so many slots in the largest tensor."""
        return num_tokens * self.tensor_bytes // self.unit_tokens


def area_cost(area: Area, geometry: KVGeometry, num_rows: int) -> AreaCost:
    """An area's bytes under a geometry.

    Raises:
        ValueError: the geometry does not go into the area's format or layout.
    """
    if geometry.num_window_layers and not isinstance(area.layout, Blocks):
        return _windowed_cost(area, geometry, num_rows)
    tracks = geometry.track_bytes_per_token * area.num_tracks
    largest = max(geometry.tensor_bytes_per_token, min(tracks, TRACK_BYTES * geometry.num_kv_heads)) * num_rows
    match area.format:
        case Packed(bits, group, keys_per):
            unit = geometry.packed_bytes(group, bits, group, keys_per) + group * tracks
            return AreaCost(area, group, unit * num_rows, group * largest)
        case _:
            return AreaCost(area, 1, (geometry.bytes_per_token + tracks) * num_rows, largest)


def _windowed_cost(area: Area, geometry: KVGeometry, num_rows: int) -> AreaCost:
    """Bytes where some layers hold the last tokens only; blocks hold every layer alike, and are none of this."""
    fits = isinstance(area.layout, Contiguous | Chunks) and isinstance(area.format, Native)
    if not fits or area.num_tracks:
        raise ValueError(
            f"area {area.name}: sliding-window layers hold native slots without positions or scores, contiguous, in "
            f"chunks or in blocks; got {area.format} in {area.layout} with {area.num_tracks} figures beside each slot"
        )
    return AreaCost(
        area,
        1,
        geometry.bytes_per_token * num_rows,
        geometry.tensor_bytes_per_token * num_rows,
        geometry.window_tokens or 0,
        geometry.window_bytes_per_token * num_rows,
    )


def area_costs(areas: tuple[Area, ...], geometry: KVGeometry, num_rows: int) -> dict[str, AreaCost]:
    """The bytes of areas by name.

    Raises:
        ValueError: the geometry does not go into an area's format or layout, or not into so many areas.
    """
    if geometry.num_window_layers and len(areas) > 1 and not all(isinstance(area.layout, Blocks) for area in areas):
        raise ValueError(
            "sliding-window layers hold the last tokens of a single area, or slots in blocks; got areas "
            f"{', '.join(area.name for area in areas)}"
        )
    return {area.name: area_cost(area, geometry, num_rows) for area in areas}


def workspace_bytes(areas: tuple[Area, ...], geometry: KVGeometry, num_rows: int) -> int:
    """Bytes of the staging buffers that reading these areas takes: K and V of one layer."""
    of_layer = geometry.bytes_per_token // geometry.num_layers
    return num_staging_buffers(areas) * STAGING_TOKENS * of_layer * num_rows


@dataclass(slots=True)
class Holding:
    """What a sequence holds of one area.

    Args:
        cost: the area and its bytes.
        num_used: slots that hold tokens.
        capacity: slots allocated.
        offset: slots at the front whose tokens were evicted from a chunk that still holds others.
        next_capacity: what a background resize will have made it; 0 without one.
        num_copied: slots that this resize copies beside the steps; those in use beyond are copied when it is settled.
        leaving: slots that a background move is taking away.
        arriving: slots that a background move is filling.
        blocks: its blocks, as numbers that are used once.
        is_private: whether the next token can be written as it is: no other sequence reads the block that it goes to,
            and nothing is arriving before it.
    """

    cost: AreaCost
    num_used: int = 0
    capacity: int = 0
    offset: int = 0
    next_capacity: int = 0
    num_copied: int = 0
    leaving: int = 0
    arriving: int = 0
    blocks: list[int] = field(default_factory=list)
    is_private: bool = True

    def copy(self) -> "Holding":
        """A copy that can be changed alone."""
        return replace(self, blocks=list(self.blocks))

    @property
    def num_bytes(self) -> int:
        """Bytes allocated, those of a coming resize included."""
        held_bytes = self.cost.bytes_of(self.capacity)
        if self.next_capacity:
            held_bytes += self.cost.replaced_bytes(self.next_capacity, self.capacity, self.next_capacity)
        return held_bytes

    @property
    def room(self) -> int:
        """Tokens that can be appended."""
        return self.capacity - self.offset - self.num_used

    @property
    def busy(self) -> bool:
        """Whether background work is under way."""
        return bool(self.next_capacity or self.leaving or self.arriving)

    @property
    def in_order(self) -> bool:
        """Whether slots lie in the order of their tokens."""
        return not isinstance(self.cost.area.layout, Holes)


@dataclass(slots=True)
class Account:
    """What one sequence holds.

    Args:
        holdings: by area, oldest tokens first.
        num_seen: tokens appended so far, less those truncated.
        num_altered: tokens that attention no longer reads as they were: evicted, moved out of its sight, or rounded.
    """

    holdings: dict[str, Holding]
    num_seen: int = 0
    num_altered: int = 0

    @property
    def num_attended(self) -> int:
        """Tokens that attention reads."""
        num_attended = 0
        for held in self.holdings.values():
            if held.cost.area.attended:
                num_attended += held.num_used - held.arriving
        return num_attended

    @property
    def device_slots(self) -> tuple[int, int, int]:
        """Slots in use and allocated on the device, those of a coming resize included, and their bytes."""
        num_used = capacity = num_bytes = 0
        for held in self.holdings.values():
            if held.cost.area.tier == DEVICE:
                num_used += held.num_used
                capacity += held.capacity + held.next_capacity
                num_bytes += held.num_bytes
        return num_used, capacity, num_bytes

    def copy(self) -> "Account":
        """A copy that can be changed alone."""
        return Account({name: held.copy() for name, held in self.holdings.items()}, self.num_seen, self.num_altered)


class Posting(NamedTuple):
    """One operation's part of a receipt.

    Args:
        op: the operation.
        num_before: slots before it: of a reserve those allocated, of an eviction those in use.
        capacity: slots allocated after it: of an eviction or a move where it takes from, of settling where a resize was
            put in place; else 0.
        copied_bytes: as in the receipt, as are the next two.
        moved_bytes: bytes written to another area.
        requested_bytes: bytes of new allocations.
        holdings: of a release, what it gives back.
    """

    op: Operation
    num_before: int = 0
    capacity: int = 0
    copied_bytes: int = 0
    moved_bytes: int = 0
    requested_bytes: int = 0
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a booked plan costs, in bytes and counts.

    Args:
        num_resizes: storages replaced by larger or smaller ones.
        copied_bytes: live bytes copied within an area: by resizes, evictions and blocks made private.
        moved_bytes: bytes written to another area.
        requested_bytes: bytes of new allocations.
        transient_bytes: device bytes held during the plan beyond what was held both before and after it.
        peak_bytes: the most device bytes held during the plan, over all sequences.
        postings: what each operation cost; none where a plan moved nothing.
    """

    num_resizes: int = 0
    copied_bytes: int = 0
    moved_bytes: int = 0
    requested_bytes: int = 0
    transient_bytes: int = 0
    peak_bytes: int = 0
    postings: tuple[Posting, ...] = ()


NO_RECEIPT = Receipt()
