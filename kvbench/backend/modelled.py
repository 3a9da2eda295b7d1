"""The modelled backend: the same plans, priced on a machine that need not be here. No tensor is made."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kvbench.backend.allocator import CachingAllocator
from kvbench.backend.allocator.tensors import Storages
from kvbench.backend.base import APPEND, ATTEND, MODEL, MOVE, NO_TIMES, RESERVE, Backend, Booking, Times
from kvbench.backend.choice import BackendChoice, Conditions
from kvbench.backend.curves import Curves
from kvbench.backend.links import TierLinks
from kvbench.backend.load import IterationLoad
from kvbench.backend.model_rates import ModelRates
from kvbench.backend.rank import rank_in
from kvbench.backend.rates import CacheRates, Decoding, Rates, Read
from kvbench.backend.shares import parts_of, priced_as
from kvbench.checks import check_int, check_share
from kvbench.ledger import Posting
from kvbench.ledger.costs import area_costs, as_held
from kvbench.messages import unknown
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters
from kvbench.plan.area import DEVICE, SIGNALS, Area
from kvbench.plan.ops import MAIN, Append, Fork, Keep, Move, Plan, Release, Reserve, Save, Settle
from kvbench.timing.doubt import MOST_DRAWS, REPLAYS
from kvbench.timing.iteration import iteration_of, spent_s
from kvbench.timing.links import link_of
from kvbench.timing.prices import PS_PER_NS, PS_PER_S
from kvbench.timing.work import Work

ALLOCATORS = ("none", "caching", "expandable")
NOTHING_UNDER_WAY = MOVE, 0
"""What waiting for background work counts as, and when it is done, in picoseconds: of a sequence that has none."""


@dataclass(frozen=True, kw_only=True)
class Modelled(BackendChoice):
    """Price plans on a machine that need not be here, by a virtual clock.

    Args:
        memory_fraction: share of the machine's memory that may hold weights and cache, above 0 and at most 1.
        allocator: "caching" allocates every tensor in a model of torch's CUDA allocator as well, and pays for what
            that asks of the driver; "expandable" does so with its expandable segments; "none" does not.
        replays: draws of the machine's times that intervals are made of; 0: there are none.
    Raises:
        ValueError: a setting is out of its range.
    Source: Williams et al. 2009, Roofline, doi:10.1145/1498765.1498785.
    Departs: kernels follow each other, each with a knee of its own between bytes and operations; fixed costs are added.
    """

    memory_fraction: float = 0.9
    allocator: str = "none"
    replays: int = REPLAYS

    def __post_init__(self) -> None:
        check_share("memory_fraction", self.memory_fraction)
        check_int("replays", self.replays, 0, MOST_DRAWS)
        if self.allocator not in ALLOCATORS:
            raise ValueError(unknown("allocator", self.allocator, ALLOCATORS))

    def made(self, conditions: Conditions) -> "ModelledBackend":
        """See `ModelledBackend`."""
        return ModelledBackend(self, conditions)


class ModelledBackend(Backend):
    """Prices of plans on a machine's figures.

    What each operation moved is in the receipt of its booking. Work in the background runs beside the steps, one piece
    after another.

    Args:
        chosen: the settings.
        conditions: the run's.
    Raises:
        ValueError: there is no hardware, a whole model has no weights, or they do not fit.
    """

    source = "modelled"
    is_repeatable = True
    hardware: Hardware

    def __init__(self, chosen: Modelled, conditions: Conditions) -> None:
        rank, hardware, cache_only = rank_in(conditions), conditions.machine, conditions.cache_only
        geometry = rank.geometry
        if conditions.parallel.data > 1:
            raise ValueError(f"it runs one replica, got parallel.data={conditions.parallel.data}: use backend=fleet")
        if chosen.allocator != "none" and any(group.tokens for group in geometry.groups):
            raise ValueError(
                f"allocator={chosen.allocator} holds every layer alike; {geometry.name} has sliding-window layers"
            )
        if hardware is None:
            raise ValueError("it prices plans on a machine: name one, such as hardware=h100, or use backend=measured")
        self.geometry = geometry
        self.hardware = hardware
        self.weights = None if cache_only else rank.weights
        self.num_accelerators = rank.num_accelerators
        self.replays = chosen.replays
        self._work = Work(rank.work.geometry) if cache_only else rank.work
        self.scope = "cache" if cache_only else "model"
        self.num_rows = conditions.num_rows
        self.scheduling = conditions.scheduling.of_stages(self._work.num_stages)
        self.caches_prefixes, self.state_interval = conditions.caches_prefixes, conditions.state_interval
        self.state_block_tokens, self.window_interval = conditions.state_block_tokens, conditions.window_interval
        self._attend = conditions.attend
        self._allocator_name = chosen.allocator
        self._has_curves = cache_only and hardware.curves is not None
        self._rates = self._rates_of(cache_only)
        self.load_times = self._links = TierLinks(hardware, self._rates.token_ps(), conditions.seed)
        self._capacity_bytes = memory_left(hardware, geometry, self.weights, chosen.memory_fraction)
        self._now_ps = 0
        self.begin_repetition((Area(),))

    def _rates_of(self, cache_only: bool) -> Rates:
        hardware, geometry = self.hardware, self.geometry
        if hardware.curves is not None and hardware.kernels is None and not cache_only:
            raise ValueError(f"{hardware.name} was calibrated for the cache alone: add cache_only=true")
        if self._has_curves:
            if self.num_accelerators > 1:
                raise ValueError(f"{hardware.name} was calibrated alone; parallel asks for {self.num_accelerators}")
            return Curves(hardware, geometry.computed, self.num_rows)
        if self.weights is None and not cache_only:
            raise ValueError(
                f"model {geometry.name or 'without a name'} has no num_parameters to price its weights with: name one "
                "that has, such as model=llama3_8b, or price the cache alone with cache_only=true"
            )
        made = ModelRates if self._work.is_whole else CacheRates
        return made(hardware, geometry, self._work, self.num_rows)

    @property
    def signals(self) -> tuple[str, ...]:
        """All, where attention is priced by a data sheet: their product is priced as well."""
        return tuple(SIGNALS.values()) if self._attend and not self._has_curves else ()

    @property
    def why_no_signals(self) -> str:
        """See `Backend.why_no_signals`."""
        return f" ({self.hardware.name} was calibrated without)" if self._has_curves else ""

    def check_areas(self, areas: tuple[Area, ...]) -> None:
        """Refuse areas of some layers where a machine was calibrated with all, or an allocator holds all alike.

        Raises:
            ValueError: there is such an area.
        """
        own = [area for area in as_held(areas, self.geometry) if area.layers is not None]
        if own and (self._has_curves or self._allocator_name != "none"):
            by = "a calibrated machine" if self._has_curves else f"allocator={self._allocator_name}"
            raise ValueError(
                f"area {own[0].name} is of {', '.join(own[0].layers or ('no',))} layers, and {by} prices areas of all "
                "layers; use backend=measured"
            )

    def check_tiers(self, tier_bytes: Mapping[str, int], areas: tuple[Area, ...]) -> None:
        """Refuse a tier whose link the machine says nothing of. See `Backend.check_tiers`."""
        costs = area_costs(areas, self.geometry, self.num_rows)
        for tier in tier_bytes:
            link_of(self.hardware, tier, costs[MAIN].block_bytes)

    def work_s(
        self, num_tokens: NDArray[np.int64], most_tokens: NDArray[np.int64], num_sequences: NDArray[np.int64]
    ) -> dict[str, float]:
        """See `timing.iteration`; of the cache alone, none."""
        if not self._work.is_whole:
            return {}
        iteration, num_stages = iteration_of(self.hardware, self._work), self._work.num_stages
        of_batches = np.maximum(-(-num_tokens * self.num_rows // num_stages), most_tokens)
        return spent_s(iteration, of_batches, -(-num_sequences * self.num_rows // num_stages))

    def memory_bytes(self) -> int:
        """The machine's memory, as far as it may be used, less the weights."""
        return self._capacity_bytes

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Begin with a clock at 0, and nothing held."""
        self._now_ps = self._lane_ps = 0
        self._under_way: dict[int, tuple[int, int]] = {}
        self._has_stepped = False
        self._load = IterationLoad(self.scheduling, self._work.num_stages)
        self._decoding: Collection[int] = ()
        self._has_decoded = self._has_prompt = False
        self._decoded_alone: list[tuple[tuple[Read, ...], int, Decoding, int]] = []
        self._read_bytes = 0
        self._read_until: dict[int, int] = {}
        self._costs = area_costs(areas, self.geometry, self.num_rows)
        self._links.begin_repetition(self._costs.get(MAIN))
        self._begin_ps = 0
        self._priced = priced_as(self._costs, self.geometry, self.num_rows)
        self._parts = parts_of(self._costs.values(), self.geometry, self.num_rows)
        self._allocator: CachingAllocator | None = None
        self._storages: Storages | None = None
        if self._allocator_name != "none":
            self._allocator = CachingAllocator(None, self._allocator_name == "expandable")
            self._storages = Storages(self._allocator, self._costs, self.geometry, self.num_rows)

    def now_ns(self) -> int:
        """The virtual clock."""
        return self._now_ps // PS_PER_NS

    def begin_iteration(self, decoding: Collection[int] = ()) -> None:
        """Weights are to be read again, and the host paid. See `Backend.begin_iteration`."""
        self._has_stepped = self._has_decoded = self._has_prompt = False
        self._decoded_alone.clear()
        self._load = IterationLoad(self.scheduling, self._work.num_stages)
        self._decoding = decoding

    def end_iteration(self) -> None:
        """The next one begins. See `Backend.end_iteration`."""
        self._links.begin_iteration()
        self._begin_ps = self._now_ps

    def load_wait_ps(self, seq: int) -> int:
        """See `Backend.load_wait_ps`."""
        return self._links.waited_ps(seq)

    def wait_for_loads(self) -> Times:
        """See `Backend.wait_for_loads`."""
        spent = [0] * len(Times._fields)
        spent[MOVE] = max(self._begin_ps + self._links.last_ps - self._now_ps, 0)
        return self._pass(spent)

    def tier_times(self) -> dict[str, dict[str, int]]:
        """See `Backend.tier_times`."""
        return self._links.times_ps()

    def check(self, plan: Plan) -> Times:
        """Wait for what a plan settles. See `Backend.check`."""
        waits = [0] * len(Times._fields)
        for op in plan:
            if isinstance(op, Settle):
                what, ready_ps = self._under_way.pop(op.seq, NOTHING_UNDER_WAY)
                waits[what] += max(ready_ps - self._now_ps, 0)
        return self._pass(waits)

    def step(self, booking: Booking, num_queries: int, continued: bool = False) -> Times:
        """Let the clock pass what a plan and attention take. See `Backend.step`."""
        spent = [0] * len(Times._fields)
        for posting in booking.receipt.postings or map(Posting, booking.plan):
            what, ps = self._price(posting, booking)
            spent[what] += ps
            if posting.moved_bytes and isinstance(posting.op, Save):
                self._links.write(posting.op)
            if self._storages is not None:
                spent[RESERVE] += self._allocate_ps(posting)
        if num_queries:
            if self._attend:
                spent[ATTEND] += self._attend_ps(booking, num_queries)
            before, self._load = self._load, self._load.with_step(num_queries, self.num_rows)
            spent[MODEL] += self._rates.linear_ps(self._load.batch_tokens, self._load.num_sequences)
            spent[MODEL] -= self._rates.linear_ps(before.batch_tokens, before.num_sequences)
            if not self._has_stepped:
                spent[MODEL] += self._rates.iteration_ps()
                self._has_stepped = True
        self._links.load(booking.seq, booking.plan)
        times = self._pass(spent)
        self._now_ps += self._rates.host_ps(booking.plan, continued)
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

    def _price(self, posting: Posting, booking: Booking) -> tuple[int, int]:
        """What an operation's time counts as, and how much it is."""
        rates, costs = self._rates, self._costs
        match posting.op:
            case Append(_, num_tokens, name):
                return APPEND, rates.append_ps(self._priced[name], num_tokens) + self._copy_ps(posting)
            case Reserve(seq, _, name, background) as op:
                ps = rates.reserve_ps(op, posting, costs[name], self._since_bytes(booking))
                return RESERVE, self._beside(seq, RESERVE, ps) if background else ps
            case Keep(_, _, name) as op:
                return MOVE, rates.evict_ps(op, posting, costs[name])
            case Move(seq, src, dst, _, background):
                ps = rates.move_ps(posting, costs[src], costs[dst]) if posting.moved_bytes else 0
                return MOVE, self._beside(seq, MOVE, ps) if background else ps
            case Settle():
                return RESERVE if posting.capacity else MOVE, self._copy_ps(posting)
            case Fork():
                return MOVE, self._copy_ps(posting)
            case Release(seq):
                self._read_until.pop(seq, None)
                _, ready_ps = self._under_way.pop(seq, NOTHING_UNDER_WAY)
                return RESERVE, max(ready_ps - self._now_ps, 0) + rates.release_ps(posting.holdings)
            case _:
                return MOVE, 0

    def _copy_ps(self, posting: Posting) -> int:
        return self._rates.copy_ps(posting.copied_bytes) if posting.copied_bytes else 0

    def _allocate_ps(self, posting: Posting) -> int:
        """Let the allocator's model follow an operation; what it asked of the driver."""
        assert self._allocator is not None
        assert self._storages is not None
        before = self._allocator.num_device_allocations
        self._storages.follow(posting)
        num_allocations = self._allocator.num_device_allocations - before
        return round(num_allocations * self.hardware.device_allocation_s * PS_PER_S)

    def _beside(self, seq: int, what: int, ps: int) -> int:
        """Give work to the background, behind what it does already; the step itself takes no time for it."""
        self._lane_ps = max(self._lane_ps, self._now_ps) + ps
        before, _ = self._under_way.get(seq, NOTHING_UNDER_WAY)
        self._under_way[seq] = (min(before, what), self._lane_ps)
        return 0

    def _attend_ps(self, booking: Booking, num_queries: int) -> int:
        """Attention over what a sequence holds."""
        assert booking.account is not None  # who attends is live
        holdings = booking.account.holdings.values()
        attended = [(held.cost.area, held.num_used - held.arriving) for held in holdings if held.cost.area.attended]
        reads = tuple(Read(self._priced[area.name], num_slots) for area, num_slots in attended if num_slots)
        since_bytes = self._since_bytes(booking)
        self._read_bytes += sum(read.cost.bytes_of(read.num_slots) for read in reads)
        self._read_until[booking.seq] = self._read_bytes
        decoding = self._decoded(booking.seq, num_queries)
        ps = self._rates.attend_ps(reads, num_queries, since_bytes, decoding)
        if decoding.num_rows:
            self._decoded_alone.append((reads, since_bytes, decoding, ps))
        else:
            self._has_prompt = True
            before_ps, self._load = self._load.attention_ps, self._load.with_prompt(ps, num_queries)
            ps = self._load.attention_ps - before_ps
        return ps + self._mixed_ps()

    def _mixed_ps(self) -> int:
        """What decode steps take longer than was let pass, once their iteration is known to compute prompts, too."""
        if not self._has_prompt:
            return 0
        more_ps = 0
        for reads, since_bytes, decoding, ps in self._decoded_alone:
            more_ps += self._rates.attend_ps(reads, 1, since_bytes, decoding._replace(is_mixed=True)) - ps
        self._decoded_alone.clear()
        return more_ps

    def _decoded(self, seq: int, num_queries: int) -> Decoding:
        """The iteration's decode steps, if a sequence's step is one of them, or its prompts."""
        if num_queries > 1 or seq not in self._decoding:
            return Decoding(is_first=not self._has_prompt)
        is_first, self._has_decoded = not self._has_decoded, True
        return Decoding(len(self._decoding) * self.num_rows, is_first, parts=self._parts)

    def _since_bytes(self, booking: Booking) -> int:
        """What other sequences have read since this one last did, at most what is in use that it does not hold too."""
        since_bytes = self._read_bytes - self._read_until.get(booking.seq, self._read_bytes)
        holdings = booking.account.holdings.values() if booking.account else ()
        own_bytes = sum(held.cost.bytes_of(held.num_used) for held in holdings if held.cost.area.tier == DEVICE)
        return max(min(since_bytes, booking.used_bytes - own_bytes), 0)

    def allocator_peaks(self) -> dict[str, int]:
        """Those of the allocator's model; empty where none is asked for."""
        return {} if self._allocator is None else self._allocator.peaks()

    def describe(self) -> dict[str, object]:
        """The machine, and how far its figures were held against measured ones."""
        return {
            "device": "modelled",
            "device_name": machines_named(self.hardware, self.num_accelerators),
            "hardware_source": self.hardware.source,
            "validation": self.hardware.validation,
            "deviation": self._rates.deviation,
            "attention": "modelled" if self._attend else "off",
        }


def machines_named(hardware: Hardware, num_accelerators: int) -> str:
    """One machine, or several of a kind, for people."""
    return f"{num_accelerators} × {hardware.name}" if num_accelerators > 1 else hardware.name


def memory_left(
    hardware: Hardware, geometry: KVGeometry, weights: ModelParameters | None, memory_fraction: float
) -> int:
    """Bytes that a machine has for caches.

    Raises:
        ValueError: the weights leave nothing.
    """
    usable = int(hardware.memory_bytes * memory_fraction)
    needed = 0 if weights is None else weights.num_bytes
    if needed >= usable:
        raise ValueError(
            f"the weights of {geometry.name or 'the model'} take {needed:,} bytes, and {hardware.name} has {usable:,} "
            f"(memory_fraction {memory_fraction:g} of {hardware.memory_bytes:,}): nothing is left for caches"
        )
    return usable - needed
