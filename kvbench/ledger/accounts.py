"""What the ledger knows of each sequence: slots and bytes of its areas."""

from dataclasses import dataclass, field, replace

from kvbench.area import STAGING_TOKENS, Area, Holes, Packed, num_staging_buffers
from kvbench.geometry import TRACK_BYTES, KVGeometry


@dataclass(frozen=True, slots=True)
class AreaCost:
    """An area's bytes, for a batch of so many rows.

    Args:
        area: the area.
        unit_tokens: slots that bytes are exact for: a block, a chunk's group, or one.
        unit_bytes: their bytes over all layers, rows and tracks.
        tensor_bytes: those of them in the largest tensor, as the model gives it; a resize replaces one tensor after
            another, and packed areas are never resized.
    """

    area: Area
    unit_tokens: int
    unit_bytes: int
    tensor_bytes: int

    def bytes_of(self, num_tokens: int) -> int:
        """Bytes of so many slots; rounded down where a group's bytes do not divide."""
        return num_tokens * self.unit_bytes // self.unit_tokens

    def largest_bytes(self, num_tokens: int) -> int:
        """Bytes of so many slots in the largest tensor."""
        return num_tokens * self.tensor_bytes // self.unit_tokens


def area_cost(area: Area, geometry: KVGeometry, num_rows: int) -> AreaCost:
    """An area's bytes under a geometry.

    Raises:
        ValueError: the geometry does not go into the area's format.
    """
    tracks = geometry.track_bytes_per_token * area.num_tracks
    largest = max(geometry.tensor_bytes_per_token, min(tracks, TRACK_BYTES * geometry.num_kv_heads)) * num_rows
    match area.format:
        case Packed(bits, group, keys_per):
            unit = geometry.packed_bytes(group, bits, group, keys_per) + group * tracks
            return AreaCost(area, group, unit * num_rows, group * largest)
        case _:
            return AreaCost(area, 1, (geometry.bytes_per_token + tracks) * num_rows, largest)


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

    def copy(self) -> "Account":
        """A copy that can be changed alone."""
        return Account({name: held.copy() for name, held in self.holdings.items()}, self.num_seen, self.num_altered)


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
    """

    num_resizes: int = 0
    copied_bytes: int = 0
    moved_bytes: int = 0
    requested_bytes: int = 0
    transient_bytes: int = 0
    peak_bytes: int = 0


NO_RECEIPT = Receipt()
