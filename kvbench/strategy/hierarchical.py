"""Tiers: the newest or most read tokens on the device, the others in the host's memory, and then in files."""

from kvbench.area import DISK, HOST, SIGNALS, STAGING_TOKENS, Accesses, Area, Chunks, Holes, Ring
from kvbench.ledger import LedgerView
from kvbench.naming import unknown
from kvbench.ops import MAIN, Move, Plan, Reserve, Rule, append_plan
from kvbench.strategy.base import CapacityExceeded, Strategy, require_positive, require_whole, rounded_up
from kvbench.workload.request import Request

EVICTIONS = ("age", "access")
CHUNK_TOKENS = STAGING_TOKENS // 2


class Hierarchical(Strategy):
    """Keep what fits a fast tier on the device; when it is full, move half of it to the host, and from there to files.

    No token is lost: attention reads the slow tiers part by part through staging buffers on the device, and merges the
    parts by their log-sum-exp. An append larger than the fast tier passes through it in several steps.

    Args:
        fast_capacity: tokens on the device, > 1.
        slow_capacity: tokens in the host's memory, a multiple of 512, > 0.
        disk_capacity: tokens in files, a multiple of 512; 0 for no third tier.
        eviction: "age" moves the oldest tokens; "access" those that were least often among a step's top by
            attention mass, apart from the newest quarter.
        top_accessed: tokens that a step accesses; only "access" uses it.
        access_window: steps over which accesses count, at most 31; only "access" uses it.
        read_ahead: whether the next part of a slow tier is fetched while attention reads the one before.
    Raises:
        ValueError: a parameter is out of its range.
    Source: the article, HierarchicalKVCache.
    Departs: the slow tier's capacity is enforced, accesses are counted by attention mass and decide, the tiers are
        never joined to be read, and a third tier is possible.
    """

    def __init__(
        self,
        *,
        fast_capacity: int,
        slow_capacity: int,
        disk_capacity: int,
        eviction: str,
        top_accessed: int,
        access_window: int,
        read_ahead: bool,
    ) -> None:
        require_positive("fast_capacity", fast_capacity)
        require_positive("slow_capacity", slow_capacity)
        require_whole("disk_capacity", disk_capacity)
        require_positive("top_accessed", top_accessed)
        require_positive("access_window", access_window)
        if fast_capacity < 2 or access_window > 31:  # noqa: PLR2004
            raise ValueError(
                f"fast_capacity is 2 or more and access_window at most 31, got {fast_capacity} and {access_window}"
            )
        for name, value in (("slow_capacity", slow_capacity), ("disk_capacity", disk_capacity)):
            if value % CHUNK_TOKENS:
                raise ValueError(f"{name} is a multiple of {CHUNK_TOKENS}, got {value}")
        if eviction not in EVICTIONS:
            raise ValueError(unknown("eviction", eviction, EVICTIONS))
        self.fast_capacity = fast_capacity
        self.capacities = {DISK: disk_capacity, HOST: slow_capacity}
        self.by_access = eviction == "access"
        slow = [
            Area(tier, Chunks(CHUNK_TOKENS), tier, positions=self.by_access, read_ahead=read_ahead)
            for tier in ((DISK, HOST) if disk_capacity else (HOST,))
        ]
        if self.by_access:
            fast = Area(layout=Holes(), positions=True, score=Accesses(top_accessed, access_window))
        else:
            fast = Area(layout=Ring())
        self.areas = (*slow, fast)

    @property
    def max_capacity(self) -> int:
        """Tokens that all tiers hold together."""
        return self.fast_capacity + sum(self.capacities.values())

    def on_admit(self, seq: int, request: Request, view: LedgerView) -> Plan:
        """Reserve the fast tier."""
        return (Reserve(seq, self.fast_capacity),)

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """At most the fast tier."""
        return min(num_tokens, self.fast_capacity)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; else first move half of the fast tier, or as much as is needed, to the slow ones."""
        used = view.num_used(seq)
        required = view.num_seen(seq) + num_tokens
        if required > self.max_capacity:
            raise CapacityExceeded(required, self.max_capacity)
        if used + num_tokens <= self.fast_capacity:
            return append_plan(seq, num_tokens)
        stay = min(self.fast_capacity // 2, self.fast_capacity - num_tokens)
        return (*self._give_way(seq, used - stay, view), *append_plan(seq, num_tokens))

    def _give_way(self, seq: int, num_moved: int, view: LedgerView) -> Plan:
        """Move so many tokens off the fast tier, and as many whole chunks to the disk as the host cannot hold."""
        stay = view.num_used(seq) - num_moved
        on_host = view.num_used(seq, HOST)
        plan: Plan = ()
        excess = on_host + num_moved - self.capacities[HOST]
        if excess > 0:
            leave = min(rounded_up(excess, CHUNK_TOKENS), on_host)
            plan += self._room(seq, DISK, leave, view)
            plan += (Move(seq, HOST, DISK, Rule(recent=on_host - leave)),) if leave else ()
            on_host -= leave
        rule = Rule(recent=stay)
        if self.by_access:
            rule = Rule(recent=stay // 2, top=stay - stay // 2, by=SIGNALS[Accesses])
        host = rounded_up(on_host + num_moved, CHUNK_TOKENS)
        return (*plan, Reserve(seq, host, HOST), Move(seq, MAIN, HOST, rule))

    def _room(self, seq: int, tier: str, num_tokens: int, view: LedgerView) -> Plan:
        held = view.num_used(seq, tier) + num_tokens
        if held <= view.capacity(seq, tier):
            return ()
        return (Reserve(seq, rounded_up(held, CHUNK_TOKENS), tier),)
