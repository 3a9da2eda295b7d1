"""The ledger: it books every byte, refuses what cannot be done, and is the only thing that counts."""

from kvbench.accounts import Account, AreaCost, Holding, Receipt, area_cost, pool_bytes, workspace_bytes
from kvbench.area import DEVICE, TIERS, Area, Blocks, Packed, Ring
from kvbench.booking import Draft
from kvbench.geometry import KVGeometry
from kvbench.ops import MAIN, Append, Keep, Operation, Plan
from kvbench.outcome import LedgerError, OutOfMemory

__all__ = ["UNLIMITED", "Ledger", "LedgerError", "LedgerView", "OutOfMemory", "Receipt"]

UNLIMITED = 2**62
ONE_AREA = (Area(),)


class Ledger:
    """Occupancy of device, host and disk, in bytes, by sequence.

    What reading needs on the device (staging buffers) and the pools that blocks come from are held from the first
    reserve on, until the ledger's end: `workspace_bytes` counts as allocated, of a pool only the blocks handed out do.

    Args:
        geometry: bytes of a token.
        budget_bytes: the most that may be held on the device at any time, the double buffer of a resize and whole pools
            included; None: no limit.
        areas: how every sequence's slots live, oldest tokens first.
        num_rows: rows of every sequence's batch, > 0.
    Raises:
        ValueError: the budget is not positive, or the geometry does not go into an area's format.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        budget_bytes: int | None = None,
        areas: tuple[Area, ...] = ONE_AREA,
        num_rows: int = 1,
    ) -> None:
        if budget_bytes is not None and budget_bytes < 1:
            raise ValueError(f"budget_bytes is 1 or more, or null for the device's own limit; got {budget_bytes}")
        if num_rows < 1:
            raise ValueError(f"a batch has 1 row or more, got {num_rows}")
        self.geometry = geometry
        self.budget_bytes = budget_bytes
        self.areas = areas
        self.costs = {area.name: area_cost(area, geometry, num_rows) for area in areas}
        self.workspace_bytes = workspace_bytes(areas, geometry, num_rows)
        self.pool_bytes = {
            name: pool_bytes((cost,)) for name, cost in self.costs.items() if isinstance(cost.area.layout, Blocks)
        }
        self.used_bytes = 0
        self.tier_bytes = dict.fromkeys(TIERS, 0)
        self.pooled_bytes = dict.fromkeys(self.pool_bytes, 0)
        self.accounts: dict[int, Account] = {}
        self.sharers: dict[int, int] = {}
        self.num_blocks = 0
        self.has_begun = False
        self.view = LedgerView(self)

    @property
    def allocated_bytes(self) -> int:
        """Bytes allocated on the device: by sequences, and for reading."""
        return self.tier_bytes[DEVICE]

    @property
    def lent_bytes(self) -> int:
        """Bytes of device pools that sequences hold."""
        return sum(held for name, held in self.pooled_bytes.items() if self.tier_of(name) == DEVICE)

    @property
    def held_bytes(self) -> int:
        """Bytes of all storages, on all tiers: what is allocated, and the blocks that pools have not handed out."""
        waiting = sum(self.pool_bytes.values()) - sum(self.pooled_bytes.values()) if self.has_begun else 0
        return sum(self.tier_bytes.values()) + waiting

    @property
    def fixed_bytes(self) -> int:
        """Bytes held until the ledger's end, whoever lives: staging buffers and pools, once there was a reserve."""
        return self.workspace_bytes + sum(self.pool_bytes.values()) if self.has_begun else 0

    def tier_of(self, area: str) -> str:
        """The tier of an area."""
        return self.costs[area].area.tier

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet.

        Args:
            seq: its number; not one that is open.
        Raises:
            LedgerError: the sequence is open already.
        """
        if seq in self.accounts:
            raise LedgerError(f"sequence {seq} is open already")
        self.accounts[seq] = Account({name: Holding(cost) for name, cost in self.costs.items()})

    def book(self, plan: Plan) -> Receipt | None:
        """Book a plan whole, or nothing of it.

        Returns:
            The receipt; None for an empty plan and for the common cases, one append that fits, and a full ring's next
            token: they move nothing.
        Raises:
            LedgerError: an operation cannot be done.
            OutOfMemory: the plan's peak is over the budget, or a pool is exhausted.
        """
        if plan and (type(plan[-1]) is not Append or not self._is_booked(plan)):
            draft = Draft(self)
            for op in plan:
                draft.apply(op)
            return draft.commit()
        return None

    def _is_booked(self, plan: Plan) -> bool:
        """Book one of the common cases, and say whether it was one."""
        append = plan[-1]
        account = self.account(append.seq, append)
        held = account.holdings.get(append.area)
        if held is None or not held.is_private or append.num_tokens < 1 or isinstance(held.cost.area.format, Packed):
            return False
        if len(plan) == 1:
            if append.num_tokens > held.room:
                return False
            held.num_used += append.num_tokens
            if held.cost.area.tier == DEVICE:
                self.used_bytes += append.num_tokens * held.cost.unit_bytes
        elif not self._is_ring_step(plan, held, append.num_tokens):
            return False
        else:
            account.num_altered += append.num_tokens
        account.num_seen += append.num_tokens
        return True

    @staticmethod
    def _is_ring_step(plan: Plan, held: Holding, num_tokens: int) -> bool:
        keep, layout = plan[0], held.cost.area.layout
        if len(plan) != 2 or type(keep) is not Keep or type(layout) is not Ring or held.busy:  # noqa: PLR2004
            return False
        rule = keep.rule
        fits = held.num_used == held.capacity == rule.first + rule.recent + num_tokens
        same = keep.seq == plan[1].seq and keep.area == plan[1].area
        return fits and same and rule.first == layout.num_pinned and not rule.top

    def account(self, seq: int, op: Operation) -> Account:
        """A sequence's account.

        Raises:
            LedgerError: the sequence is not open.
        """
        account = self.accounts.get(seq)
        if account is None:
            raise LedgerError(f"{op}: sequence {seq} is not open (never admitted, or released already)")
        return account


class LedgerView:
    """What a strategy may know of the ledger: it reads, and cannot book."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
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

    def num_leaving(self, seq: int, area: str = MAIN) -> int:
        """Slots that a background move is taking from an area."""
        return self._ledger.accounts[seq].holdings[area].leaving

    def num_seen(self, seq: int) -> int:
        """Tokens appended to a sequence so far."""
        return self._ledger.accounts[seq].num_seen

    def num_altered(self, seq: int) -> int:
        """Tokens of a sequence that attention does not read as they were: evicted, out of its sight, or rounded."""
        return self._ledger.accounts[seq].num_altered

    def num_attended(self, seq: int) -> int:
        """Tokens of a sequence that attention reads."""
        holdings = self._ledger.accounts[seq].holdings.values()
        return sum(held.num_used - held.arriving for held in holdings if held.cost.area.attended)

    def device_slots(self, seq: int) -> tuple[int, int, int]:
        """A sequence's slots in use and allocated on the device, and their bytes."""
        holdings = [h for h in self._ledger.accounts[seq].holdings.values() if h.cost.area.tier == DEVICE]
        capacity = sum(held.capacity for held in holdings)
        num_bytes = sum(held.cost.bytes_of(held.capacity) for held in holdings)
        return sum(held.num_used for held in holdings), capacity, num_bytes

    def room(self, seq: int, area: str = MAIN) -> int:
        """The most slots that an area could be resized to now, its old tensors held meanwhile."""
        ledger, held = self._ledger, self._ledger.accounts[seq].holdings[area]
        if ledger.budget_bytes is None:
            return UNLIMITED
        held_bytes = held.cost.bytes_of(held.capacity)
        others_bytes = ledger.allocated_bytes - held_bytes
        twice_bytes = held_bytes // held.cost.num_tensors
        free_bytes = ledger.budget_bytes - others_bytes - twice_bytes
        return max(free_bytes * held.cost.unit_tokens // held.cost.unit_bytes, 0)

    def is_open(self, seq: int) -> bool:
        """Whether the sequence was admitted and not yet released."""
        return seq in self._ledger.accounts

    def area_cost(self, area: str = MAIN) -> AreaCost:
        """An area's bytes."""
        return self._ledger.costs[area]
