"""An area's bytes, as the sum over the groups of layers that it covers."""

from dataclasses import dataclass, field, replace

from kvbench.ledger.group_cost import GroupCost
from kvbench.messages import unknown
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, SCALE_BYTES, STATE, STATE_REACH, TRACK_BYTES, WINDOW, LayerGroup
from kvbench.plan.area import (
    CAST_DTYPES,
    DEVICE,
    FP8_DTYPES,
    STAGING_TOKENS,
    Area,
    Blocks,
    Cast,
    Chunks,
    Contiguous,
    Packed,
    check_areas,
    held_in,
    num_staging_buffers,
)


@dataclass(frozen=True, slots=True)
class AreaCost:
    """An area's bytes, for a batch of so many rows: those of its groups.

    Args:
        area: the area.
        unit_tokens: slots that bytes are exact for: a chunk's group, a block of states, or one.
        groups: what each group of layers holds.
        chain: which of the ledger's chains it is in: areas of the same groups are one.
    Attributes:
        unit_bytes: a unit's bytes over all groups, as long as all of them hold it.
        is_bounded: whether a group holds the last tokens only.
    """

    area: Area
    unit_tokens: int
    groups: tuple[GroupCost, ...]
    chain: int = 0
    unit_bytes: int = field(init=False)
    is_bounded: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit_bytes", sum(group.unit_bytes for group in self.groups))
        object.__setattr__(self, "is_bounded", any(group.most_tokens is not None for group in self.groups))

    def bytes_of(self, num_tokens: int) -> int:
        """Bytes of so many slots; rounded down where a group's bytes do not divide."""
        if self.is_bounded:
            return sum(group.held_tokens(num_tokens) * group.unit_bytes for group in self.groups) // self.unit_tokens
        return num_tokens * self.unit_bytes // self.unit_tokens

    def by_group(self, capacity: int, num_used: int) -> dict[str, int]:
        """Bytes of so many slots, of which some are in use, group by group; as `held_bytes`."""
        size = self.area.blocks.num_tokens if self.frees_windows else 0
        return {
            group.name: (
                group.block_bytes(num_used, size)
                if size and group.most_tokens is not None
                else group.held_tokens(capacity) * group.unit_bytes // self.unit_tokens
            )
            for group in self.groups
        }

    def passing_bytes(self, num_used: int, num_tokens: int) -> int:
        """Bytes that an append holds beside; see `GroupCost.passing_bytes`. Layers come one after the other."""
        return max((group.passing_bytes(num_used, num_tokens) for group in self.groups), default=0)

    @property
    def frees_windows(self) -> bool:
        """Whether it is of blocks, and some layers give them back."""
        return self.is_bounded and isinstance(self.area.layout, Blocks) and self.area.layout.frees_windows

    @property
    def reach(self) -> int | None:
        """Tokens that layers whose blocks come from another area's pool look at, at most; None of other areas."""
        if not (isinstance(self.area.layout, Blocks) and self.area.layout.of):
            return None
        return max((group.most_tokens or 0 for group in self.groups), default=0)

    @property
    def has_states(self) -> bool:
        """Whether its blocks hold a state each, whatever tokens are behind it."""
        return any(group.is_state for group in self.groups)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, of layers that have it until it is given back."""
        size = self.area.blocks.num_tokens
        return self.full_bytes(size) if self.frees_windows else self.whole_bytes(size)

    def whole_bytes(self, num_tokens: int) -> int:
        """Bytes of so many slots that all layers hold, as a pool's."""
        return num_tokens * self.unit_bytes // self.unit_tokens

    def held_bytes(self, capacity: int, num_used: int) -> int:
        """Bytes of so many slots, of which some are in use."""
        return (
            self.full_bytes(capacity) + self.window_bytes(num_used) if self.frees_windows else self.bytes_of(capacity)
        )

    def window_bytes(self, num_used: int) -> int:
        """Bytes of blocks that layers give back hold of so many tokens."""
        size = self.area.blocks.num_tokens
        return sum(group.block_bytes(num_used, size) for group in self.groups) // self.unit_tokens

    def most_bytes(self, num_tokens: int) -> int:
        """The most bytes of whole blocks that a sequence of so many tokens, and fewer, holds."""
        size = self.area.blocks.num_tokens
        of_windows = sum(group.most_block_bytes(num_tokens, size) for group in self.groups) // self.unit_tokens
        return self.full_bytes(-(-num_tokens // size) * size) + of_windows

    def is_passed(self, num_used: int, num_tokens: int) -> bool:
        """Whether an append holds something beside, or takes or gives back blocks of windows."""
        if self.frees_windows and self.window_bytes(num_used) != self.window_bytes(num_used + num_tokens):
            return True
        return self.passing_bytes(num_used, num_tokens) > 0

    def full_bytes(self, num_tokens: int) -> int:
        """Those of them in layers that hold all slots."""
        unit_bytes = sum(group.unit_bytes for group in self.groups if group.most_tokens is None)
        return num_tokens * unit_bytes // self.unit_tokens

    def replaced_bytes(self, num_tokens: int, old_capacity: int, new_capacity: int) -> int:
        """Those of them in tensors that a resize replaces: layers that hold as many as they ever do keep theirs."""
        if not self.is_bounded:
            return self.bytes_of(num_tokens)
        capacity = min(old_capacity, new_capacity)
        replaced = (group for group in self.groups if group.is_replaced(capacity))
        return sum(group.held_tokens(num_tokens) * group.unit_bytes for group in replaced) // self.unit_tokens

    def slots_in(self, num_bytes: int, beside: int = 0) -> int | None:
        """The most slots that so many bytes hold, at least none; None where any number is held in them.

        Args:
            num_bytes: what there is; below 0 where too much is held already.
            beside: fewer slots of the same sequence, which stay; layers that hold all that they ever do have it there.
        """
        if not self.is_bounded and self.unit_bytes:
            return max(num_bytes * self.unit_tokens // self.unit_bytes, 0)
        groups = [group for group in self.groups if group.is_replaced(beside)]
        slots, left = 0, num_bytes
        # From one bound to the next a slot takes what the layers that still grow do.
        for bound in sorted({group.most_tokens for group in groups if group.most_tokens is not None}):
            unit_bytes = sum(group.unit_bytes for group in groups if group.is_replaced(bound - 1))
            if left < (bound - slots) * unit_bytes:
                return max(slots + left // unit_bytes, 0)
            slots, left = bound, left - (bound - slots) * unit_bytes
        full_bytes = self.full_bytes(1)
        if not full_bytes:
            return None if left >= 0 else 0
        return max(slots + left // full_bytes, 0)

    def largest_bytes(self, num_tokens: int) -> int:
        """Bytes of so many slots in the largest tensor."""
        sizes = (group.held_tokens(num_tokens) * group.tensor_bytes for group in self.groups)
        return max(sizes, default=0) // self.unit_tokens

    def twice_bytes(self, num_tokens: int) -> int:
        """What a resize holds twice, at most: so many slots in the largest tensor that it replaces.

        Packed areas are never resized; of the others one tensor after another is replaced, small ones first where they
        grow, and last where they shrink.

        Args:
            num_tokens: the fewer of the slots before and after.
        """
        sizes = (group.tensor_bytes for group in self.groups if group.is_replaced(num_tokens))
        return num_tokens * max(sizes, default=0) // self.unit_tokens


def area_cost(area: Area, geometry: KVGeometry, num_rows: int) -> AreaCost:
    """An area's bytes under a geometry.

    Raises:
        ValueError: the geometry does not go into the area's format or layout.
    """
    unit_tokens = area.format.group if isinstance(area.format, Packed) else 1
    geometry = held_as(area, geometry)
    named = covered(area, geometry)
    if any(group.kind == STATE for _, group in named):
        return _states_cost(area, named, num_rows)
    return AreaCost(area, unit_tokens, tuple(_group_cost(area, name, group, num_rows) for name, group in named))


def _states_cost(area: Area, named: list[tuple[str, LayerGroup]], num_rows: int) -> AreaCost:
    """Of an area of states, each of which takes a block.

    Raises:
        ValueError: they do not lie in blocks of another area's pool, alone.
    """
    layout = area.layout
    if not isinstance(layout, Blocks) or not layout.of or any(group.kind != STATE for _, group in named):
        raise ValueError(
            f"area {area.name}: states lie in blocks of another area's pool, alone, or in no area; got layers "
            f"{', '.join(name for name, _ in named)} in {layout}"
        )
    parts = [
        GroupCost(name, group.num_layers, group.state_bytes * num_rows, 0, STATE_REACH, is_state=True)
        for name, group in named
    ]
    return AreaCost(area, layout.num_tokens, tuple(parts))


WINDOWS = "windows"
"""The area of layers with a window or in chunks, beside areas that do not hold such layers."""


def beside_windows(areas: tuple[Area, ...], geometry: KVGeometry, apart_from_blocks: bool = False) -> tuple[Area, ...]:
    """Areas under a model, of the layers that see all tokens, and one of those that see a window's or a chunk's.

    Slots that are packed, ranked, evicted, moved or in several areas are of layers that see all tokens: those are what
    a strategy decides over, and its budget is theirs. What others see is held as it comes, on the device, and no more.
    A single area of contiguous slots or chunks holds windows by itself, and so do blocks that all layers share.

    Args:
        areas: of all layers; those that name their own are left as they are.
        geometry: the model's groups.
        apart_from_blocks: whether a layer's blocks come from a pool of its own, so that none are there to share.
    """
    named = covered(Area(), geometry)
    bounded = tuple(name for name, group in named if group.tokens is not None)
    holds = hold_windows(areas) and not (apart_from_blocks and _frees_windows(areas[0]))
    if not bounded or holds or any(area.layers is not None for area in areas):
        return areas
    others = tuple(name for name, _ in named if name not in bounded)
    own = (replace(area, layers=others) for area in areas)
    return (*own, Area(WINDOWS, Chunks(STAGING_TOKENS), layers=bounded, follows=True))


def hold_windows(areas: tuple[Area, ...]) -> bool:
    """Whether areas of all layers are such as layers with a window, or in chunks, can live in."""
    (area, *others) = areas
    fits = isinstance(area.layout, Blocks) or (_holds_bounded(area) and area.tier == DEVICE)
    return fits and not others


def _frees_windows(area: Area) -> bool:
    return isinstance(area.layout, Blocks) and area.layout.frees_windows


def as_held(areas: tuple[Area, ...], geometry: KVGeometry) -> tuple[Area, ...]:
    """Areas under a model: beside windows, and cast, if native, where the model's cache is of one dtype of eight bits.

    Floating-point ones are divided by 1, as engines do that are given no scales; int8 by scales calibrated by KV head.
    """
    areas = beside_windows(areas, geometry)
    (dtype, *others) = geometry.held_dtypes or {geometry.dtype}
    if others or dtype not in CAST_DTYPES:
        return areas
    return held_in(areas, Cast(dtype, 1.0 if dtype in FP8_DTYPES else "head"))


def covered(area: Area, geometry: KVGeometry) -> list[tuple[str, LayerGroup]]:
    """The groups that an area is of, with their names: of those that hold tokens, and of states where it says so.

    A kind stands for all groups of it; of several the first alone is that with a 1: window_1.

    Raises:
        ValueError: there is none of a name that it says.
    """
    held = zip(geometry.group_names, geometry.groups, strict=True)
    named = [each for each in held if each[1].token_bytes or (each[1].state and area.layers is not None)]
    if area.layers is None:
        return named
    several = {name.removesuffix("_2") for name, _ in named if name.endswith("_2")}
    words = {name: {name, group.kind, f"{name}_1" if name in several else name} for name, group in named}
    known = set().union(*words.values())
    for word in area.layers:
        if word not in known:
            raise ValueError(f"area {area.name}: {unknown('group of layers', word, sorted(known))}")
    return [(name, group) for name, group in named if words[name] & set(area.layers)]


def held_as(area: Area, geometry: KVGeometry) -> KVGeometry:
    """A geometry in the dtype that an area holds K and V in."""
    match area.format:
        case Cast(dtype):
            return geometry.computed.held_in(dtype)
        case Packed():
            return geometry.computed
        case _:
            return geometry


def _group_cost(area: Area, name: str, group: LayerGroup, num_rows: int) -> GroupCost:
    is_paged = isinstance(area.layout, Blocks)
    has_windows = not is_paged or area.blocks.frees_windows or area.blocks.of
    most_tokens = group.tokens if has_windows else None  # else all layers hold a block alike
    if is_paged and area.blocks.of and group.kind != WINDOW:
        raise ValueError(
            f"area {area.name}: blocks of another area's pool are of layers with a window, got {group.kind}"
        )
    if most_tokens is not None and not is_paged:
        _check_bounded(area)
    tracks = group.track_bytes_per_token * area.num_tracks
    largest = max(group.tensor_bytes_per_token, min(tracks, TRACK_BYTES * group.num_kv_heads)) * num_rows
    match area.format:
        case Packed(bits, of_group, keys_per):
            unit = group.packed_bytes(of_group, bits, of_group, keys_per) + of_group * tracks
            return GroupCost(name, group.num_layers, unit * num_rows, of_group * largest)
        case _:
            unit, is_chunked = (group.token_bytes + tracks) * num_rows, group.kind == CHUNKED
            return GroupCost(name, group.num_layers, unit, largest, most_tokens, is_chunked)


def _check_bounded(area: Area) -> None:
    if not _holds_bounded(area):
        raise ValueError(
            f"area {area.name}: sliding-window layers hold slots that are not packed, without positions or scores, "
            f"contiguous, in chunks or in blocks; got {area.format} in {area.layout} with {area.num_tracks} figures "
            "beside each slot"
        )


def _holds_bounded(area: Area) -> bool:
    fits = isinstance(area.layout, Contiguous | Chunks) and not isinstance(area.format, Packed)
    return fits and not area.num_tracks


def area_costs(areas: tuple[Area, ...], geometry: KVGeometry, num_rows: int) -> dict[str, AreaCost]:
    """The bytes of areas by name.

    Raises:
        ValueError: the geometry does not go into an area's format or layout, or not into so many areas.
    """
    areas = as_held(areas, geometry)
    check_areas(areas)
    costs = {area.name: area_cost(area, geometry, num_rows) for area in areas}
    chains = _chains(costs, [name for name, _ in covered(Area(), geometry)])
    for chain in chains.values():
        if len(chain) > 1 and any(costs[name].is_bounded for name in chain):
            raise ValueError(
                "sliding-window layers hold the last tokens of a single area, or slots in blocks; got areas "
                f"{', '.join(chain)}"
            )
    following = [names for names in chains.values() if any(costs[name].area.follows for name in names)]
    if following and (len(following) == len(chains) or len(following[0]) > 1 or len(following) > 1):
        raise ValueError(
            "one area follows the others, alone of its layers; got "
            f"{' and '.join(', '.join(names) for names in following)} of {', '.join(costs)}"
        )
    for name, cost in costs.items():
        _check_pool(cost, costs)
        if cost.frees_windows and len(chains) > 1:
            raise ValueError(
                f"area {name}: blocks that windows leave go back to a pool of all layers; with areas of some layers, "
                "window_blocks is keep"
            )
    numbers = {name: number for number, chain in enumerate(chains.values()) for name in chain}
    return {name: replace(cost, chain=numbers[name]) for name, cost in costs.items()}


def _check_pool(cost: AreaCost, costs: dict[str, AreaCost]) -> None:
    """Refuse blocks of a pool that is not there, or has others."""
    layout = cost.area.layout
    if not isinstance(layout, Blocks) or not layout.of:
        return
    pool = costs[layout.of].area.layout if layout.of in costs else None
    if not isinstance(pool, Blocks) or pool.of or pool.num_tokens != layout.num_tokens:
        raise ValueError(
            f"area {cost.area.name}: it takes blocks of {layout.num_tokens} tokens from the pool of area {layout.of}, "
            f"which is {pool or 'not there'}"
        )


def _chains(costs: dict[str, AreaCost], groups: list[str]) -> dict[tuple[str, ...], list[str]]:
    """Areas by the groups that they are of.

    Raises:
        ValueError: a group is in none, or in two chains.
    """
    chains: dict[tuple[str, ...], list[str]] = {}
    for name, cost in costs.items():
        chains.setdefault(tuple(group.name for group in cost.groups), []).append(name)
    for group in groups:
        own = [names for of, names in chains.items() if group in of]
        if len(own) != 1:
            got = " and ".join(", ".join(names) for names in own) or "none"
            raise ValueError(f"{group} layers live in one chain of areas, all of the same groups; got {got}")
    return chains


def workspace_bytes(areas: tuple[Area, ...], geometry: KVGeometry, num_rows: int) -> int:
    """Bytes of the staging buffers that reading these areas takes, K and V of one layer; and of the scales of casts."""
    areas = as_held(areas, geometry)
    scales = sum(
        group.num_tensors * area.format.num_scales(group.num_kv_heads)
        for area in areas
        if isinstance(area.format, Cast)
        for _, group in covered(area, geometry)
    )
    blocks = (area.layout.num_tokens for area in areas if area.is_staged and isinstance(area.layout, Blocks))
    part_tokens = max((STAGING_TOKENS, *blocks))
    staged = num_staging_buffers(areas) * part_tokens * geometry.computed.layer_bytes_per_token * num_rows
    return staged + scales * SCALE_BYTES
