"""What the modelled backend asks of a machine: how long a piece of work takes on it, in picoseconds."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from kvbench.backend.shares import layers_of, voters_of
from kvbench.ledger import AreaCost, Posting
from kvbench.ledger.accounts import Holding
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import DEVICE, HOST, NORM, Area, Blocks, Cast, Chunks, Format, Native
from kvbench.plan.ops import Keep, Plan, Reserve
from kvbench.timing.links import token_ps
from kvbench.timing.prices import (
    Prices,
    moved_ps,
    num_scoring,
    products_ps,
    read_ps,
    reading_ps,
    resize_ps,
    scoring_ps,
    way_ps,
)
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import Work


class Read(NamedTuple):
    """What attention reads of one area.

    Args:
        cost: the area, and its bytes.
        num_slots: slots that it reads, > 0.
    """

    cost: AreaCost
    num_slots: int


class Decoding(NamedTuple):
    """The decode steps of an iteration, or its prompts, of which one is priced.

    Args:
        num_rows: sequences that take a decode step, row by row; 0 where the step is none.
        is_first: whether it is the first of them, or of the prompts.
        is_mixed: whether the iteration computes prompts, too.
        parts: of a unit that attention is counted in; see `shares.parts_of`.
    """

    num_rows: int = 0
    is_first: bool = False
    is_mixed: bool = False
    parts: int = 1


NO_DECODING = Decoding()


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

    def linear_ps(self, num_tokens: int, num_sequences: int) -> int:
        """All but attention of a model, for the tokens and the sequences of all steps of an iteration together."""
        ...

    def token_ps(self) -> int:
        """What computing a token more takes in a large step, but for attention."""
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

    def attend_ps(
        self, reads: tuple[Read, ...], num_queries: int, since_bytes: int, decoding: Decoding = NO_DECODING
    ) -> int:
        """Attention of a sequence's newest tokens over what it holds.

        Args:
            reads: what it reads of each area.
            num_queries: newest tokens that attend.
            since_bytes: what other sequences read since this one read the same.
            decoding: the iteration's decode steps, if this is one of them.
        """
        ...


class CacheRates:
    """Rates of the cache alone: bytes over bandwidth, operations over the peak, and fixed costs.

    Kernels read blocks, packed and cast slots where they lie, as engines on accelerators do, and cast as they write;
    slots of a slower tier come over its link while those on the device are read.

    Args:
        hardware: the sheet's figures.
        geometry: bytes of a slot.
        work: of the layers that a token passes, on this accelerator and others.
        num_rows: rows of every sequence's batch.
    """

    def __init__(self, hardware: Hardware, geometry: KVGeometry, work: Work, num_rows: int) -> None:
        self._hardware, self._geometry, self._work = hardware, geometry, work
        self._num_rows = num_rows
        self._held: dict[tuple[Format, tuple[str, ...] | None], tuple[KVGeometry, Prices]] = {}
        self._prices = self._as_held(Area())[1]

    def _as_held(self, area: Area) -> tuple[KVGeometry, Prices]:
        """The geometry of an area's layers, and their prices, in the dtype that it casts to."""
        form = area.format if isinstance(area.format, Cast) else Native()
        key = form, area.layers
        if key not in self._held:
            geometry, passed = (layers_of(area, each) for each in (self._geometry, self._work.geometry))
            work = self._work._replace(geometry=passed)
            self._held[key] = geometry, prices_of(self._hardware, work, self._num_rows, geometry)
        return self._held[key]

    @property
    def deviation(self) -> str:
        """Empty: a sheet holds for every model."""
        return ""

    def iteration_ps(self) -> int:
        """Nothing: every step has launches of its own."""
        return 0

    def linear_ps(self, num_tokens: int, num_sequences: int) -> int:
        """Nothing: the cache alone is priced."""
        return 0

    def token_ps(self) -> int:
        """See `timing.links.token_ps`."""
        return token_ps(self._prices, self._num_rows)

    def host_ps(self, plan: Plan, continued: bool) -> int:
        """Nothing: the host runs ahead of the accelerator."""
        return 0

    def reserve_ps(self, op: Reserve, posting: Posting, cost: AreaCost, since_bytes: int) -> int:
        """Allocations and copies of a contiguous area; each chunk is allocated, blocks are there."""
        if isinstance(cost.area.layout, Blocks) or not cost.groups:
            return 0
        prices = self._as_held(cost.area)[1]
        if isinstance(cost.area.layout, Chunks):
            num_chunks = max(op.num_tokens - posting.num_before, 0) // cost.area.layout.num_tokens
            return num_chunks * resize_ps(0, prices)
        return resize_ps(posting.copied_bytes, prices) if posting.requested_bytes else 0

    def release_ps(self, holdings: Iterable[Holding]) -> int:
        """Nothing: the framework's allocator keeps what is given back."""
        return 0

    def copy_ps(self, num_bytes: int) -> int:
        """Bytes read and written."""
        return moved_ps(num_bytes, self._prices.copy_ps, self._prices)

    def append_ps(self, cost: AreaCost, num_tokens: int) -> int:
        """Bytes written, and the step's launches."""
        if not cost.groups:
            return 0
        prices = self._as_held(cost.area)[1]
        return num_tokens * prices.write_ps + prices.step_ps

    def evict_ps(self, op: Keep, posting: Posting, cost: AreaCost) -> int:
        """Copies; ranking by norm reads all K and V."""
        ranked_bytes = cost.bytes_of(posting.num_before) if op.rule.by == NORM else 0
        if not (ranked_bytes or posting.copied_bytes):
            return 0
        return self._prices.launch_ps + read_ps(ranked_bytes, self._prices) + self.copy_ps(posting.copied_bytes)

    def move_ps(self, posting: Posting, src: AreaCost, dst: AreaCost) -> int:
        """Reads and writes; over a link, bytes over its bandwidth and a transfer's fixed cost."""
        num_moved = posting.moved_bytes * dst.unit_tokens // dst.unit_bytes
        device_bytes = sum(c.bytes_of(num_moved) for c in (src, dst) if c.area.tier == DEVICE)
        spent = self._prices.launch_ps + read_ps(device_bytes, self._prices) + self.copy_ps(posting.copied_bytes)
        ways = [cost for cost in (src, dst) if cost.area.tier != DEVICE]
        return spent + sum(self._way_ps(cost, num_moved) for cost in ways)

    def attend_ps(
        self, reads: tuple[Read, ...], num_queries: int, since_bytes: int, decoding: Decoding = NO_DECODING
    ) -> int:
        """Of the layers of each chain of areas, one after the other; links beside, and states."""
        over_links = sum(self._way_ps(read.cost, read.num_slots) for read in reads if read.cost.area.tier != DEVICE)
        chains: dict[int, list[Read]] = {}
        for read in reads:
            if read.cost.groups:
                chains.setdefault(read.cost.chain, []).append(read)
        on_device = sum(self._chain_ps(chain, num_queries, decoding) for chain in chains.values())
        has_states = any(read.cost.area.layers is None for chain in chains.values() for read in chain)
        beside = self._prices.state_ps if chains and not has_states else 0
        return max(on_device + beside + self._scoring_ps(reads, num_queries), over_links)

    def _scoring_ps(self, reads: tuple[Read, ...], num_queries: int) -> int:
        """What scores of slots take beside attention, in areas that have some."""
        scored = [read for read in reads if read.cost.area.score is not None]
        return sum(
            scoring_ps(num_scoring(num_queries, *voters_of(read.cost.area.score)), read.num_slots, self._prices)
            for read in scored
        )

    def _chain_ps(self, reads: list[Read], num_queries: int, decoding: Decoding) -> int:
        """Bytes read or operations done, whichever take longer."""
        num_slots = sum(read.num_slots for read in reads)
        num_new = min(num_queries, num_slots)
        read_ps = sum(
            self._share_ps(read, num_slots, reading_ps(num_new, num_slots - num_new, self._as_held(read.cost.area)[1]))
            for read in reads
            if read.cost.area.tier == DEVICE
        )
        prices = self._as_held(reads[0].cost.area)[1]
        return max(read_ps, products_ps(num_new, num_slots - num_new, prices))

    def _share_ps(self, read: Read, num_slots: int, whole_ps: int) -> int:
        """An area's share of reading slots of a chain; packed ones, and what is beside slots, cost by their bytes."""
        cost, geometry = read.cost, self._as_held(read.cost.area)[0]
        as_given = geometry.bytes_per_token * self._num_rows * cost.unit_tokens * num_slots
        return whole_ps * read.num_slots * cost.unit_bytes // as_given if as_given else whole_ps

    def _way_ps(self, cost: AreaCost, num_slots: int) -> int:
        """Slots of a slower tier, there or back."""
        each_ps = self._prices.swap_ps if cost.area.tier == HOST else self._prices.disk_ps
        return way_ps(cost.bytes_of(num_slots), each_ps, self._prices)
