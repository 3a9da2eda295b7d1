"""What a run knows that a strategy, when it is made, does not: how long requests become, and what memory there is."""

from dataclasses import dataclass, replace
from typing import Protocol

from kvbench.ledger.costs import AreaCost, area_cost, beside_windows, workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import DEVICE, Area, Blocks


class LoadTimes(Protocol):
    """What loading blocks from tiers below the device would take now on a machine, in picoseconds."""

    @property
    def token_ps(self) -> int:
        """What computing a token more takes."""
        ...

    def wait_ps(self, tier: str) -> int:
        """Until a tier's link begins with what it is given now."""
        ...

    def block_ps(self, tier: str) -> int:
        """Of a block on the link."""
        ...

    def latency_ps(self, tier: str) -> int:
        """Of a transfer beside it, as it is in the middle."""
        ...

    def spare_ns(self, tier: str, moment_ns: int) -> int:
        """How long a tier's link had nothing to load by a moment of the run's clock, between iterations."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run tells its strategies before it begins; by it they decide what was left to it, as null.

    Args:
        geometry: bytes of a token.
        budget_bytes: the most that may be held on the device at any time; None: no limit.
        num_rows: rows of every sequence's batch, > 0.
        live_tokens: tokens of the longest requests, as many as can be live at once, the longest first; none where
            requests are not known beforehand.
        context_tokens: the longest sequence that the model is made for; None: not known.
        is_modelled: whether pools are only counted. One that is allocated is no larger than the requests can fill.
        keeps_windows: whether blocks are of all layers alike, and none is given back that a window has left, where no
            prefixes are kept and a strategy says nothing.
        has_own_pools: whether each layer's blocks come from a pool of its own, so that layers with a window hold it
            beside them.
        caches_prefixes: whether the engine keeps blocks for requests that begin alike, and there may be such.
        step_tokens: tokens that a step computes at most; None: no bound is known.
        load_times: what loading from tiers below the device takes; None: no time.
        state_interval: tokens between states that are kept for later requests, beside those that prompts are gone on
            from; 0: none is.
        window_interval: the same of windows' blocks; at most a block's: all are.
        state_block_tokens: of an engine's blocks, which are as large as a state; None: there is no engine.
    """

    geometry: KVGeometry
    budget_bytes: int | None
    num_rows: int = 1
    live_tokens: tuple[int, ...] = ()
    context_tokens: int | None = None
    is_modelled: bool = False
    keeps_windows: bool = False
    has_own_pools: bool = False
    caches_prefixes: bool = False
    step_tokens: int | None = None
    load_times: LoadTimes | None = None
    state_interval: int = 0
    window_interval: int = 1
    state_block_tokens: int | None = None

    def to_hold(self, name: str) -> int:
        """Tokens of the longest sequence that there will be, for a strategy that reserves so many.

        Args:
            name: of the parameter that is null.
        Raises:
            ValueError: neither the requests nor the model's context is known.
        """
        known = self.live_tokens[0] if self.live_tokens else self.context_tokens
        if known is None:
            raise ValueError(
                f"{name}: null is the longest request or the model's context, and here neither is known; give a number"
            )
        return known

    def to_grow(self, unlimited: int) -> int:
        """Tokens that growth stops at: the model's context, and no less than the longest request.

        Growth that stopped at the longest request would know the requests' ends, which is an oracle's part.

        Args:
            unlimited: where no context is known.
        """
        return unlimited if self.context_tokens is None else max(self.context_tokens, *self.live_tokens, 0)

    def sized(self, areas: tuple[Area, ...], most_tokens: int | None = None) -> tuple[Area, ...]:
        """Areas with sizes for the pools that have none: all of the budget, but for what reading needs.

        Blocks are beside windows that do not lie in them.

        Args:
            areas: a strategy's.
            most_tokens: of a sequence that a pool holds at most; None: all.
        Raises:
            ValueError: a pool has nothing to take its size from.
        """
        if not any(isinstance(area.layout, Blocks) for area in areas):
            return areas
        areas = beside_windows(areas, self.geometry, self.has_own_pools)
        pools = [area for area in areas if isinstance(area.layout, Blocks) and area.layout.pool_tokens is None]
        pools = [area for area in pools if not area.blocks.of]
        return tuple(self._sized(area, areas, len(pools), most_tokens) if area in pools else area for area in areas)

    def _sized(self, area: Area, areas: tuple[Area, ...], num_pools: int, most_tokens: int | None) -> Area:
        unit, cost = area.blocks.num_tokens, area_cost(area, self.geometry, self.num_rows)
        if not cost.unit_bytes:  # no layer is held in it
            return replace(area, layout=replace(area.blocks, pool_tokens=unit))
        bounds: list[int] = []
        if area.tier == DEVICE and self.budget_bytes is not None:
            of_slot = cost.whole_bytes(1)
            slots = self._left_bytes(self.budget_bytes, areas, cost) // num_pools // of_slot
            bounds.append(max(slots // unit, 1) * unit)
        if not (self.is_modelled and bounds):
            held = [min(count, most_tokens or count) for count in self._known_tokens]
            sharing = [each for each in areas if isinstance(each.layout, Blocks) and each.layout.of == area.name]
            costs = [cost, *(area_cost(each, self.geometry, self.num_rows) for each in sharing)]
            need_bytes = sum(each.most_bytes(count) for each in costs for count in held)
            bounds += [-(-need_bytes // cost.whole_bytes(unit)) * unit] if held else []
        if not bounds:
            raise ValueError(
                "pool_tokens: null is all of the budget, or what the requests can fill, and here neither is known; "
                "give a number, or a budget_bytes"
            )
        return replace(area, layout=replace(area.blocks, pool_tokens=min(bounds)))

    @property
    def _known_tokens(self) -> tuple[int, ...]:
        return self.live_tokens or (() if self.context_tokens is None else (self.context_tokens,))

    def _left_bytes(self, budget_bytes: int, areas: tuple[Area, ...], of_pool: AreaCost) -> int:
        """What a budget has beside staging buffers, pools that have a size, windows, and a layer's tokens in passing.

        Where it does not hold all, windows take their share of what known requests need of both.
        """
        of_pools = sum(
            area_cost(area, self.geometry, self.num_rows).whole_bytes(area.layout.pool)
            for area in areas
            if isinstance(area.layout, Blocks) and area.layout.pool_tokens is not None and area.tier == DEVICE
        )
        left_bytes = max(budget_bytes - workspace_bytes(areas, self.geometry, self.num_rows) - of_pools, 0)
        costs = [area_cost(area, self.geometry, self.num_rows) for area in areas if area.tier == DEVICE]
        left_bytes -= max(self._passing_bytes(cost, left_bytes) for cost in costs)
        windows = sum(cost.bytes_of(count) for cost in costs if cost.area.follows for count in self._known_tokens)
        if not windows:
            return left_bytes
        of_blocks = sum(of_pool.bytes_of(count) for count in self._known_tokens)
        return left_bytes - min(windows, left_bytes * windows // (of_blocks + windows))

    def _passing_bytes(self, cost: AreaCost, left_bytes: int) -> int:
        """What appends to layers with a window hold beside: of the longest request, or the longest that there is room
        for.
        """
        longest = max(self.live_tokens, default=self.context_tokens or 1)
        passing_bytes = cost.passing_bytes(0, longest)
        if not passing_bytes:
            return 0
        of_token = passing_bytes // longest
        return min(passing_bytes, left_bytes * of_token // ((cost.full_bytes(1) or cost.whole_bytes(1)) + of_token))
