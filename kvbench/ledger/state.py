"""What a ledger knows: who holds what, and the sums."""

from collections.abc import Mapping

from kvbench.ledger.accounts import Account
from kvbench.ledger.costs import AreaCost, area_costs, workspace_bytes
from kvbench.ledger.declared import Declared
from kvbench.ledger.names import Names
from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.stored import Stored
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import ALL_TIERS, DEVICE, Area, Blocks, check_areas
from kvbench.plan.ops import Operation


class LedgerState:
    """Accounts by sequence, and occupancy by tier, in bytes.

    Args:
        geometry: bytes of a token.
        budget_bytes: the most that may be held on the device at any time; None: no limit.
        areas: how every sequence's slots live, oldest tokens first.
        num_rows: rows of every sequence's batch, > 0.
        declared: what whoever plans says of itself; None: nothing.
        stores: bytes of the tiers below the device that keep copies of named blocks.
    Raises:
        ValueError: a number is not positive, two areas have one name, or the geometry does not go into an area's format
            or layout.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        budget_bytes: int | None,
        areas: tuple[Area, ...],
        num_rows: int,
        declared: Declared | None,
        stores: Mapping[str, int],
    ) -> None:
        if budget_bytes is not None and budget_bytes < 1:
            raise ValueError(f"budget_bytes is 1 or more, or null for the device's own limit; got {budget_bytes}")
        if num_rows < 1:
            raise ValueError(f"a batch has 1 row or more, got {num_rows}")
        check_areas(areas)
        self.declared = declared
        self.geometry = geometry
        self.budget_bytes = budget_bytes
        self.areas = areas
        self.size(num_rows)
        self.used_bytes = 0
        """Of slots that hold tokens, those of blocks that have a name and nobody holds included."""
        self.tier_bytes = dict.fromkeys(ALL_TIERS, 0)
        self.pooled_bytes = dict.fromkeys(self.pool_bytes, 0)
        self.accounts: dict[int, Account] = {}
        self.sharers: dict[int, int] = {}
        self.names = Names()
        self.stored = Stored(stores)
        self.num_blocks = self.num_opened = 0
        self.has_begun = False

    def size(self, num_rows: int) -> None:
        """Set what a slot, a pool and the staging buffers come to in a batch of so many rows."""
        self.num_rows = num_rows
        self.costs = area_costs(self.areas, self.geometry, num_rows)
        self.num_chains = 1 + max(cost.chain for cost in self.costs.values())
        self.follower = next((name for name, cost in self.costs.items() if cost.area.follows), None)
        for area in self.areas:
            if isinstance(area.layout, Blocks) and area.layout.pool_tokens is None and not area.layout.of:
                raise ValueError(f"area {area.name}: a run says how large its pool is (Strategy.fitted), got none")
        has_states = any(cost.has_states for cost in self.costs.values())
        self.state_bytes = 0 if has_states else self.geometry.state_bytes * num_rows
        """Of a sequence, from its first reserve to its release, where states lie in no area."""
        self.workspace_bytes = workspace_bytes(self.areas, self.geometry, num_rows)
        self.pool_bytes = {
            name: cost.whole_bytes(cost.area.layout.pool)
            for name, cost in self.costs.items()
            if isinstance(cost.area.layout, Blocks) and not cost.area.layout.of
        }

    def counts_altered(self, cost: AreaCost) -> bool:
        """Whether a token that comes to an area counts as altered: once, where it is in what follows others as well."""
        if not cost.area.follows:
            return cost.area.alters
        return cost.area.alters and not all(each.area.alters for each in self.costs.values())

    @property
    def num_leading(self) -> int:
        """Chains of areas that plans append to; what follows them is none."""
        return self.num_chains - (self.follower is not None)

    @property
    def allocated_bytes(self) -> int:
        """Bytes allocated on the device: by sequences, and for reading."""
        return self.tier_bytes[DEVICE]

    @property
    def reading_bytes(self) -> int:
        """Bytes of the staging buffers, once there was a reserve."""
        return self.workspace_bytes if self.has_begun else 0

    @property
    def lent_bytes(self) -> int:
        """Bytes of device pools that sequences hold."""
        return sum(held for name, held in self.pooled_bytes.items() if self.tier_of(name) == DEVICE)

    @property
    def held_bytes(self) -> int:
        """Bytes of all storages, on all tiers: what is allocated, and the blocks that pools have not handed out."""
        return sum(self.tier_bytes.values()) + self.waiting_bytes

    def left_of(self, budget_bytes: int) -> int:
        """What a budget has left on the device, with whole pools and staging buffers, there already or not."""
        of_pools = sum(pool for name, pool in self.pool_bytes.items() if self.tier_of(name) == DEVICE)
        own_bytes = self.allocated_bytes - self.reading_bytes - self.lent_bytes
        return budget_bytes - own_bytes - self.workspace_bytes - of_pools

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the blocks that pools have not handed out."""
        return sum(self.pool_bytes.values()) - sum(self.pooled_bytes.values()) if self.has_begun else 0

    @property
    def fixed_bytes(self) -> int:
        """Bytes held whoever lives: staging buffers, pools, and copies below the device, once there was a reserve."""
        return self.reading_bytes + sum(self.pool_bytes.values()) + self.stored.num_bytes if self.has_begun else 0

    def has_room_beside(self, pool: str) -> bool:
        """Whether the budget could have held a larger pool: another block of it, beside all that is held."""
        cost, budget_bytes = self.costs[pool], self.budget_bytes
        return budget_bytes is None or self.left_of(budget_bytes) >= cost.whole_bytes(cost.area.blocks.num_tokens)

    def tier_of(self, area: str) -> str:
        """The tier of an area."""
        return self.costs[area].area.tier

    def account(self, seq: int, op: Operation) -> Account:
        """A sequence's account.

        Raises:
            LedgerError: the sequence is not open.
        """
        account = self.accounts.get(seq)
        if account is None:
            raise LedgerError(f"{op}: sequence {seq} is not open (never admitted, or released already)")
        return account
