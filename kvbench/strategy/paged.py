"""Paging: blocks of a shared pool, a block table a sequence."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from kvbench.checks import check_bound, check_flag, check_int, check_one_of, size_of
from kvbench.engine.eviction import EVICTIONS, LRU, OPTIMAL
from kvbench.engine.prefixes import full_blocks
from kvbench.engine.tiers import ALWAYS, BELOW, THROUGH, TIER_LOADS, TIER_WRITES, tier_blocks
from kvbench.ledger import UNLIMITED, LedgerView, Limits
from kvbench.ledger.costs import area_cost, covered
from kvbench.model.accelerator import MOST_BYTES
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, STATE, STATE_REACH, WINDOW
from kvbench.plan.area import STAGING_TOKENS, Area, Blocks, Cast, Format, Native
from kvbench.plan.ops import MAIN, NOTHING, Fork, Plan, Publish, Reserve
from kvbench.strategy.base import IntegerRule, Strategy, append_in_units, constant, derived, in_units
from kvbench.strategy.block_tables import ALL, NO_STOPS, BlockTable, BlockTables, Stops
from kvbench.strategy.eviction import EvictionOrder
from kvbench.strategy.fetches import Fetches
from kvbench.strategy.tiers import NO_TIERS, Tiers
from kvbench.workload.request import Session

STATE_TOKENS = 16
"""Of which blocks are a multiple that are as large as a state."""
_, KEEP, LATE = WINDOW_BLOCKS = ("free", "keep", "late")
LEAST_WINDOW = 2
"""Tokens: of a window of one, no block is needed where a sequence goes on."""


def _table_of(area: Area, geometry: KVGeometry) -> BlockTable:
    """The table of an area of layers with a window, or with states."""
    groups = [group for _, group in covered(area, geometry)]
    if groups[0].kind == STATE:
        return BlockTable(area.name, STATE_REACH, has_states=True)
    return BlockTable(area.name, max(group.tokens or 0 for group in groups))


def _prompt_tokens(session: Session, otherwise: int) -> int:
    """Tokens of the prompt of a session that is one request."""
    return session.turns[0].num_append_tokens if len(session.turns) == 1 else otherwise


@dataclass(frozen=True, kw_only=True)
class Paged(Strategy):
    """Take blocks from a pool that all sequences share; samples of one prompt share its blocks.

    At most one block of a sequence is partly empty, and nothing is copied but a shared block that a sequence writes to.
    Attention reads a gather of the blocks.

    Args:
        block_size: tokens of a block, > 0, a divisor of 1,024; where states are kept, a multiple of 16 too, and 16 is
            the engine's, which is as large as a state.
        pool_tokens: tokens of the pool, a multiple of block_size, allocated at the first use; None: all of the run's
            budget (in tensors, no more than its requests can fill).
        window_blocks: "free": layers with a window or in chunks have tables of their own, and give back blocks that it
            has left, as vLLM's hybrid manager does; "keep": all layers hold the same blocks, as they do where there are
            no such layers; "late": as free, but what a window has left goes with the sequence's next step, as vLLM's
            scheduler has it, and as it is with prefix_caching; None: free, and keep in a fleet that keeps no
            prefixes, whose header says so, and with them where layers are in chunks, as vLLM does since 0.10.1.
        format: dtype of eight bits that K and V are cast to as they come, fp8_e4m3, fp8_e5m2 or int8; None: they are
            held as the model gives them.
        scale: what they are divided by before, a number, or "tensor" or "head" (see `Fp8`); 1 without a format.
        prefix_caching: keep blocks, named by what they and all before them hold, for later requests that begin alike:
            a request takes over the longest chain of its full blocks that is there; where the pool is full, blocks that
            nobody holds go, those behind which is none of these. None: as the engine does, and not without one.
        eviction: which of them first: lru (least recently used), fifo (of the request that was admitted first), lfu
            (found fewest times), session (whose last session has no turn to come) or optimal (which knows the requests
            to come: needed again last, in their order; a bound where they come one after another in that order); of
            equal ones the least recently used.
        host_bytes: of the host's memory, for each accelerator, that keep copies of named blocks below the device; 0:
            none. Tiers below the device, see `engine.tiers`, need prefix_caching.
        disk_bytes: the same of a disk, below the host.
        remote_bytes: the same of a store that others of the network may have too, below the disk.
        tier_writes: when blocks are stored below: "through", all that a request has, as it lets go of them at its end
            or preempted; "eviction", one that the device drops, as it goes.
        tier_loads: which blocks are loaded that are found below: "always" all; "cost" those that are loaded no slower
            than they are computed.
        prefetch: while a request waits to be admitted, fetch its blocks that lie below the first tier to it; two tiers
            or more.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Kwon et al. 2023, arXiv:2309.06180, sections 4.1 to 4.4; of windows, vLLM's hybrid KV cache manager; of
        prefixes, its block pool.
    Departs: reads are gathered into a staging buffer and merged by their log-sum-exp, where vLLM's kernel follows the
        block table; preemption recomputes, it never swaps; where windows free blocks, samples share none.
    """

    block_size: int = 16
    pool_tokens: int | None = None
    window_blocks: str | None = None
    prefix_caching: bool | None = None
    eviction: str = "lru"
    format: str | None = None
    scale: float | str = 1.0
    host_bytes: int = 0
    disk_bytes: int = 0
    remote_bytes: int = 0
    tier_writes: str = THROUGH
    tier_loads: str = ALWAYS
    prefetch: bool = False

    def __post_init__(self) -> None:
        check_int("block_size", self.block_size, 1)
        check_bound("pool_tokens", self.pool_tokens)
        if self.window_blocks is not None:
            check_one_of("window_blocks", self.window_blocks, WINDOW_BLOCKS)
        if self.format is None and self.scale != 1:
            raise ValueError(f"scale is 1 where format is null, got {self.scale!r}")
        if STAGING_TOKENS % self.block_size and self.block_size % STATE_TOKENS:
            raise ValueError(f"block_size divides {STAGING_TOKENS}, got {self.block_size}")
        if self.pool_tokens is not None and self.pool_tokens % self.block_size:
            raise ValueError(f"pool_tokens is a multiple of block_size ({self.block_size}), got {self.pool_tokens}")

        if self.prefix_caching is not None:
            check_flag("prefix_caching", self.prefix_caching)
        self._check_tiers()
        check_one_of("eviction", self.eviction, EVICTIONS)
        if self.eviction != EVICTIONS[LRU] and self.prefix_caching is False:
            raise ValueError(f"eviction={self.eviction} orders blocks that are kept, and prefix_caching is false")
        _ = self._format  # refuses what is none

    def _check_tiers(self) -> None:
        for tier in BELOW:
            name = f"{tier}_bytes"
            object.__setattr__(self, name, size_of(name, getattr(self, name), 0, MOST_BYTES))
        check_one_of("tier_writes", self.tier_writes, TIER_WRITES)
        check_one_of("tier_loads", self.tier_loads, TIER_LOADS)
        check_flag("prefetch", self.prefetch)
        if self.tier_bytes and self.prefix_caching is False:
            first = next(iter(self.tier_bytes))
            raise ValueError(
                f"{first}_bytes keeps named blocks, and prefix_caching is false: set that to true, or it to 0"
            )
        if self.prefetch and len(self.tier_bytes) < 2:  # noqa: PLR2004
            raise ValueError(
                f"prefetch fetches blocks to the first tier below the device from others, and there are "
                f"{list(self.tier_bytes)}: set two of {', '.join(f'{tier}_bytes' for tier in BELOW)}, or it to false"
            )

    @property
    def tier_bytes(self) -> dict[str, int]:
        """Bytes of the tiers below the device that there are, the next below first."""
        return {tier: num_bytes for tier in BELOW if (num_bytes := getattr(self, f"{tier}_bytes"))}

    @property
    def _format(self) -> Format:
        return Native() if self.format is None else Cast(self.format, self.scale)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Blocks of one pool."""
        layout = Blocks(self.block_size, self.pool_tokens, self.window_blocks != KEEP)
        return (Area(layout=layout, format=self._format),)

    @derived
    def reference(self) -> bool:
        """Whether it knows which requests are to come."""
        return self.eviction == EVICTIONS[OPTIMAL]

    @derived
    def lossless(self) -> bool:
        """Whether K and V are held as the model gives them."""
        return self.format is None

    def fitted(self, limits: Limits) -> Strategy:
        """The same strategy with a pool's size, and what becomes of windows' blocks. See `Strategy.fitted`."""
        if self.prefix_caching is None:
            dropped = {} if limits.caches_prefixes else self._without_names
            return self._with(prefix_caching=limits.caches_prefixes, **dropped).fitted(limits)
        has_chunks = any(group.kind == CHUNKED for group in limits.geometry.groups)
        if self.window_blocks is None and (has_chunks if self.prefix_caching else limits.keeps_windows):
            return self._with(window_blocks=KEEP).fitted(limits)
        if self._keeps_states(limits.geometry):
            size = limits.state_block_tokens or self.block_size
            if self.block_size == Paged.block_size != size:
                return self._with(block_size=size).fitted(limits)
        elif STAGING_TOKENS % self.block_size:
            raise ValueError(
                f"block_size divides {STAGING_TOKENS} where no states are kept, got {self.block_size}, and "
                f"{limits.geometry.called} has {limits.geometry.kinds}"
            )
        areas = self._with_tables(limits.geometry) if self._tables.tables == ALL else self.areas
        if len(areas) > 1 and self.eviction != EVICTIONS[LRU]:
            raise ValueError(
                f"eviction={self.eviction} orders blocks by what is behind them, and windows and states leave theirs "
                f"one by one; {limits.geometry.called} has {limits.geometry.kinds}: allowed is lru"
            )
        others = [_table_of(area, limits.geometry) for area in areas[1:]]
        most_tokens = limits.context_tokens or UNLIMITED
        tiers = self._tiers_of(areas, limits)
        tables = BlockTables(
            self.block_size,
            (*ALL, *others),
            limits.step_tokens,
            most_tokens,
            tiers,
            limits.state_interval,
            limits.window_interval,
        )
        return self._with(areas=limits.sized(areas, self.pooled_tokens), _tables=tables)

    def _tiers_of(self, areas: tuple[Area, ...], limits: Limits) -> Tiers:
        """The tiers below the device, in blocks."""
        if not self.tier_bytes:
            return NO_TIERS
        if len(areas) > 1:
            raise ValueError(
                f"{next(iter(self.tier_bytes))}_bytes: tiers below the device keep blocks that all layers hold alike, "
                f"and {limits.geometry.called} has {limits.geometry.kinds}: set "
                f"{'' if limits.geometry.state_bytes else 'window_blocks to keep, or '}it to 0"
            )
        block_bytes = area_cost(areas[0], limits.geometry, limits.num_rows).block_bytes
        for tier, num_bytes in self.tier_bytes.items():
            if num_bytes < block_bytes:
                raise ValueError(f"{tier}_bytes is 0, or at least a block's {block_bytes:,}; got {num_bytes:,}")
        blocks = {tier: tier_blocks(num_bytes, block_bytes) for tier, num_bytes in self.tier_bytes.items()}
        return Tiers(blocks, self.tier_writes, self.tier_loads, self.block_size, limits.load_times)

    @property
    def tables(self) -> BlockTables:
        """Tables of blocks that every sequence has."""
        return self._tables

    @property
    def _without_names(self) -> dict[str, object]:
        """What says nothing where no blocks are kept."""
        return {f"{tier}_bytes": 0 for tier in BELOW} | {"eviction": EVICTIONS[LRU], "prefetch": False}

    @derived
    def _tables(self) -> BlockTables:
        return BlockTables(self.block_size)

    def _with_tables(self, geometry: KVGeometry) -> tuple[Area, ...]:
        """Areas with those that have tables of their own."""
        return self._with_states(geometry) if self._keeps_states(geometry) else self._with_windows(geometry)

    def _keeps_states(self, geometry: KVGeometry) -> bool:
        return bool(self.prefix_caching and geometry.state_bytes)

    def _with_states(self, geometry: KVGeometry) -> tuple[Area, ...]:
        """Areas with one for the layers with states, where these are kept."""
        others = [group for _, group in covered(Area(), geometry)]
        if not others or any(group.tokens is not None for group in others):
            raise ValueError(
                f"prefix_caching: states are kept beside blocks of layers that all see all tokens, and "
                f"{geometry.called} has {geometry.kinds}; set it to false"
            )
        (area,) = self.areas
        states = replace(area, name=STATE, layout=Blocks(self.block_size, None, of=MAIN), layers=(STATE,))
        names = tuple(name for name, _ in covered(Area(), geometry))
        return (replace(area, layers=names, layout=replace(area.blocks, frees_windows=False)), states)

    def _with_windows(self, geometry: KVGeometry) -> tuple[Area, ...]:
        """Areas with one for each group of layers with a window, where these have tables that are kept or late."""
        bounded = [(name, group) for name, group in covered(Area(), geometry) if group.tokens is not None]
        others = tuple(name for name, group in covered(Area(), geometry) if group.tokens is None)
        if self.window_blocks == KEEP or not bounded or not (self.prefix_caching or self.window_blocks == LATE):
            return self.areas
        least = min(group.tokens or 0 for _, group in bounded)
        if not others or least < LEAST_WINDOW or any(group.kind != WINDOW for _, group in bounded):
            raise ValueError(
                f"blocks of windows that are kept, or late, are beside layers that see all tokens, and of windows of "
                f"{LEAST_WINDOW} or more; {geometry.called} has {geometry.kinds}: window_blocks is keep"
            )
        (area,) = self.areas
        layout = Blocks(self.block_size, None, of=MAIN)
        words = [f"{name}_1" if name == group.kind and len(bounded) > 1 else name for name, group in bounded]
        beside = (replace(area, name=word, layout=layout, layers=(word,)) for word in words)
        return (replace(area, layers=others, layout=replace(area.blocks, frees_windows=False)), *beside)

    @property
    def attends_all(self) -> bool:
        """It evicts nothing."""
        return True

    def facts(self, geometry: KVGeometry) -> dict[str, object]:
        """See `Strategy.facts`."""
        return super().facts(geometry) | {"eviction": self.eviction if self.prefix_caching else ""}

    @property
    def integer_rule(self) -> IntegerRule:
        """Nothing at admission; whole blocks as they are required."""
        return IntegerRule(constant, (0,), in_units, (self.block_size,), None)

    @derived
    def _order(self) -> EvictionOrder:
        return EvictionOrder(self.eviction, self.block_size)

    @derived
    def _keys(self) -> dict[int, Sequence[Hashable]]:
        """Names of the full blocks of each sequence's tokens."""
        return {}

    @derived
    def _stops(self) -> dict[int, Stops]:
        """What is known of each sequence, where not all blocks get names."""
        return {}

    @derived
    def _fresh(self) -> set[Hashable]:
        """Names of states that a step of this pass leaves, which nobody goes on from before the next."""
        return set()

    @derived
    def _fetches(self) -> Fetches:
        return Fetches(self._tables.tiers.times)

    def on_begin(self) -> None:
        """Forget the sequences of the repetition before."""
        for known in (self._keys, self._stops, self._fresh, self._order, self._fetches):
            known.clear()

    def on_pass(self, clock_ns: int) -> None:
        """What the pass before has left can be gone on from."""
        self._fresh.clear()
        self._fetches.now_ns = clock_ns

    def on_wait(self, seq: int, session: Session, num_tokens: int, view: LedgerView) -> None:
        """Fetch ahead what lies below the first tier."""
        if self.prefetch:
            self._fetches.issue(seq, *self._tables.further(self._keys_of(session), num_tokens, view))

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve nothing yet; with the first sequence's admission the pool is set aside."""
        self._keys[seq] = self._keys_of(session)
        if self._tables.keeps_some:
            self._stops[seq] = Stops(_prompt_tokens(session, 0))
        if self.prefix_caching:
            self._order.note(seq, session)
        return tuple(Reserve(seq, 0, table.area) for table in self._tables.tables)

    def _keys_of(self, session: Session) -> Sequence[Hashable]:
        return session.keys.of(self.block_size) if self.prefix_caching and session.keys is not None else ()

    def keeps_prefixes(self, by_engine: bool) -> bool:
        """As said, or as the engine does. See `Strategy.keeps_prefixes`."""
        return by_engine if self.prefix_caching is None else self.prefix_caching

    @property
    def cuts_prompts(self) -> bool:
        """Where states are kept. See `Strategy.cuts_prompts`."""
        return self._tables.has_states

    def can_begin(self, seq: int, session: Session, num_tokens: int, num_now: int, view: LedgerView) -> bool:
        """Whether there is room for what it would load from tiers below the device; and with states, whether its first
        step would compute something, and not go on from one that comes in this step."""
        keys = self._keys_of(session)
        if not self.cuts_prompts:
            return self._tables.has_load_room(keys, num_tokens, view, self._fetches.come(seq))
        found = self._tables.num_found(keys, num_tokens, view)
        if found and self._tables.state_name(keys, found) in self._fresh:
            return False
        start = found * self.block_size
        stops = self._tables.stops_of(keys, _prompt_tokens(session, num_tokens), num_tokens, view)
        return self._tables.at_once(start, min(num_now, num_tokens - start), stops) > 0

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """To where a state is kept. See `Strategy.at_once`."""
        return self._tables.at_once(view.num_used(seq), num_tokens, self._stops.get(seq, NO_STOPS))

    def has_room(self, session: Session, num_tokens: int, num_now: int, view: LedgerView) -> bool:
        """Whether blocks that are free, or that nobody holds, are as many as it takes. See `Strategy.has_room`."""
        return self._tables.has_room(self._keys_of(session), num_tokens, num_now, view)

    def on_reuse(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Take over the longest chain of full blocks. See `Strategy.on_reuse`."""
        if not self.prefix_caching:
            return NOTHING
        if self._tables.keeps_some:
            prompt = self._stops[seq].prompt or num_tokens
            self._stops[seq] = self._tables.stops_of(self._keys[seq], prompt, num_tokens, view)
        come = self._fetches.come(seq)
        self._fetches.stop(seq)
        return self._tables.taken_over(seq, self._keys[seq], num_tokens, view, self._order, come)

    def on_step(self, seq: int, view: LedgerView) -> Plan:
        """Give back the blocks that a window has left, where that is late."""
        return self._tables.left(seq, view)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or take blocks first; those that it fills get their names."""
        if self.prefix_caching or len(self.areas) > 1:
            keys, stops = self._keys.get(seq, ()), self._stops.get(seq, NO_STOPS)
            plan = self._tables.appended(seq, keys, num_tokens, view, self._order, stops)
            if self.cuts_prompts:
                self._fresh.update(op.key for op in plan if isinstance(op, Publish) and op.area == STATE)
            return plan
        return append_in_units(seq, num_tokens, self.block_size, view)

    def on_fork(self, seq: int, parent: int, num_tokens: int, view: LedgerView) -> Plan:
        """Share the parent's blocks; nothing, where layers may have given back what would be shared."""
        return NOTHING if view.frees_windows() or len(self.areas) > 1 else (Fork(parent, seq, num_tokens),)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Let all blocks go; those that have names stay until their room is needed."""
        self._stops.pop(seq, None)
        keys = self._keys.pop(seq, ())[: full_blocks(view.num_used(seq), self.block_size)]
        return (*self._tables.tiers.let_go(keys, view), *super().on_finish(seq, view))
