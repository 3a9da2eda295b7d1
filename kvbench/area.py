"""Areas: where and how a stretch of a sequence's slots lives. Plain data, read by ledger and backends alike."""

from dataclasses import dataclass

from kvbench.naming import unknown

DEVICE, HOST, DISK = "device", "host", "disk"
TIERS = (DEVICE, HOST, DISK)


@dataclass(frozen=True, slots=True)
class Contiguous:
    """Slots in one tensor each for K and V of a layer, in order. Evicting copies what is kept."""


@dataclass(frozen=True, slots=True)
class Holes:
    """As Contiguous, but evicting moves the last slots into the holes: order is lost, positions are to be tracked."""


@dataclass(frozen=True, slots=True)
class Ring:
    """As Contiguous, but the slots behind the pinned ones are reused from the oldest on: evicting moves nothing.

    Args:
        num_pinned: first slots that stay where they are, >= 0.
    """

    num_pinned: int = 0


@dataclass(frozen=True, slots=True)
class Chunks:
    """Slots in contiguous chunks of one size, added behind each other; the oldest can be dropped.

    Args:
        num_tokens: slots of a chunk, > 0.
    """

    num_tokens: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Slots in blocks of a pool that all sequences share; read by a gather.

    Args:
        num_tokens: slots of a block, > 0.
        pool_tokens: slots of the pool, a multiple of num_tokens; allocated once.
    """

    num_tokens: int
    pool_tokens: int


Layout = Contiguous | Holes | Ring | Chunks | Blocks


@dataclass(frozen=True, slots=True)
class Native:
    """K and V as the model gives them."""


@dataclass(frozen=True, slots=True)
class Packed:
    """K and V rounded to few bits, packed into bytes, with a scale and a minimum a group.

    Args:
        bits: 8, 4 or 2.
        group: elements that share scale and minimum: tokens of a channel, or channels of a token (at most head_dim).
        keys_per: "channel" or "token"; values are always by token.
    """

    bits: int
    group: int
    keys_per: str


Format = Native | Packed


@dataclass(frozen=True, slots=True)
class Mass:
    """A score a slot: the attention mass that it got from all queries so far."""


@dataclass(frozen=True, slots=True)
class Votes:
    """A score a slot: the mass that it gets from the last queries of each append of several tokens, pooled.

    Args:
        window: queries that vote, > 0.
        kernel: slots over which votes are averaged, odd.
    """

    window: int
    kernel: int


MAX_ACCESS_WINDOW = 31
"""Steps that a slot's history of accesses can hold, a bit each."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """A score a slot: decode steps of the last few in which it was among the top by attention mass.

    Args:
        top: slots that a step accesses, by mass, > 0.
        window: steps that count, > 0, at most MAX_ACCESS_WINDOW.
    """

    top: int
    window: int


Score = Mass | Votes | Accesses
NORM = "norm"
"""What a rule can rank by without a track: (|k| + |v|) / 2, averaged over heads."""
SIGNALS = {Mass: "mass", Votes: "votes", Accesses: "accesses"}
"""What a backend must supply for a score, and what a rule calls it."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where and how a stretch of a sequence's slots lives. A sequence is a chain of areas, oldest tokens first.

    Args:
        name: for messages and plans.
        layout: how its slots lie in memory.
        tier: device, host or disk.
        format: native, or packed into few bits.
        positions: whether each slot of each layer, row and KV head keeps its token's position. Without, positions are
            consecutive, but for a ring's pinned slots.
        score: what each slot keeps to be ranked by; None for nothing.
        attended: whether attention reads it.
        read_ahead: whether the next part of it is copied to the device while attention reads the one before.
    Raises:
        ValueError: a layout cannot have that format, or keep those figures.
    """

    name: str = "main"
    layout: Layout = Contiguous()
    tier: str = DEVICE
    format: Format = Native()
    positions: bool = False
    score: Score | None = None
    attended: bool = True
    read_ahead: bool = False

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise ValueError(unknown("tier", self.tier, TIERS))
        if isinstance(self.format, Packed) and not isinstance(self.layout, Chunks):
            raise ValueError(f"area {self.name}: packed slots lie in chunks, got {self.layout}")
        if isinstance(self.layout, Holes) and not self.positions:
            raise ValueError(f"area {self.name}: slots that lose their order keep their positions")
        if self.score is not None and not isinstance(self.layout, Contiguous | Holes):
            raise ValueError(f"area {self.name}: slots in {self.layout} keep no score")
        if self.score is not None and not self.positions:
            raise ValueError(f"area {self.name}: slots that are ranked by a score keep their positions")
        if self.positions and isinstance(self.layout, Ring | Blocks):
            raise ValueError(f"area {self.name}: slots in {self.layout} keep no positions of their own")
        if self.tier != DEVICE and not isinstance(self.layout, Chunks | Blocks):
            raise ValueError(f"area {self.name}: slots on the {self.tier} lie in chunks or blocks, got {self.layout}")

    @property
    def is_staged(self) -> bool:
        """Whether attention reads a copy on the device, part by part: gathered, fetched or dequantised."""
        away = self.tier != DEVICE or isinstance(self.format, Packed) or isinstance(self.layout, Blocks)
        return self.attended and away

    @property
    def alters(self) -> bool:
        """Whether attention does not read what is here as it was: not at all, or rounded."""
        return not self.attended or isinstance(self.format, Packed)

    @property
    def num_tracks(self) -> int:
        """Figures of four bytes beside each slot of each layer, row and KV head."""
        return int(self.positions) + (self.score is not None)


def check_areas(areas: tuple[Area, ...]) -> None:
    """Refuse what is no chain of areas.

    Raises:
        ValueError: there is none, one is no area, or two have one name.
    """
    if not isinstance(areas, tuple) or not areas or not all(isinstance(area, Area) for area in areas):
        raise ValueError(f"areas is a tuple of one Area or more, oldest tokens first, got {areas!r}")
    names = [area.name for area in areas]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"areas have names of their own; {len(areas)} areas, and {', '.join(twice)} more than once")


STAGING_TOKENS = 1024
"""Tokens of a staged read's part: one layer's K and V of so many are held on the device, for all sequences."""


def num_staging_buffers(areas: tuple[Area, ...]) -> int:
    """Staging buffers that reading these areas takes: none, one, or two where the next part is read ahead."""
    return max((1 + area.read_ahead for area in areas if area.is_staged), default=0)
