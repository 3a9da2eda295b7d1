"""Tiers that hold blocks, and what a replay did in each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kvbench.checks import check_int, check_number
from kvbench.messages import unknown

TIER_NAMES = ("device", "host", "disk")


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Memory that holds blocks.

    Args:
        name: device, host or disk.
        num_blocks: blocks it holds, >= 1.
        bytes_per_s: at which blocks leave it for the device, > 0; for the device, at which they arrive there.
    Raises:
        ValueError: any of these is something else.
    """

    name: str
    num_blocks: int
    bytes_per_s: float

    def __post_init__(self) -> None:
        if self.name not in TIER_NAMES:
            raise ValueError(unknown("tier", self.name, TIER_NAMES))
        check_int(f"num_blocks of tier {self.name}", self.num_blocks, 1)
        if self.bytes_per_s != math.inf:
            check_number(f"bytes_per_s of tier {self.name}", self.bytes_per_s, 0, above=True)


@dataclass(frozen=True, kw_only=True)
class TierUse:
    """What a tier did for the requests that count.

    Args:
        name: the tier's.
        num_blocks: blocks it holds.
        hit_blocks: blocks that prompts reused from it.
        hit_tokens: tokens in these.
        loaded_bytes: moved from it to the device, since a prompt reused them; whole blocks.
        stored_bytes: moved into it from the tier above, since they were evicted there; whole blocks.
        load_s: seconds of loading, at the slowest rate on the way to the device; 0 on the device.
    """

    name: str
    num_blocks: int
    hit_blocks: int
    hit_tokens: int
    loaded_bytes: int
    stored_bytes: int
    load_s: float


def check_tiers(tiers: Sequence[Tier]) -> None:
    """Refuse tiers that are not the device, then host, then disk, of which the last two may be left out."""
    names = [tier.name for tier in tiers]
    if not names or names[0] != TIER_NAMES[0] or names != [name for name in TIER_NAMES if name in names]:
        raise ValueError(f"tiers are device, then host, then disk, each at most once, the device always; got {names}")
