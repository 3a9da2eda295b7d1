"""Areas: where and how a stretch of a sequence's slots lives. Plain data, read by ledger and backends alike."""

from dataclasses import dataclass, replace
from typing import get_args

from kvbench.checks import check_flag, check_int, check_kind, check_name, check_number, check_one_of

DEVICE, HOST, DISK, REMOTE = "device", "host", "disk", "remote"
TIERS = (DEVICE, HOST, DISK)
"""Where areas are. Copies of blocks with names are kept on a remote store, too."""
ALL_TIERS = (*TIERS, REMOTE)
STAGING_TOKENS = 1024
"""Tokens of a staged read's part, or a block's if that has more: one layer's K and V of so many are held on the device,
for all sequences."""


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

    def __post_init__(self) -> None:
        check_int("Ring: num_pinned", self.num_pinned, 0)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Slots in contiguous chunks of one size, added behind each other; the oldest can be dropped.

    Args:
        num_tokens: slots of a chunk, > 0.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        check_int("Chunks: num_tokens", self.num_tokens, 1)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Slots in blocks of a pool that all sequences share; read by a gather.

    Args:
        num_tokens: slots of a block, > 0.
        pool_tokens: slots of the pool, a multiple of num_tokens; allocated once. None: a run says how many.
        frees_windows: whether layers with a window or in chunks have tables of their own, and give back each block that
            the window, or the chunk, has left; else all layers hold the same blocks.
        of: another area, from whose pool it takes its blocks, each of as many tokens, and no pool is its own: it is of
            layers with a window, which give back what that has left where a plan says so, or with states, which have
            a block where a step ends and none for the tokens that it passes; "": there is none.
    """

    num_tokens: int
    pool_tokens: int | None
    frees_windows: bool = False
    of: str = ""

    def __post_init__(self) -> None:
        check_int("Blocks: num_tokens", self.num_tokens, 1)
        if self.of and (self.pool_tokens is not None or self.frees_windows):
            raise ValueError(f"Blocks: those of the pool of area {self.of} have no pool and free nothing by themselves")
        if self.pool_tokens is None:
            return
        check_int("Blocks: pool_tokens", self.pool_tokens, 1)
        if self.pool_tokens % self.num_tokens:
            raise ValueError(
                f"Blocks: pool_tokens is a multiple of num_tokens ({self.num_tokens}), got {self.pool_tokens}"
            )

    @property
    def pool(self) -> int:
        """Slots of a pool whose size is decided.

        Raises:
            ValueError: it is left to a run, and none has said it.
        """
        if self.pool_tokens is None:
            raise ValueError("a pool without a size takes what a run leaves it: fit the strategy to a run first")
        return self.pool_tokens


Layout = Contiguous | Holes | Ring | Chunks | Blocks


BITS = (8, 4, 2)
KEYS_PER = ("channel", "token")
"""What a scale of packed keys is shared by: a channel of several tokens, or a token's channels."""


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

    def __post_init__(self) -> None:
        check_one_of("bits", self.bits, BITS)
        check_int("Packed: group", self.group, 1)
        check_one_of("keys_per", self.keys_per, KEYS_PER)


FP8_DTYPES = ("fp8_e4m3", "fp8_e5m2")
CAST_DTYPES = (*FP8_DTYPES, "int8")
SCALES_PER = ("tensor", "head")
"""What a calibrated scale is shared by: a layer's K, or its V; or a KV head of it."""


@dataclass(frozen=True, slots=True)
class Cast:
    """K and V divided by a scale and rounded to a dtype of eight bits; what is too large becomes the largest number.

    Args:
        dtype: one of CAST_DTYPES.
        scale: a number, > 0; or "tensor" or "head": what shares a scale that is calibrated, so that the largest K or V
            of the first tokens written to the area becomes the dtype's largest number. It then holds for all sequences
            of a run.
    """

    dtype: str
    scale: float | str = 1.0

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, CAST_DTYPES)
        if isinstance(self.scale, str):
            check_one_of("scale (a number, or calibrated)", self.scale, SCALES_PER)
        else:
            check_number("scale", self.scale, 0, 1e30, above=True)

    def num_scales(self, num_kv_heads: int) -> int:
        """Scales of a layer's K, and as many of its V: none where they are divided by 1."""
        return 0 if self.scale == 1 else num_kv_heads if self.scale == "head" else 1


Format = Native | Packed | Cast


@dataclass(frozen=True, slots=True)
class Mass:
    """A score a slot: the attention mass that it got from all queries so far."""


POOLINGS = ("max", "avg")


@dataclass(frozen=True, slots=True)
class Votes:
    """A score a slot: the mass that it gets from the last queries of each append of several tokens, pooled.

    Args:
        window: queries that vote, > 0.
        kernel: neighbouring slots that share their votes, odd.
        pooling: what a slot gets of them: their "max", or "avg", their mean.
    """

    window: int
    kernel: int
    pooling: str = "max"

    def __post_init__(self) -> None:
        check_int("Votes: window", self.window, 1)
        check_int("Votes: kernel", self.kernel, 1)
        if self.kernel % 2 == 0:
            raise ValueError(f"Votes: kernel is odd, got {self.kernel}")
        check_one_of("pooling", self.pooling, POOLINGS)


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

    def __post_init__(self) -> None:
        check_int("Accesses: top", self.top, 1)
        check_int("Accesses: window", self.window, 1, MAX_ACCESS_WINDOW)


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
        format: native, packed into few bits, or cast to a smaller dtype.
        positions: whether each slot of each layer, row and KV head keeps its token's position. Without, positions are
            consecutive, but for a ring's pinned slots.
        score: what each slot keeps to be ranked by; None for nothing.
        attended: whether attention reads it.
        read_ahead: whether the next part of it is copied to the device while attention reads the one before.
        layers: groups of the model's layers that it is of, by kind or name, such as ("full",); None: all, (): none.
            Areas of the same groups are a chain of their own, and a plan appends each token to every chain.
        follows: whether it is a chain alone, of chunks, that each token comes to which a plan appends to the others,
            and room for it, without the plan's saying so.
    Raises:
        ValueError: a layout cannot have that format, or keep those figures, or layers are no names.
    """

    name: str = "main"
    layout: Layout = Contiguous()
    tier: str = DEVICE
    format: Format = Native()
    positions: bool = False
    score: Score | None = None
    attended: bool = True
    read_ahead: bool = False
    layers: tuple[str, ...] | None = None
    follows: bool = False

    def __post_init__(self) -> None:
        self._check_each()
        if self.layers is not None:
            self._check_layers(self.layers)
        self._check_sizes()
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
        if self.follows and (self.layers is None or not isinstance(self.layout, Chunks)):
            raise ValueError(
                f"area {self.name}: slots that follow others are of layers of their own, in chunks; got {self.layout} "
                f"of layers {self.layers}"
            )

    def _check_layers(self, layers: object) -> None:
        is_named = isinstance(layers, tuple) and all(isinstance(name, str) and name for name in layers)
        if not is_named or len(set(self.layers or ())) < len(self.layers or ()):
            raise ValueError(
                f"area {self.name}: layers is a tuple of groups' names, each once, such as ('full',), or None; got "
                f"{layers!r}"
            )

    def _check_each(self) -> None:
        """Refuse what is none of the kinds that there are."""
        check_name("an area's name", self.name)
        check_kind("layout", self.layout, get_args(Layout))
        check_one_of("tier", self.tier, TIERS)
        check_kind("format", self.format, get_args(Format))
        if self.score is not None:
            check_kind("score", self.score, get_args(Score))
        for flag in ("positions", "attended", "read_ahead", "follows"):
            check_flag(f"area {self.name}: {flag}", getattr(self, flag))

    def _check_sizes(self) -> None:
        """Refuse slots that a format does not fill."""
        match self.layout, self.format:
            case Chunks(num_tokens), Packed(_, group) if num_tokens % group:
                raise ValueError(f"area {self.name}: a packed chunk is whole groups of {group}, got {num_tokens}")

    @property
    def is_staged(self) -> bool:
        """Whether attention reads a copy on the device, part by part: gathered, fetched or restored."""
        away = self.tier != DEVICE or not isinstance(self.format, Native) or isinstance(self.layout, Blocks)
        return self.attended and away

    @property
    def blocks(self) -> Blocks:
        """Its layout, where it is blocks.

        Raises:
            TypeError: it is another.
        """
        if not isinstance(self.layout, Blocks):
            raise TypeError(f"area {self.name} lies in blocks, got {self.layout}")
        return self.layout

    @property
    def is_beside(self) -> bool:
        """Whether it holds, of further layers, tokens that another area holds as well."""
        return self.follows or (isinstance(self.layout, Blocks) and bool(self.layout.of))

    @property
    def alters(self) -> bool:
        """Whether attention does not read what is here as it was: not at all, or rounded."""
        return not self.attended or not isinstance(self.format, Native)

    @property
    def num_tracks(self) -> int:
        """Figures of four bytes beside each slot of each layer, row and KV head."""
        return int(self.positions) + (self.score is not None)


def held_in(areas: tuple[Area, ...], form: Format) -> tuple[Area, ...]:
    """The same areas, those that are native in another format."""
    return tuple(replace(area, format=form) if isinstance(area.format, Native) else area for area in areas)


def check_areas(areas: tuple[Area, ...]) -> None:
    """Refuse what is no chain of areas.

    Raises:
        ValueError: there is none, one is no area, two have one name, or they rank their slots by different scores.
    """
    if not isinstance(areas, tuple) or not areas or not all(isinstance(area, Area) for area in areas):
        raise ValueError(f"areas is a tuple of one Area or more, oldest tokens first, got {areas!r}")
    names = [area.name for area in areas]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"areas have names of their own; {len(areas)} areas, and {', '.join(twice)} more than once")
    scores = {area.score for area in areas} - {None}
    if len(scores) > 1:
        raise ValueError(f"the areas of a sequence keep scores of one kind, got {', '.join(map(str, scores))}")


def num_staging_buffers(areas: tuple[Area, ...]) -> int:
    """Staging buffers that reading these areas takes: none, one, or two where the next part is read ahead."""
    return max((1 + area.read_ahead for area in areas if area.is_staged), default=0)
