"""What the modelled backend asks of a machine: how long a piece of work takes on it, in picoseconds."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from kvbench.backend.rank import Passed
from kvbench.ledger import AreaCost, Posting
from kvbench.ledger.accounts import Holding
from kvbench.ledger.costs import held_as
from kvbench.model.cost import PS_PER_S, Prices, linear_ps, prices_of, products_ps, reading_ps, resize_ps
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import DEVICE, HOST, NORM, Area, Blocks, Cast, Chunks, Format, Native
from kvbench.plan.ops import Keep, Plan, Reserve


class Read(NamedTuple):
    """What attention reads of one area.

    Args:
        cost: the area, and its bytes.
        num_slots: slots that it reads, > 0.
    """

    cost: AreaCost
    num_slots: int


class Rates(Protocol):
    """How long work takes on a machine, in picoseconds.

    Attributes:
        deviation: how what is priced differs from what the machine was measured with; empty where it does not.
    """

    @property
    def deviation(self) -> str:
        """How what is priced differs from what the machine was measured with."""
        ...

    def iteration_ps(self) -> int:
        """What each pass over the live requests costs, whatever they do."""
        ...

    def linear_ps(self, num_tokens: int) -> int:
        """All but attention of a model, for the tokens of all steps of an iteration together."""
        ...

    def host_ps(self, plan: Plan, continued: bool) -> int:
        """What the host takes to plan, book and record a step; of a continued step, to book the rest."""
        ...

    def reserve_ps(self, op: Reserve, posting: Posting, cost: AreaCost, since_bytes: int) -> int:
        """A reserve: new storage, live slots copied to it, the old storage given back.

        Args:
            op: the operation.
            posting: what was booked of it.
            cost: its area, and its bytes.
            since_bytes: as in `attend_ps`.
        """
        ...

    def release_ps(self, holdings: Iterable[Holding]) -> int:
        """Giving back all that a sequence holds."""
        ...

    def copy_ps(self, num_bytes: int) -> int:
        """Copying slots that lie anywhere on the device."""
        ...

    def append_ps(self, cost: AreaCost, num_tokens: int) -> int:
        """Writing the K and V of new tokens."""
        ...

    def evict_ps(self, op: Keep, posting: Posting, cost: AreaCost) -> int:
        """Evicting slots: ranking them, and copying what stays."""
        ...

    def move_ps(self, posting: Posting, src: AreaCost, dst: AreaCost) -> int:
        """Moving slots to another area: reading, changing the format, the way to another tier, writing."""
        ...

    def attend_ps(self, reads: tuple[Read, ...], num_queries: int, since_bytes: int) -> int:
        """Attention of a sequence's newest tokens over what it holds.

        Args:
            reads: what it reads of each area.
            num_queries: newest tokens that attend.
            since_bytes: what other sequences read since this one read the same.
        """
        ...


class SheetRates:
    """Rates from a data sheet: bytes over bandwidth, operations over the peak, and fixed costs.

    Kernels read blocks, packed and cast slots where they lie, as engines on accelerators do, and cast as they write;
    slots of a slower tier come over its link while those on the device are read.

    Args:
        hardware: the sheet's figures.
        geometry: bytes of a slot.
        passed: the layers that a token passes, on this accelerator and others, and their parameters; without these the
            cache alone is priced.
        num_rows: rows of every sequence's batch.
    """

    def __init__(self, hardware: Hardware, geometry: KVGeometry, passed: Passed, num_rows: int) -> None:
        self._hardware = hardware
        self._num_rows = num_rows
        self._passed, weights = passed
        self._weights = weights
        self._prices = prices_of(hardware, self._passed, weights, num_rows, geometry)
        self._held: dict[Format, tuple[KVGeometry, Prices]] = {Native(): (geometry, self._prices)}
        self._has_weights = weights is not None
        memory_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency
        self._byte_ps = PS_PER_S / memory_per_s
        self._launch_ps = round(geometry.num_layers * hardware.launch_s * PS_PER_S)

    def _as_held(self, area: Area) -> tuple[KVGeometry, Prices]:
        """The geometry, and prices, in the dtype that an area casts to."""
        form = area.format if isinstance(area.format, Cast) else Native()
        if form not in self._held:
            geometry = held_as(area, self._held[Native()][0])
            passed = held_as(area, self._passed)
            self._held[form] = geometry, prices_of(self._hardware, passed, self._weights, self._num_rows, geometry)
        return self._held[form]

    @property
    def deviation(self) -> str:
        """Empty: a sheet holds for every model."""
        return ""

    def iteration_ps(self) -> int:
        """See `Prices.step_ps`; of the cache alone, every step has its own."""
        return self._prices.step_ps if self._has_weights else 0

    def linear_ps(self, num_tokens: int) -> int:
        """See `cost.linear_ps`."""
        return linear_ps(num_tokens, self._prices) if self._has_weights else 0

    def host_ps(self, plan: Plan, continued: bool) -> int:
        """Nothing: the host runs ahead of the accelerator."""
        return 0

    def reserve_ps(self, op: Reserve, posting: Posting, cost: AreaCost, since_bytes: int) -> int:
        """Allocations and copies of a contiguous area; each chunk is allocated, blocks are there."""
        match cost.area.layout:
            case Blocks():
                return 0
            case Chunks(chunk_tokens):
                return max(op.num_tokens - posting.num_before, 0) // chunk_tokens * resize_ps(0, self._prices)
        if not posting.requested_bytes:
            return 0
        return resize_ps(posting.copied_bytes, self._as_held(cost.area)[1])

    def release_ps(self, holdings: Iterable[Holding]) -> int:
        """Nothing: the framework's allocator keeps what is given back."""
        return 0

    def copy_ps(self, num_bytes: int) -> int:
        """Bytes read and written."""
        return round(2 * num_bytes * self._byte_ps)

    def append_ps(self, cost: AreaCost, num_tokens: int) -> int:
        """Bytes written; of the cache alone, the step's launches as well."""
        fixed = 0 if self._has_weights else self._prices.step_ps
        return num_tokens * self._as_held(cost.area)[1].write_ps + fixed

    def evict_ps(self, op: Keep, posting: Posting, cost: AreaCost) -> int:
        """Copies; ranking by norm reads all K and V."""
        ranked_bytes = cost.bytes_of(posting.num_before) if op.rule.by == NORM else 0
        if not (ranked_bytes or posting.copied_bytes):
            return 0
        return self._launch_ps + round(ranked_bytes * self._byte_ps) + self.copy_ps(posting.copied_bytes)

    def move_ps(self, posting: Posting, src: AreaCost, dst: AreaCost) -> int:
        """Reads and writes; over a link, bytes over its bandwidth and a transfer's fixed cost."""
        num_moved = posting.moved_bytes * dst.unit_tokens // dst.unit_bytes
        device_bytes = sum(c.bytes_of(num_moved) for c in (src, dst) if c.area.tier == DEVICE)
        spent = self._launch_ps + round(device_bytes * self._byte_ps) + self.copy_ps(posting.copied_bytes)
        ways = [cost for cost in (src, dst) if cost.area.tier != DEVICE]
        return spent + sum(self._way_ps(cost, num_moved) for cost in ways)

    def attend_ps(self, reads: tuple[Read, ...], num_queries: int, since_bytes: int) -> int:
        """Bytes read or operations done, whichever take longer; links beside."""
        over_links = sum(self._way_ps(read.cost, read.num_slots) for read in reads if read.cost.area.tier != DEVICE)
        num_slots = sum(read.num_slots for read in reads)
        num_new = min(num_queries, num_slots)
        on_device = sum(self._slots_ps(read, num_new, num_slots) for read in reads if read.cost.area.tier == DEVICE)
        return max(on_device, over_links, products_ps(num_new, num_slots - num_new, self._prices))

    def _slots_ps(self, read: Read, num_new: int, num_slots: int) -> int:
        """Reading an area's share of slots once; packed ones, and what is beside slots, cost their share of bytes."""
        cost, (geometry, prices) = read.cost, self._as_held(read.cost.area)
        whole_ps = reading_ps(num_new, num_slots - num_new, prices)
        as_given = geometry.bytes_per_token * self._num_rows * cost.unit_tokens * num_slots
        return whole_ps * read.num_slots * cost.unit_bytes // as_given if as_given else whole_ps

    def _way_ps(self, cost: AreaCost, num_slots: int) -> int:
        """Slots of a slower tier, there or back."""
        hardware = self._hardware
        link = hardware.host_bytes_per_s * hardware.host_efficiency
        per_s = link if cost.area.tier == HOST else min(link, hardware.disk_bytes_per_s)
        return self._prices.transfer_ps + round(cost.bytes_of(num_slots) * PS_PER_S / per_s)
