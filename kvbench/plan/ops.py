"""The closed set of operations that a strategy plans with. Plans are data: a ledger books them, a backend obeys."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

from kvbench.checks import check_flag, check_int, check_kind, check_name, check_one_of
from kvbench.plan.area import ALL_TIERS, DEVICE, NORM, SIGNALS

MAIN = "main"
"""The area that new tokens go to, unless a plan says otherwise."""


def _check_count(what: str, value: object) -> None:
    check_int(what, value, 0)


def _check_rule(what: str, value: object) -> None:
    check_kind(what, value, (Rule,))


def _check_score(what: str, value: object) -> None:
    check_one_of(what, value, _SCORES)


def _check_tier(what: str, value: object) -> None:
    check_one_of(what, value, ALL_TIERS)


def _check_key(what: str, value: object) -> None:
    if not isinstance(value, Hashable):
        raise ValueError(f"{what} is a name that can be looked up, such as a number or a tuple, got {value!r}")


_SCORES = ("", NORM, *SIGNALS.values())
_CHECKS = {
    **dict.fromkeys(("seq", "new", "num_tokens", "num_rows", "first", "recent", "top"), _check_count),
    **dict.fromkeys(("area", "src", "dst"), check_name),
    "rule": _check_rule,
    "by": _check_score,
    "key": _check_key,
    "tier": _check_tier,
    "background": check_flag,
}
"""What a field can be, whichever operation has it; how many are too many or too few, the ledger knows."""


class BadOperation(ValueError):
    """An operation, or a rule, that says what none can."""


class _Checked:
    """Refuses, field by field, what an operation cannot say."""

    __slots__: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            for field in self.__slots__:
                _CHECKS[field](field, getattr(self, field))
        except ValueError as error:
            raise BadOperation(f"{type(self).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class Rule(_Checked):
    """What an eviction keeps: the first slots, the most recent, and the top by a score among those between.

    The number kept is arithmetic, whichever slots it hits. Every layer, row and KV head keeps equal numbers, each its
    own.

    Args:
        first: oldest slots kept, >= 0.
        recent: newest slots kept, >= 0.
        top: slots kept among the others, >= 0.
        by: what ranks them: norm, mass, votes or accesses; "" where top is 0.
    """

    first: int = 0
    recent: int = 0
    top: int = 0
    by: str = ""

    def num_kept(self, num_used: int) -> int:
        """Slots kept of those in use."""
        return min(num_used, self.first + self.recent + self.top)


@dataclass(frozen=True, slots=True)
class Reserve(_Checked):
    """Make an area's capacity so many slots.

    Contiguous: a new allocation, live slots copied in order, the old one freed (a resize), tensor by tensor and layer
    by layer, so that at any time only one tensor exists twice. Chunks and blocks: added or dropped at the end, nothing
    copied. In the background: old and new exist together, in full, until `Settle`; appends go on in the old.

    Args:
        seq: the sequence.
        num_tokens: the new capacity in slots, at least those in use; 0 frees the storage.
        area: the area's name.
        background: whether it runs beside what follows.
    """

    seq: int
    num_tokens: int
    area: str = MAIN
    background: bool = False


@dataclass(frozen=True, slots=True)
class Append(_Checked):
    """Write the K and V of new tokens into reserved slots.

    Args:
        seq: the sequence.
        num_tokens: new tokens, > 0. A plan's appends add up to the step.
        area: the area's name.
    """

    seq: int
    num_tokens: int
    area: str = MAIN


@dataclass(frozen=True, slots=True)
class Keep(_Checked):
    """Evict what a rule does not keep. Capacity stays, but for chunks that are dropped whole.

    Args:
        seq: the sequence.
        rule: what is kept.
        area: the area's name.
    """

    seq: int
    rule: Rule
    area: str = MAIN


@dataclass(frozen=True, slots=True)
class Move(_Checked):
    """Move what a rule does not keep to the end of another area: another tier, format or layout.

    Args:
        seq: the sequence.
        src: where from.
        dst: where to; it has room.
        rule: what stays.
        background: whether it runs beside what follows: until `Settle` the slots stay in src and attention reads them
            there.
    """

    seq: int
    src: str
    dst: str
    rule: Rule = Rule()
    background: bool = False


@dataclass(frozen=True, slots=True)
class Settle(_Checked):
    """Finish a sequence's background work: what is new takes its place, what is old is freed.

    It comes first in its plan: whether the work failed is discovered before anything of the plan is booked.

    Args:
        seq: the sequence.
    """

    seq: int


@dataclass(frozen=True, slots=True)
class Truncate(_Checked):
    """Remove the newest tokens, as if they had never been appended; they are in the area main.

    Args:
        seq: the sequence.
        num_tokens: tokens to remove, > 0 and at most those in use.
    """

    seq: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Rows(_Checked):
    """Make a batch of chosen rows of what there is: selected, repeated or reordered, tensor by tensor.

    The sequence is the only one, and nothing is done in the background: staging buffers and pools have its rows.

    Args:
        seq: the sequence.
        num_rows: rows of the new batch, > 0.
    """

    seq: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class Fork(_Checked):
    """Give a sequence that holds nothing the first tokens of another: whole blocks are shared, a block that only one of
    them will fill further is copied when one writes to it.

    Args:
        seq: the sequence that has the tokens.
        new: the open sequence that gets them.
        num_tokens: how many, > 0.
    """

    seq: int
    new: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Publish(_Checked):
    """Give the block that a sequence's first tokens end with a name, by which other sequences find it.

    It stays when the sequence lets go of it, until it is dropped. Where there is one of that name already, this is a
    duplicate, which exists by itself.

    Args:
        seq: the sequence.
        key: the name: blocks of one name hold the same tokens after the same tokens.
        num_tokens: those up to the block's end, > 0: whole blocks, all of them written.
        area: the area's name.
    """

    seq: int
    key: Hashable
    num_tokens: int
    area: str = MAIN


@dataclass(frozen=True, slots=True)
class Reuse(_Checked):
    """Take a block over by its name: its tokens are the sequence's next.

    On the device nothing is copied: the block is shared. Of duplicates it is the one that was published first. From a
    tier below it is loaded: into a new block of that name, from the copy that is there, or was when the plan began.

    Args:
        seq: the sequence; it ends with the token before the block's first.
        key: the block's name.
        area: the area's name.
        tier: where it is.
    """

    seq: int
    key: Hashable
    area: str = MAIN
    tier: str = DEVICE


@dataclass(frozen=True, slots=True)
class Drop(_Checked):
    """Free a block that has a name, and that no sequence holds: of duplicates the one that was let go of first.

    In a tier below the device it is the copy of that name.

    Args:
        key: the block's name.
        tier: where it is.
    """

    key: Hashable
    tier: str = DEVICE


@dataclass(frozen=True, slots=True)
class Save(_Checked):
    """Keep a copy of a block in a tier below the device, as the newest there; one that is there becomes its newest.

    Args:
        key: the block's name; the device or a tier has it.
        tier: where the copy is; it has room for one.
    """

    key: Hashable
    tier: str


@dataclass(frozen=True, slots=True)
class Release(_Checked):
    """Free everything that a sequence holds, and forget it; background work is waited for.

    Blocks that have a name stay, the last ones let go of first.

    Args:
        seq: the sequence.
    """

    seq: int


OfSequence = Reserve | Append | Keep | Move | Settle | Truncate | Rows | Fork | Publish | Reuse | Release
"""What is done to a sequence."""
Operation = OfSequence | Drop | Save
Plan = tuple[Operation, ...]

NOTHING: Plan = ()


def areas_of(op: Operation) -> set[str]:
    """The areas that an operation names; none where it is of the whole sequence."""
    match op:
        case Reserve() | Append() | Keep() | Publish() | Reuse():
            return {op.area}
        case Move():
            return {op.src, op.dst}
        case _:
            return set()


@lru_cache(maxsize=4096)
def append_plan(seq: int, num_tokens: int) -> Plan:
    """The plan of the common case, an append that fits; built once, since it is asked for at every step."""
    return (Append(seq, num_tokens),)


@lru_cache(maxsize=4096)
def keep_and_append_plan(seq: int, rule: Rule, num_tokens: int) -> Plan:
    """The plan of a steady state: evict as much as comes; built once."""
    return (Keep(seq, rule), Append(seq, num_tokens))
