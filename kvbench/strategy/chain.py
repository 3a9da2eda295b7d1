"""Chains: strategies that decide different things, on one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.area import Area
from kvbench.plan.ops import Plan
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import IntegerRule, Strategy, derived
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.grown import Grown
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from kvbench.strategy.quantized import Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.strategy.sinks_quantized import SinksQuantized
from kvbench.strategy.snapkv import SnapKV
from kvbench.strategy.static import Static
from kvbench.strategy.streaming import Streaming
from kvbench.workload.request import Session

GROWTH, EVICTION, PLACEMENT = "decide how capacity grows", "evict", "decide where tokens go and in what format"
KINDS: dict[str, tuple[type[Strategy], ...]] = {
    GROWTH: (Concat, Static, Dynamic, Exact, Chunked, Paged),
    EVICTION: (Sinks, Compressed, HeavyHitters, SnapKV, Streaming),
    PLACEMENT: (Hierarchical, Quantized),
}
"""What each part decides; of each kind a chain has at most one."""

BOUNDS: dict[type[Strategy], str] = {
    Sinks: "capacity",
    HeavyHitters: "capacity",
    Streaming: "window_size",
    Hierarchical: "fast_capacity",
    Quantized: "window",
    SinksQuantized: "ring_tokens",
}
"""Who reserves the area main once, at one size, and what the size is called; growth can reach it step by step."""

UNFIT: dict[tuple[type[Strategy], type[Strategy]], str] = {
    (HeavyHitters, Quantized): "it keeps positions and mass beside each slot, which packed slots do not",
    (SnapKV, Quantized): "it keeps positions and votes beside each slot, which packed slots do not",
    (Compressed, Quantized): "it evicts single tokens from everywhere, and packed groups leave whole, the oldest first",
    (Streaming, Quantized): "both take the window's oldest tokens, the one out of sight, the other into few bits",
    (Sinks, Hierarchical): "it bounds what is held, so that nothing is left for a slow tier",
    (HeavyHitters, Hierarchical): "it bounds what is held, so that nothing is left for a slow tier",
    (SnapKV, Hierarchical): "it ranks all tokens that are held, and the chunks of a slow tier keep no votes",
    (Compressed, Hierarchical): "it evicts single tokens from everywhere, and chunks lose their oldest tokens only",
    (Streaming, Hierarchical): "both take the window's oldest tokens, the one out of sight, the other to a slow tier",
    (Paged, Sinks): "blocks leave whole and the oldest first, and these are the sinks",
    (Paged, HeavyHitters): "blocks leave whole, and it evicts single tokens from everywhere",
    (Paged, Streaming): "its one window is of one size for all, so that there is nothing to take from a pool",
    (Paged, Quantized): "packed tokens lie in chunks, and the few that are not packed fill no pool",
}
"""Why two parts do not go together; it is what the second part of the message begins with."""


@dataclass(frozen=True, kw_only=True)
class Chain(Strategy):
    """Compose strategies: one may decide how capacity grows, one what is evicted, one where tokens go and how.

    Sinks and quantized: the first tokens and the newest stay as they are, those between are packed, up to the window.
    Paged and hierarchical: the fast tier takes blocks of a pool, and its oldest blocks move to the slow tiers. Any
    growth that takes memory little by little and a strategy that reserves its window or fast tier at once: that area
    grows up to its size. What does not go together is refused, with the reason.

    Args:
        parts: two strategies or three, in any order, each with its own parameters.
    Raises:
        ValueError: the parts do not go together.
    Source: none; the parts name theirs.
    Departs: as the parts do.
    """

    parts: Sequence[Strategy] = (Sinks(), Quantized())

    def __post_init__(self) -> None:
        if not isinstance(self.parts, list | tuple) or len(self.parts) < 2:  # noqa: PLR2004
            raise ValueError(f"parts is a list of two strategies or three, got {self.parts!r}")
        object.__setattr__(self, "parts", tuple(self.parts))  # equal chains are one to whoever keeps what they gave
        self._whole  # noqa: B018, refuses what does not go together

    @derived
    def _whole(self) -> Strategy:
        by_kind: dict[str, Strategy] = {}
        for part in self.parts:
            kind = _kind(part)
            if kind in by_kind:
                raise ValueError(f"{_name(by_kind[kind])} and {_name(part)} both {kind}")
            by_kind[kind] = part
        return _composed(by_kind.get(GROWTH), by_kind.get(EVICTION), by_kind.get(PLACEMENT))

    @derived
    def areas(self) -> tuple[Area, ...]:
        """As the parts have them together."""
        return self._whole.areas

    @derived
    def lossless(self) -> bool:
        """Whether all parts are."""
        return all(part.lossless for part in self.parts)

    @derived
    def reference(self) -> bool:
        """Whether a part is one."""
        return any(part.reference for part in self.parts)

    @derived
    def num_first(self) -> int:
        """As the parts keep them together."""
        return self._whole.num_first

    @derived
    def pooled_tokens(self) -> int | None:
        """As the parts have it together."""
        return self._whole.pooled_tokens

    @derived
    def max_tokens(self) -> int:
        """What the parts hold that do not only grow."""
        return min(part.max_tokens for part in self.parts if _kind(part) != GROWTH)

    decides_by = "how far one part has grown what the other reserves at once"

    @property
    def integer_rule(self) -> IntegerRule | None:
        """As the parts decide together."""
        return self._whole.integer_rule

    def within(self, budget_tokens: int, num_tokens: int) -> "Chain | None":
        """The part that evicts gets the budget; None where no part does."""
        bounded = [part.within(budget_tokens, num_tokens) for part in self.parts]
        if all(part is None for part in bounded):
            return None
        return Chain(parts=tuple(own or part for own, part in zip(bounded, self.parts, strict=True)))

    @property
    def attends_all(self) -> bool:
        """As all parts do."""
        return self._whole.attends_all

    def on_begin(self) -> None:
        """A new repetition for all parts."""
        self._whole.on_begin()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_admit(seq, session, view)

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """As the parts plan together."""
        return self._whole.at_once(seq, num_tokens, view)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_append(seq, num_tokens, view)

    def on_fork(self, seq: int, parent: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_fork(seq, parent, num_tokens, view)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_attended(seq, num_tokens, view)

    def on_pressure(self, seq: int, need_bytes: int, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_pressure(seq, need_bytes, view)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """As the parts plan together."""
        return self._whole.on_finish(seq, view)

    def on_complete(self, session: Session) -> None:
        """All parts may learn."""
        self._whole.on_complete(session)


def _composed(growth: Strategy | None, eviction: Strategy | None, placement: Strategy | None) -> Strategy:
    for first, second in ((eviction, placement), (growth, eviction), (growth, placement)):
        _check(first, second)
    whole: Strategy | None
    if isinstance(eviction, Sinks) and isinstance(placement, Quantized):
        whole = SinksQuantized(sinks=eviction, quantized=placement)
    else:
        whole = eviction or placement
    assert whole is not None  # of two kinds, one is no growth
    if growth is None:
        return whole
    bound = next(getattr(whole, size) for bounded, size in BOUNDS.items() if isinstance(whole, bounded))
    if growth.max_tokens < bound:
        raise ValueError(f"{_name(growth)} grows to {growth.max_tokens} tokens, and {bound} are needed")
    if isinstance(growth, Paged) and isinstance(whole, Hierarchical):
        whole = whole.over(growth.areas[0].blocks)
    return Grown(bounded=whole, growth=growth, bound=bound)


def _check(first: Strategy | None, second: Strategy | None) -> None:
    """Refuse two parts that do not go together."""
    if first is None or second is None:
        return
    reason = next(
        (why for (one, other), why in UNFIT.items() if isinstance(first, one) and isinstance(second, other)), ""
    )
    if isinstance(first, Ahead):
        reason = "only contiguous slots that none leaves can grow beside the steps"
    elif isinstance(first, KINDS[GROWTH]) and getattr(second, "background", False):
        reason = "a fast tier that is left beside the steps cannot grow meanwhile; set background to false"
    elif isinstance(first, Paged) and first.prefix_caching:
        reason = "blocks that leave the fast tier are found by nobody; set prefix_caching to false"
    elif isinstance(first, Paged) and first.tier_bytes:
        reason = f"blocks that leave the fast tier have no names; set {next(iter(first.tier_bytes))}_bytes to 0"
    elif isinstance(first, Static):
        reason = f"{_name(second)} reserves what it needs on the device at once already"
    elif isinstance(first, Chunked):
        reason = "its chunks would be left half empty at the front, where the oldest tokens leave"
    elif isinstance(second, Compressed | SnapKV):
        reason = reason or f"{_name(second)} decides itself how its capacity grows and shrinks"
    if reason:
        raise ValueError(f"{_name(first)} and {_name(second)} do not go together: {reason}")


def _kind(part: Strategy) -> str:
    """What a part decides.

    Raises:
        ValueError: nothing that a chain can use.
    """
    for kind, classes in KINDS.items():
        if isinstance(part, classes):
            return kind
    raise ValueError(
        f"a part of a chain decides how capacity grows, what is evicted, or where tokens go; {_name(part)} does not do "
        "one of these alone"
    )


def _name(part: object) -> str:
    return type(part).__module__.rpartition(".")[2]
