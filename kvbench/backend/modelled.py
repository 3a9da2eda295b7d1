"""The modelled backend: the same plans, priced on a machine that need not be here. No tensor is made."""

from itertools import pairwise

from kvbench.backend.allocator import CachingAllocator
from kvbench.backend.allocator.tensors import Storages
from kvbench.backend.base import APPEND, ATTEND, MODEL, MOVE, NO_TIMES, RESERVE, Backend, Times
from kvbench.backend.curves import Curves
from kvbench.backend.rates import Rates, Read, Sheet
from kvbench.checks import check_share
from kvbench.ledger import NO_RECEIPT, Ledger
from kvbench.model.cost import PS_PER_NS, PS_PER_S
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters
from kvbench.naming import unknown
from kvbench.plan.area import DEVICE, Area
from kvbench.plan.ops import Append, Fork, Keep, Move, Operation, Plan, Release, Reserve, Settle

ALLOCATORS = ("none", "caching", "expandable")


class Modelled(Backend):
    """Price plans on a machine's figures, by a virtual clock.

    A ledger of its own, without a budget, tells it what each operation moves. Work in the background runs beside the
    steps, one piece after another.

    Args:
        geometry: the shape of a token's K and V.
        hardware: the machine's figures; None names none.
        weights: the model's parameters; None where they are not known.
        attend: whether steps attend.
        cache_only: whether weights and projections are left out, so that times are of the cache alone.
        memory_fraction: share of the machine's memory that may hold weights and cache, above 0 and at most 1.
        allocator: "caching" allocates every tensor in a model of torch's CUDA allocator as well, and pays for what
            that asks of the driver; "expandable" does so with its expandable segments; "none" does not.
        num_rows: rows of every sequence's batch, > 0.
    Raises:
        ValueError: there is no hardware, a whole model has no weights, or they do not fit.
    Source: Williams et al. 2009, Roofline, doi:10.1145/1498765.1498785.
    Departs: kernels follow each other, each with a roofline of its own; fixed costs are added.
    """

    source = "modelled"
    signals = ()
    is_repeatable = True

    def __init__(
        self,
        *,
        geometry: KVGeometry,
        hardware: Hardware | None,
        weights: ModelParameters | None = None,
        attend: bool = True,
        cache_only: bool = False,
        memory_fraction: float = 0.9,
        allocator: str = "none",
        num_rows: int = 1,
    ) -> None:
        if allocator not in ALLOCATORS:
            raise ValueError(unknown("allocator", allocator, ALLOCATORS))
        if allocator != "none" and geometry.num_window_layers:
            raise ValueError(
                f"allocator={allocator} holds every layer alike; {geometry.name} has sliding-window layers"
            )
        if hardware is None:
            raise ValueError("it prices plans on a machine: name one, such as hardware=h100, or use backend=measured")
        self.geometry = geometry
        self.hardware = hardware
        self.weights = None if cache_only else weights
        self.scope = "cache" if cache_only else "model"
        self.num_rows = num_rows
        self._attend = attend
        self._allocator_name = allocator
        self._rates = self._rates_of(cache_only)
        self._capacity_bytes = memory_left(hardware, geometry, self.weights, memory_fraction)
        self._now_ps = 0
        self.begin_repetition((Area(),))

    def _rates_of(self, cache_only: bool) -> Rates:
        hardware, geometry = self.hardware, self.geometry
        if hardware.curves is not None:
            if not cache_only:
                raise ValueError(f"{hardware.name} was calibrated for the cache alone: add cache_only=true")
            return Curves(hardware, geometry, self.num_rows)
        if self.weights is None and not cache_only:
            raise ValueError(
                f"model {geometry.name or 'without a name'} has no num_parameters to price its weights with: name one "
                "that has, such as model=llama3_8b, or price the cache alone with cache_only=true"
            )
        return Sheet(hardware, geometry, self.weights, self.num_rows)

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token as the model gives it, over all layers and rows."""
        return self.geometry.bytes_per_token * self.num_rows

    def memory_bytes(self) -> int:
        """The machine's memory, as far as it may be used, less the weights."""
        return self._capacity_bytes

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """Nothing: no input is made."""

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Begin with a clock at 0 and books that hold nothing."""
        self._now_ps = self._lane_ps = 0
        self._ready_ps: dict[int, int] = {}
        self._has_stepped = False
        self._num_tokens = 0
        self._read_bytes = 0
        self._read_until: dict[int, int] = {}
        self._ledger = Ledger(self.geometry, None, areas, self.num_rows)
        self._allocator: CachingAllocator | None = None
        self._storages: Storages | None = None
        if self._allocator_name != "none":
            self._allocator = CachingAllocator(None, self._allocator_name == "expandable")
            self._storages = Storages(self._allocator, self._ledger.costs, self.geometry, self.num_rows)

    def end_repetition(self) -> None:
        """Nothing is held."""

    def now_ns(self) -> int:
        """The virtual clock."""
        return self._now_ps // PS_PER_NS

    def begin_iteration(self) -> None:
        """Weights are to be read again, and launches paid."""
        self._has_stepped = False
        self._num_tokens = 0

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        self._ledger.open(seq)

    def check(self, plan: Plan) -> Times:
        """Wait for what a plan settles. See `Backend.check`."""
        waits = [0] * len(Times._fields)
        for op in plan:
            if isinstance(op, Settle):
                what = RESERVE if self._ledger.accounts[op.seq].is_growing else MOVE
                waits[what] += self._wait_ps(op.seq)
        return self._pass(waits)

    def step(self, plan: Plan, seq: int, num_queries: int, continued: bool = False) -> Times:
        """Book a plan, and let the clock pass what it and attention take. See `Backend.step`."""
        spent = [0] * len(Times._fields)
        for op in plan:
            what, ps = self._price(op)
            spent[what] += ps
            if self._storages is not None:
                spent[RESERVE] += self._allocate_ps(op)
        if num_queries:
            if self._attend:
                spent[ATTEND] += self._attend_ps(seq, num_queries)
            before = self._rates.linear_ps(self._num_tokens)
            self._num_tokens += num_queries * self.num_rows
            spent[MODEL] += self._rates.linear_ps(self._num_tokens) - before
            if not self._has_stepped:
                spent[MODEL] += self._rates.iteration_ps()
                self._has_stepped = True
        times = self._pass(spent)
        self._now_ps += self._rates.host_ps(plan, continued)
        return times

    def _pass(self, spent: list[int]) -> Times:
        """Let the clock pass so many picoseconds; what is cut off to whole nanoseconds is carried on."""
        if not any(spent):
            return NO_TIMES
        moments = [self._now_ps // PS_PER_NS]
        for ps in spent:
            self._now_ps += ps
            moments.append(self._now_ps // PS_PER_NS)
        return Times(*(after - before for before, after in pairwise(moments)))

    def _price(self, op: Operation) -> tuple[int, int]:
        """Book one operation; what its time counts as, and how much it is."""
        rates, ledger = self._rates, self._ledger
        match op:
            case Append(seq, num_tokens, name):
                receipt = ledger.book((op,)) or NO_RECEIPT
                area = ledger.costs[name].area
                copied = rates.copy_ps(receipt.copied_bytes) if receipt.copied_bytes else 0
                return APPEND, rates.append_ps(area, num_tokens) + copied
            case Reserve(seq, _, name, background):
                old_tokens = ledger.accounts[seq].holdings[name].capacity
                receipt = ledger.book((op,))
                ps = rates.reserve_ps(op, ledger.costs[name], old_tokens, receipt, self._since_bytes(seq))
                return RESERVE, self._beside(seq, ps) if background else ps
            case Keep(seq, _, name):
                num_used = ledger.accounts[seq].holdings[name].num_used
                receipt = ledger.book((op,))
                return MOVE, rates.evict_ps(op, ledger.costs[name], num_used, receipt)
            case Move(seq, src, dst, _, background):
                receipt = ledger.book((op,))
                ps = rates.move_ps(op, ledger.costs[src], ledger.costs[dst], receipt) if receipt.moved_bytes else 0
                return MOVE, self._beside(seq, ps) if background else ps
            case Settle(seq):
                what = RESERVE if ledger.accounts[seq].is_growing else MOVE
                receipt = ledger.book((op,))
                return what, rates.copy_ps(receipt.copied_bytes) if receipt.copied_bytes else 0
            case Fork():
                receipt = ledger.book((op,))
                return MOVE, rates.copy_ps(receipt.copied_bytes) if receipt.copied_bytes else 0
            case Release(seq):
                ps = self._wait_ps(seq) + rates.release_ps(ledger.accounts[seq].holdings.values())
                self._read_until.pop(seq, None)
                ledger.book((op,))
                return RESERVE, ps
            case _:
                ledger.book((op,))
                return MOVE, 0

    def _allocate_ps(self, op: Operation) -> int:
        """Let the allocator's model follow an operation; what it asked of the driver."""
        before = self._allocator.num_device_allocations
        self._storages.follow(op.seq, self._ledger.accounts.get(op.seq), isinstance(op, Keep | Move))
        num_allocations = self._allocator.num_device_allocations - before
        return round(num_allocations * self.hardware.device_allocation_s * PS_PER_S)

    def _beside(self, seq: int, ps: int) -> int:
        """Give work to the background, behind what it does already; the step itself takes no time for it."""
        self._lane_ps = max(self._lane_ps, self._now_ps) + ps
        self._ready_ps[seq] = self._lane_ps
        return 0

    def _wait_ps(self, seq: int) -> int:
        return max(self._ready_ps.pop(seq, 0) - self._now_ps, 0)

    def _attend_ps(self, seq: int, num_queries: int) -> int:
        """Attention over what a sequence holds."""
        reads, since_bytes = self._reads(seq), self._since_bytes(seq)
        self._read_bytes += sum(read.cost.bytes_of(read.num_slots) for read in reads)
        self._read_until[seq] = self._read_bytes
        return self._rates.attend_ps(reads, num_queries, since_bytes)

    def _since_bytes(self, seq: int) -> int:
        """What other sequences have read since this one last did, at most what is in use that it does not hold too."""
        since_bytes = self._read_bytes - self._read_until.get(seq, self._read_bytes)
        holdings = self._ledger.accounts[seq].holdings.values()
        own_bytes = sum(held.cost.bytes_of(held.num_used) for held in holdings if held.cost.area.tier == DEVICE)
        return max(min(since_bytes, self._ledger.used_bytes - own_bytes), 0)

    def _reads(self, seq: int) -> tuple[Read, ...]:
        """What attention reads of a sequence now."""
        holdings = self._ledger.accounts[seq].holdings.values()
        attended = [(held.cost, held.num_used - held.arriving) for held in holdings if held.cost.area.attended]
        return tuple(Read(cost, num_slots) for cost, num_slots in attended if num_slots)

    def drain(self) -> None:
        """Nothing is ever outstanding."""
        return None

    def allocator_peaks(self) -> dict[str, int]:
        """Those of the allocator's model; empty where none is asked for."""
        return {} if self._allocator is None else self._allocator.peaks()

    def describe(self) -> dict[str, object]:
        """The machine, and how far its figures were held against measured ones."""
        return {
            "device": "modelled",
            "device_name": self.hardware.name,
            "hardware_source": self.hardware.source,
            "validation": self.hardware.validation,
            "deviation": self._rates.deviation,
            "attention": "modelled" if self._attend else "off",
        }


def memory_left(
    hardware: Hardware, geometry: KVGeometry, weights: ModelParameters | None, memory_fraction: float
) -> int:
    """Bytes that a machine has for caches.

    Raises:
        ValueError: the fraction is no share, or the weights leave nothing.
    """
    check_share("memory_fraction", memory_fraction)
    usable = int(hardware.memory_bytes * memory_fraction)
    needed = 0 if weights is None else weights.num_bytes
    if needed >= usable:
        raise ValueError(
            f"the weights of {geometry.name or 'the model'} take {needed:,} bytes, and {hardware.name} has {usable:,} "
            f"(memory_fraction {memory_fraction:g} of {hardware.memory_bytes:,}): nothing is left for caches"
        )
    return usable - needed
