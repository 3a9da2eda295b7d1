"""What fits: the engine's answer, and what strategies would hold in the same memory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from kvbench.decide.held import held_by
from kvbench.engine.capacity import CONTEXTS, Capacity
from kvbench.engine.tiers import tier_blocks
from kvbench.ledger.costs import area_cost
from kvbench.model.geometry import geometry_in
from kvbench.strategy.base import Strategy

if TYPE_CHECKING:
    from kvbench.charts.capacity import CapacityChart


@dataclass(frozen=True, kw_only=True)
class Context:
    """A context that is asked for.

    Args:
        name: for people.
        num_tokens: of it.
        num_output_tokens: the last of them, which are decoded.
    """

    name: str
    num_tokens: int
    num_output_tokens: int = 1


class TierRoom(NamedTuple):
    """What a tier below the device holds, of all replicas.

    Args:
        num_blocks: of a rank's.
        num_tokens: in these.
    """

    num_blocks: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What fits on one kind of accelerator.

    Args:
        name: the accelerator's, as it was asked for.
        capacity: what the engine makes of it.
        lengths: the scenario's own, the mean and the 95th percentile of its sessions; () without one.
        strategies: to be told beside the engine, by name.
        instead: settings with which one request of max_model_len would fit, where it does not.
    """

    name: str
    capacity: Capacity
    lengths: tuple[Context, ...] = ()
    strategies: Mapping[str, Strategy]
    instead: tuple[str, ...] = ()

    @property
    def contexts(self) -> tuple[Context, ...]:
        """All that is told: 1k to 1M tokens, and the scenario's."""
        return (*(Context(name=f"{tokens:,}", num_tokens=tokens) for tokens in CONTEXTS), *self.lengths)

    @cached_property
    def requests(self) -> dict[int, int]:
        """Requests that fit at once by the engine's rules, by their tokens."""
        return {asked.num_tokens: self.capacity.requests(asked.num_tokens) for asked in self.contexts}

    @cached_property
    def by_strategy(self) -> dict[str, dict[int, int | None]]:
        """Requests that each strategy would hold in the same memory, by their tokens.

        None where memory is no limit or so many tokens are not served; a strategy that the model does not go into is
        left out, and `refused` says why.
        """
        return {name: counts for name, counts in self._held.items() if isinstance(counts, dict)}

    @cached_property
    def refused(self) -> dict[str, str]:
        """Why strategies are left out, by name."""
        return {name: why for name, why in self._held.items() if isinstance(why, str)}

    @cached_property
    def _held(self) -> dict[str, dict[int, int | None] | str]:
        found: dict[str, dict[int, int | None] | str] = {}
        for name, strategy in self.strategies.items():
            try:
                found[name] = {asked.num_tokens: self._requests_by(strategy, asked) for asked in self.contexts}
            except ValueError as error:
                found[name] = str(error)
        return found

    def _requests_by(self, strategy: Strategy, asked: Context) -> int | None:
        of, rank = self.capacity, self.capacity.rank
        of_rank = (-(-tokens // of.parallel.decode_context) for tokens in (asked.num_tokens, of.pool.max_model_len))
        held = held_by(strategy, geometry_in(rank), *of_rank, num_output_tokens=asked.num_output_tokens)
        found = None if held is None else held.requests(of.memory.available_bytes)
        return None if found is None else found * of.parallel.data

    @cached_property
    def tiers(self) -> dict[str, dict[str, TierRoom]]:
        """What each tier below the device holds of a strategy that keeps blocks: by its name, and the tier's."""
        by_engine = self.capacity.engine.caches_prefixes
        return {
            name: {tier: self._room_of(strategy, num_bytes) for tier, num_bytes in strategy.tier_bytes.items()}
            for name, strategy in self.strategies.items()
            if strategy.tier_bytes and strategy.keeps_prefixes(by_engine) and name in self.by_strategy
        }

    def _room_of(self, strategy: Strategy, num_bytes: int) -> TierRoom:
        of, (area, *_) = self.capacity, strategy.areas
        num_blocks = tier_blocks(num_bytes, area_cost(area, geometry_in(of.rank), 1).block_bytes)
        each = area.blocks.num_tokens * of.parallel.decode_context
        return TierRoom(num_blocks * of.parallel.data, num_blocks * each * of.parallel.data)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        of, model, memory, pool = self.capacity, self.capacity.model, self.capacity.memory, self.capacity.pool
        return {
            "model": model.name,
            "hardware": self.name,
            "engine": of.engine.name,
            "engine_version": of.engine.version,
            "parallel": asdict(of.parallel),
            "parameters": model.num_parameters,
            "active_parameters": model.num_active_parameters,
            "bytes_per_token": model.bytes_per_token,
            "sequence_bytes": {str(tokens): model.held_bytes(tokens) for tokens in self.requests},
            "memory": asdict(memory),
            "weights_bytes": memory.weights_bytes,
            "available_bytes": memory.available_bytes,
            "num_blocks": of.num_blocks,
            "block_tokens": pool.block_tokens,
            "page_bytes": pool.page_bytes,
            "num_tokens": of.num_tokens,
            "max_model_len": pool.max_model_len,
            "longest_tokens": of.longest_tokens,
            "max_concurrency": of.max_concurrency,
            "requests": {str(tokens): count for tokens, count in self.requests.items()},
            "padding_bytes": {str(tokens): pool.padding_bytes(tokens) for tokens in self.requests},
            "waste_bytes": {str(tokens): pool.waste_bytes(tokens) for tokens in self.requests},
            "scenario": {asked.name: asked.num_tokens for asked in self.lengths},
            "strategies": {
                name: {str(tokens): count for tokens, count in counts.items()}
                for name, counts in self.by_strategy.items()
            },
            "tiers": {
                name: {tier: room._asdict() for tier, room in rooms.items()} for name, rooms in self.tiers.items()
            },
            "refused": self.refused,
            "short_bytes": of.short_bytes,
            "instead": list(self.instead),
            "notes": [*model.assumed, *of.notes],
        }

    @property
    def text(self) -> str:
        """The same, for people."""
        from kvbench.api.fit_text import text_of

        return text_of(self)

    @property
    def chart(self) -> "CapacityChart":
        """Requests over context, a line for the engine and one a strategy; its `figure()` draws it."""
        from kvbench.api.fit_text import chart_of

        return chart_of([self])
