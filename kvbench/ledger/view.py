"""What strategies see of the ledger."""

from collections.abc import Collection, Hashable, Iterator
from copy import copy

from kvbench.ledger.booking import Draft
from kvbench.ledger.following import completed
from kvbench.ledger.names import Idle, Named
from kvbench.ledger.state import LedgerState
from kvbench.ledger.stored import DraftStored
from kvbench.plan.ops import MAIN, Plan

UNLIMITED = 2**62


class LedgerView:
    """What a strategy may know of the ledger: it reads, and cannot book."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: LedgerState) -> None:
        self._ledger = ledger

    def num_used(self, seq: int, area: str = MAIN) -> int:
        """Slots of an area that hold tokens."""
        return self._ledger.accounts[seq].holdings[area].num_used

    def capacity(self, seq: int, area: str = MAIN) -> int:
        """Slots that an area has allocated; those that a chunk has lost to eviction are not among them."""
        held = self._ledger.accounts[seq].holdings[area]
        return held.capacity - held.offset

    def allocated(self, seq: int, area: str = MAIN) -> int:
        """Slots that an area has allocated, in whole chunks: what a reserve adds to."""
        return self._ledger.accounts[seq].holdings[area].capacity

    def is_busy(self, seq: int, area: str = MAIN) -> bool:
        """Whether background work on an area is under way."""
        return self._ledger.accounts[seq].holdings[area].busy

    def next_capacity(self, seq: int, area: str = MAIN) -> int:
        """What a background resize will have made an area's slots; 0 without one."""
        return self._ledger.accounts[seq].holdings[area].next_capacity

    def frees_windows(self, area: str = MAIN) -> bool:
        """Whether layers with a window give back blocks of an area, or hold none of it."""
        return self._ledger.costs[area].frees_windows or self._ledger.follower is not None

    def has_name(self, key: Hashable) -> bool:
        """Whether there is a block of a name."""
        return key in self._ledger.names.copies

    def named(self, key: Hashable) -> Named:
        """What is known of the block of a name; there is one."""
        names = self._ledger.names
        return names.blocks[names.copies[key][0]]

    def is_held(self, key: Hashable) -> bool:
        """Whether a sequence holds the block of a name that it would be taken over in; there is one."""
        return self._ledger.names.copies[key][0] in self._ledger.sharers

    def idle(self, but: Collection[Hashable] = ()) -> Iterator[Hashable]:
        """Names of the blocks that no sequence holds, the first let go of first.

        Args:
            but: names, those of which are left out that would be taken over.
        """
        return (idle.named.key for idle in self.idle_blocks(but))

    def idle_blocks(self, but: Collection[Hashable] = ()) -> Iterator[Idle]:
        """The blocks that no sequence holds, so too, and their uses."""
        names = self._ledger.names
        for block in names.idle:
            named = names.blocks[block]
            if not but or named.key not in but or names.copies[named.key][0] != block:
                yield Idle(named, names.uses[block])

    def idle_bytes(self) -> int:
        """Bytes of the blocks that have a name and that no sequence holds."""
        ledger = self._ledger
        return sum(count * ledger.costs[area].block_bytes for area, count in ledger.names.num_idle.items())

    def stored(self) -> DraftStored:
        """Copies of blocks in tiers below the device, to look at and to try changes on; nothing is booked."""
        return DraftStored(self._ledger.stored)

    def free_bytes(self, area: str = MAIN) -> int:
        """Bytes of an area's pool that are not handed out."""
        return self._ledger.pool_bytes[area] - self._ledger.pooled_bytes[area]

    def block_bytes(self, area: str = MAIN) -> int:
        """Bytes of a block of an area."""
        return self._ledger.costs[area].block_bytes

    def num_left(self, seq: int, area: str = MAIN) -> int:
        """Blocks at the front of an area that a sequence has given back."""
        return self._ledger.accounts[seq].holdings[area].num_left

    def num_leaving(self, seq: int, area: str = MAIN) -> int:
        """Slots that a background move is taking from an area."""
        return self._ledger.accounts[seq].holdings[area].leaving

    def num_seen(self, seq: int) -> int:
        """Tokens appended to a sequence so far."""
        return self._ledger.accounts[seq].num_seen

    def num_altered(self, seq: int) -> int:
        """Tokens of a sequence that attention does not read as they were: evicted, out of its sight, or rounded."""
        return self._ledger.accounts[seq].num_altered

    def num_held(self, seq: int) -> int:
        """Tokens of a sequence that are held, attended or not."""
        return self._ledger.accounts[seq].num_held

    def num_attended(self, seq: int) -> int:
        """Tokens of a sequence that attention reads."""
        return self._ledger.accounts[seq].num_attended

    def device_slots(self, seq: int) -> tuple[int, int, int]:
        """A sequence's slots in use and allocated on the device, those of a coming resize included, and their bytes."""
        return self._ledger.accounts[seq].device_slots

    def by_group(self, seq: int) -> dict[tuple[str, str], int]:
        """Bytes that a sequence has allocated, by area and group of layers; those of states stand with no area."""
        return self._ledger.accounts[seq].by_group

    def _free_bytes(self, seq: int, budget_bytes: int) -> int:
        """What a budget has left, once the sequence's states are there."""
        ledger = self._ledger
        return ledger.left_of(budget_bytes) - (0 if ledger.accounts[seq].state_bytes else ledger.state_bytes)

    def after(self, plan: Plan) -> "LedgerView":
        """What the view would be after a plan; nothing is booked.

        Raises:
            LedgerError: an operation cannot be done.
            OutOfMemory: the plan does not fit.
        """
        ledger = copy(self._ledger)
        ledger.accounts, ledger.sharers = dict(ledger.accounts), dict(ledger.sharers)
        ledger.names, ledger.stored = ledger.names.copy(), ledger.stored.copy()
        draft = Draft(ledger)
        for op in completed(plan, self._ledger):
            draft.apply(op)
        draft.commit()
        return LedgerView(ledger)

    def room(self, seq: int, area: str = MAIN) -> int:
        """The most slots that an area could be resized to now, its old tensors held meanwhile."""
        ledger, held = self._ledger, self._ledger.accounts[seq].holdings[area]
        if ledger.budget_bytes is None:
            return UNLIMITED
        held_bytes = held.cost.bytes_of(held.capacity)
        twice_bytes = held.cost.twice_bytes(held.capacity)
        room = held.cost.slots_in(self._free_bytes(seq, ledger.budget_bytes) + held_bytes - twice_bytes)
        return UNLIMITED if room is None else room

    def room_beside(self, seq: int, capacity: int, area: str = MAIN) -> int:
        """The most slots that a background resize of an area could have, once its capacity is `capacity`, settled."""
        ledger, held = self._ledger, self._ledger.accounts[seq].holdings[area]
        if ledger.budget_bytes is None:
            return UNLIMITED
        free_bytes = self._free_bytes(seq, ledger.budget_bytes) + held.num_bytes - held.cost.bytes_of(capacity)
        room = held.cost.slots_in(free_bytes, capacity)
        return UNLIMITED if room is None else room

    def is_open(self, seq: int) -> bool:
        """Whether the sequence was admitted and not yet released."""
        return seq in self._ledger.accounts
