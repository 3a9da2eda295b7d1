"""Tiers: the newest or most read tokens on the device, the others in the host's memory, and then in files."""

from dataclasses import dataclass, replace
from typing import Annotated

from kvbench.checks import check_bound, check_flag, check_int, check_one_of
from kvbench.ledger import UNLIMITED, LedgerView
from kvbench.plan.area import (
    DISK,
    HOST,
    MAX_ACCESS_WINDOW,
    SIGNALS,
    STAGING_TOKENS,
    Accesses,
    Area,
    Blocks,
    Chunks,
    Holes,
    Ring,
)
from kvbench.plan.ops import MAIN, Move, Operation, Plan, Reserve, Rule, Settle, append_plan
from kvbench.strategy.base import (
    CapacityExceeded,
    IntegerRule,
    Strategy,
    Turns,
    all_stay,
    as_required,
    constant,
    derived,
    moved_at_once,
    passed_on,
    rounded_up,
    same_capacity,
)
from kvbench.tried import Tried
from kvbench.workload.request import Session

EVICTIONS = ("age", "access")
CHUNK_TOKENS = STAGING_TOKENS // 2


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Strategy):
    """Keep what fits a fast tier on the device; when it is full, move half of it to the host, and from there to files.

    No token is lost: attention reads the slow tiers part by part through staging buffers on the device, and merges the
    parts by their log-sum-exp. An append larger than the fast tier passes through it in several steps. What layers with
    a window see stays on the device.

    Args:
        fast_capacity: tokens on the device, > 1.
        slow_capacity: tokens in the host's memory, a multiple of 512, > 0; None: as many as come.
        disk_capacity: tokens in files, a multiple of 512; 0 for no third tier, None for one that holds as many as come.
        eviction: "age" moves the oldest tokens; "access" those that were least often among a step's top by
            attention mass, apart from the newest quarter.
        top_accessed: tokens that a step accesses; only "access" uses it.
        access_window: steps over which accesses count, at most 31; only "access" uses it.
        read_ahead: whether the next part of a slow tier is fetched while attention reads the one before.
        background: whether the oldest half is copied to the host beside the steps, from three quarters of the fast tier
            on, and let go of when that is full; only by age. What goes on to files still moves in a step.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, HierarchicalKVCache.
    Departs: the slow tier's capacity is enforced, accesses are counted by attention mass and decide, the tiers are
        never joined to be read, and a third tier is possible.
    """

    fast_capacity: Annotated[int, Tried(choices=(256, 512, 1024, 2048, 4096))] = 1024
    slow_capacity: int | None = None
    disk_capacity: int | None = 0
    eviction: str = "age"
    top_accessed: int = 64
    access_window: int = 10
    read_ahead: bool = False
    background: bool = False

    _unit = 1
    decides_by = "background work, which is under way or not"

    def __post_init__(self) -> None:
        check_int("fast_capacity", self.fast_capacity, 2)
        check_bound("slow_capacity", self.slow_capacity)
        if self.disk_capacity is not None:
            check_int("disk_capacity", self.disk_capacity, 0)
        check_int("top_accessed", self.top_accessed, 1)
        check_int("access_window", self.access_window, 1, MAX_ACCESS_WINDOW)
        for name, value in (("slow_capacity", self.slow_capacity), ("disk_capacity", self.disk_capacity)):
            if value is not None and value % CHUNK_TOKENS:
                raise ValueError(f"{name} is a multiple of {CHUNK_TOKENS}, got {value}")
        check_one_of("eviction", self.eviction, EVICTIONS)
        for name in ("read_ahead", "background"):
            check_flag(name, getattr(self, name))
        if self.background and self.by_access:
            raise ValueError(
                "background: only the oldest tokens can move beside the steps (eviction: age); which tokens are least "
                f"accessed changes while they move; got eviction: {self.eviction}"
            )

    @property
    def by_access(self) -> bool:
        """Whether those move that are least accessed."""
        return self.eviction == "access"

    @derived
    def capacities(self) -> dict[str, int]:
        """Tokens that each slow tier holds."""
        told = {DISK: self.disk_capacity, HOST: self.slow_capacity}
        return {tier: UNLIMITED if most is None else most for tier, most in told.items()}

    @derived
    def areas(self) -> tuple[Area, ...]:
        """The slow tiers that there are, the slowest first, and the fast one."""
        slow = (
            Area(tier, Chunks(CHUNK_TOKENS), tier, positions=self.by_access, read_ahead=self.read_ahead)
            for tier in ((DISK, HOST) if self.capacities[DISK] else (HOST,))
        )
        if self.by_access:
            fast = Area(layout=Holes(), positions=True, score=Accesses(self.top_accessed, self.access_window))
        else:
            fast = Area(layout=Ring())
        return (*slow, fast)

    @derived
    def _most_at_once(self) -> int:
        return self.fast_capacity

    def over(self, blocks: Blocks) -> "Hierarchical":
        """The same tiers, the fast one in blocks of a pool, which leave whole.

        Raises:
            ValueError: the fast tier is not two whole blocks or more of the pool, or does not move its oldest tokens.
        """
        size = blocks.num_tokens
        if self.background:
            raise ValueError("background: blocks move in a step, never beside it; got true")
        if self.by_access:
            raise ValueError(
                "the least accessed tokens lie in all blocks, and only whole blocks, the oldest, can leave"
            )
        most = UNLIMITED if blocks.pool_tokens is None else blocks.pool_tokens
        if self.fast_capacity % size or not 2 * size <= self.fast_capacity <= most or CHUNK_TOKENS % size:
            raise ValueError(
                f"fast_capacity is 2 blocks or more, all of them full, and at most pool_tokens ({most}), "
                f"and a block is a part of {CHUNK_TOKENS} tokens; got {self.fast_capacity} and blocks of {size}"
            )
        areas = (*self.areas[:-1], replace(self.areas[-1], layout=blocks))
        return self._with(areas=areas, _unit=size, _most_at_once=self.fast_capacity - size)

    @derived
    def max_tokens(self) -> int:
        """Tokens that all tiers hold together."""
        return self.fast_capacity + sum(self.capacities.values())

    @property
    def integer_rule(self) -> IntegerRule | None:
        """The fast tier at admission; half of it leaves when it is full. None where that is done in the background."""
        if self.background:
            return None
        by = (self.fast_capacity, min(sum(self.capacities.values()), UNLIMITED))
        most = self.capacities[HOST]
        turns = Turns(the_fast_tier, half_of_it, all_stay, same_capacity, by, within_tier, most, CHUNK_TOKENS)
        max_tokens = None if self.max_tokens >= UNLIMITED else self.max_tokens
        return IntegerRule(constant, (self.fast_capacity,), as_required, (), max_tokens, turns)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the fast tier."""
        return (Reserve(seq, self.fast_capacity),)

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """At most the fast tier."""
        return within_tier(num_tokens, view.num_used(seq), self._most_at_once, 0)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; else first move half of the fast tier, or as much as is needed, to the slow ones."""
        used = view.num_used(seq)
        required = view.num_seen(seq) + num_tokens
        if required > self.max_tokens:
            raise CapacityExceeded(required, self.max_tokens)
        if used + num_tokens <= self.fast_capacity:
            plan = append_plan(seq, num_tokens)
            return (*plan, *self._ahead(seq, num_tokens, 0, view)) if self.background else plan
        leaving = view.num_leaving(seq)
        if leaving:
            return self._settled(seq, num_tokens, leaving, view)
        return (*self._make_room(seq, used, num_tokens, view), *append_plan(seq, num_tokens))

    def _settled(self, seq: int, num_tokens: int, leaving: int, view: LedgerView) -> Plan:
        """Let go of what was moved beside the steps, and append; where that is not room enough, move more first."""
        used = view.num_used(seq) - leaving
        if used + num_tokens <= self.fast_capacity:
            ahead = self._ahead(seq, num_tokens, leaving, view)
            return (Settle(seq), *append_plan(seq, num_tokens), *ahead)
        return (Settle(seq), *self._make_room(seq, used, num_tokens, view), *append_plan(seq, num_tokens))

    def _ahead(self, seq: int, num_tokens: int, leaving: int, view: LedgerView) -> Plan:
        """Begin to move the oldest half, where it is time, and the slow tiers have room for it.

        Args:
            seq: the sequence.
            num_tokens: tokens appended in the same plan.
            leaving: tokens let go of in the same plan.
            view: of the ledger.
        """
        used = view.num_used(seq) + num_tokens - leaving
        if not self.background or 4 * used < 3 * self.fast_capacity or view.num_leaving(seq) != leaving:
            return ()
        stay = used - self.fast_capacity // 2
        if view.num_seen(seq) + num_tokens - stay > sum(self.capacities.values()):
            return ()
        *before, move = self._give_way(seq, used, stay, view)
        assert isinstance(move, Move)
        return (*before, replace(move, background=True))

    def _make_room(self, seq: int, used: int, num_tokens: int, view: LedgerView) -> Plan:
        """Move half of the fast tier, or as much as is needed, to the slow ones."""
        slow = sum(self.capacities.values())
        stay = half_of_it(used, num_tokens, view.num_seen(seq), self.fast_capacity, slow)
        return self._give_way(seq, used, stay, view)

    def _give_way(self, seq: int, used: int, stay: int, view: LedgerView) -> Plan:
        """Move all but so many tokens off the fast tier, and whole chunks to the disk where the host cannot hold all.

        What the host cannot hold at once passes through it in several moves.
        """
        on_host, most = view.num_used(seq, HOST), self.capacities[HOST]
        on_disk = view.num_used(seq, DISK) if self.capacities[DISK] else 0
        plan: list[Operation] = []
        while used > stay:
            num_moved = moved_at_once(rounded_up(used - stay, self._unit), on_host, most, CHUNK_TOKENS)
            leave = passed_on(on_host, num_moved, most, CHUNK_TOKENS)
            on_host -= leave
            on_disk += leave
            used -= num_moved
            if leave:
                plan += [Reserve(seq, on_disk, DISK), Move(seq, HOST, DISK, Rule(recent=on_host))]
            on_host += num_moved
            plan += [Reserve(seq, rounded_up(on_host, CHUNK_TOKENS), HOST), Move(seq, MAIN, HOST, self._rule(used))]
        return tuple(plan)

    def _rule(self, stay: int) -> Rule:
        """What stays on the fast tier, so many tokens."""
        if not self.by_access:
            return Rule(recent=stay)
        recent = min(stay // 2, self.fast_capacity // 4)
        return Rule(recent=recent, top=stay - recent, by=SIGNALS[Accesses])


def the_fast_tier(capacity: int, fast: int, slow: int) -> int:
    """Slots in use when some move to the slow tiers."""
    return fast


def half_of_it(used: int, num_tokens: int, held: int, fast: int, slow: int) -> int:
    """Slots that stay then: half of the fast tier, fewer where more tokens come, and more where the slow tiers have no
    more room, at the end of what all hold."""
    return min(max(fast // 2, held - slow), fast - num_tokens)


def within_tier(num_tokens: int, used: int, fast: int, slow: int) -> int:
    """Tokens of an append that the next step takes: at most the fast tier."""
    return min(num_tokens, fast)
