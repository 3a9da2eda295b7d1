"""The closed set of operations that a strategy plans with. Plans are data: a ledger books them, a backend obeys."""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Contiguous:
    """Slots in one tensor each for K and V of a layer."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """Slots in contiguous chunks of one size, added behind each other.

    Args:
        num_tokens: slots of a chunk, > 0.
    """

    num_tokens: int


Layout = Contiguous | Chunks


@dataclass(frozen=True, slots=True)
class Area:
    """Where and how a stretch of a sequence's slots lives.

    Args:
        name: for messages and plans.
        layout: how its slots lie in memory.
    """

    name: str = "main"
    layout: Layout = Contiguous()


@dataclass(frozen=True, slots=True)
class Reserve:
    """Make a sequence's capacity so many slots.

    Contiguous: a new allocation, live slots copied in order, the old one freed (a resize), tensor by tensor and layer
    by layer, so that at any time only one tensor exists twice. Chunks: added or dropped at the end, nothing copied.

    Args:
        seq: the sequence.
        num_tokens: the new capacity in slots, at least those in use; 0 frees the storage.
    """

    seq: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Append:
    """Write the K and V of new tokens into reserved slots.

    Args:
        seq: the sequence.
        num_tokens: new tokens, > 0. A plan's appends add up to the step.
    """

    seq: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Remove the newest tokens, as if they had never been appended.

    Args:
        seq: the sequence.
        num_tokens: tokens to remove, > 0 and at most those in use.
    """

    seq: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Release:
    """Free everything that a sequence holds, and forget it.

    Args:
        seq: the sequence.
    """

    seq: int


Operation = Reserve | Append | Truncate | Release
Plan = tuple[Operation, ...]

NOTHING: Plan = ()


@lru_cache(maxsize=4096)
def append_plan(seq: int, num_tokens: int) -> Plan:
    """The plan of the common case, an append that fits; built once, since it is asked for at every step."""
    return (Append(seq, num_tokens),)
