"""What the ledger knows of each sequence: slots and bytes of its areas."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kvbench.ledger.costs import AreaCost
from kvbench.model.groups import STATE
from kvbench.plan.area import DEVICE, Cast, Holes
from kvbench.plan.ops import Operation


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
        blocks: its blocks, as numbers that are used once, but for those at the front that it has given back; 0 where
            tokens were passed that no state was kept behind.
        num_left: blocks at the front that it has given back, or never held, since no window reaches them.
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
    num_left: int = 0

    def copy(self) -> "Holding":
        """A copy that can be changed alone."""
        return replace(self, blocks=list(self.blocks))

    @property
    def num_bytes(self) -> int:
        """Bytes allocated, those of a coming resize included."""
        if self.cost.reach is not None:
            return self.num_blocks * self.cost.block_bytes
        held_bytes = self.cost.held_bytes(self.capacity, self.num_used)
        if self.next_capacity:
            held_bytes += self.cost.replaced_bytes(self.next_capacity, self.capacity, self.next_capacity)
        return held_bytes

    @property
    def num_blocks(self) -> int:
        """Blocks that it has."""
        return len(self.blocks) - self.blocks.count(0) if self.cost.has_states else len(self.blocks)

    @property
    def by_group(self) -> dict[str, int]:
        """Those of each group of layers that the area covers."""
        cost, capacity, coming = self.cost, self.capacity, self.next_capacity
        if cost.reach is not None:
            slots = self.num_blocks * cost.area.blocks.num_tokens
            return {group.name: slots * group.unit_bytes // cost.unit_tokens for group in cost.groups}
        found = cost.by_group(capacity, self.num_used)
        for group in cost.groups:
            if coming and group.is_replaced(capacity):
                found[group.name] += group.held_tokens(coming) * group.unit_bytes // cost.unit_tokens
        return found

    @property
    def num_cast(self) -> int:
        """Slots whose tokens were rounded as they came, each by itself: what is left of them is as it was."""
        return self.num_used if isinstance(self.cost.area.format, Cast) else 0

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
        state_bytes: of its states, on the device from the first reserve to the release, whatever its length.
        seen: tokens appended to each chain of areas, where there are several; num_seen is the least of them.
        number: how many sequences were opened before it.
    """

    holdings: dict[str, Holding]
    num_seen: int = 0
    num_altered: int = 0
    state_bytes: int = 0
    seen: list[int] = field(default_factory=list)
    number: int = 0

    @property
    def num_attended(self) -> int:
        """Tokens that attention reads, in the layers where it reads the fewest."""
        if self.seen:
            return min(self._attended_in(chain) for chain in range(len(self.seen)))
        num_attended = 0
        for held in self.holdings.values():
            if held.cost.area.attended:
                num_attended += held.num_used - held.arriving
        return num_attended

    def _attended_in(self, chain: int) -> int:
        own = (held for held in self.holdings.values() if held.cost.chain == chain and held.cost.area.attended)
        return sum(held.num_used - held.arriving for held in own)

    def see(self, chain: int, num_tokens: int) -> None:
        """Count tokens that were appended to a chain of areas."""
        if not self.seen:
            self.num_seen += num_tokens
            return
        self.seen[chain] += num_tokens
        self.num_seen = min(self.seen)

    @property
    def num_held(self) -> int:
        """Tokens that are held, in the layers that hold the most of those that are not beside others."""
        held: dict[int, int] = {}
        for each in self._leading:
            held[each.cost.chain] = held.get(each.cost.chain, 0) + each.num_used - each.arriving
        return max(held.values())

    @property
    def _leading(self) -> Iterator[Holding]:
        return (held for held in self.holdings.values() if not held.cost.area.is_beside)

    @property
    def device_slots(self) -> tuple[int, int, int]:
        """Slots in use and allocated on the device, those of a coming resize included, and all bytes there.

        Slots beside others are not counted twice.
        """
        num_used, capacity, num_bytes = 0, 0, self.state_bytes
        for held in self.holdings.values():
            if held.cost.area.tier == DEVICE:
                num_bytes += held.num_bytes
                if not held.cost.area.is_beside:
                    num_used += held.num_used
                    capacity += held.capacity + held.next_capacity
        return num_used, capacity, num_bytes

    def bytes_of(self, num_slots: int, capacity: int, num_bytes: int) -> int:
        """Of a sequence's bytes on the device, those of so many slots: its first, where layers hold the last ones only.

        Args:
            num_slots: how many, at most all.
            capacity: all that are allocated, as `device_slots` says.
            num_bytes: their bytes, as it says.
        """
        (held, *others) = self.holdings.values()
        if (held.cost.is_bounded or self.state_bytes) and not others:
            return self.state_bytes + held.cost.bytes_of(num_slots)
        return num_slots * num_bytes // max(capacity, 1)

    def copy(self) -> "Account":
        """A copy that can be changed alone."""
        holdings = {name: held.copy() for name, held in self.holdings.items()}
        return Account(holdings, self.num_seen, self.num_altered, self.state_bytes, list(self.seen), self.number)

    @property
    def by_group(self) -> dict[tuple[str, str], int]:
        """Bytes allocated by area and group of layers; states are no area's."""
        found = {("", STATE): self.state_bytes} if self.state_bytes else {}
        for name, held in self.holdings.items():
            found |= {(name, group): num_bytes for group, num_bytes in held.by_group.items()}
        return found


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
