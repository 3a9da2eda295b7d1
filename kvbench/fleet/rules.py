"""A strategy's integer rule, compiled as it stands: the functions that the strategy calls, bound to its parameters."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from kvbench.compiled import plain, pointer
from kvbench.fleet.bounds import check_figures
from kvbench.fleet.state import (
    AFTER,
    AT_ONCE,
    BEFORE,
    BLOCKS,
    CHUNKS,
    CONTIGUOUS,
    COPIES_EVICTED,
    COPIES_KEPT,
    COPIES_NOTHING,
    FULL,
    OF_APPEND,
    Rule,
    Rules,
    TurnRule,
)
from kvbench.plan.area import DEVICE, DISK, HOST, Area, Blocks, Chunks, Contiguous, Holes, Ring
from kvbench.strategy.base import IntegerRule, Strategy, Turns, all_stay, constant, same_capacity
from kvbench.strategy.block_tables import BlockTables
from kvbench.strategy.paged import Paged

HOOKS = ("on_admit", "at_once", "on_append", "on_attended", "on_pressure", "on_finish", "on_complete")
RULED = (
    "chunked",
    "compressed",
    "concat",
    "dynamic",
    "exact",
    "fp8",
    "heavy_hitters",
    "hierarchical",
    "hierarchical_access",
    "hierarchical_disk",
    "int2",
    "int2_naive",
    "int4",
    "int8",
    "paged",
    "power_of_two",
    "sinks",
    "sinks_int4",
    "snapkv",
    "static",
    "streaming",
)
"""Strategies that come with an integer rule, for messages."""


class BoundRule(NamedTuple):
    """A strategy's rule, ready for the kernel.

    Args:
        compiled: slots reserved at admission, of prompt and output tokens; capacity after growth, of capacity and slots
            required; and what becomes of slots that are too many.
        max_tokens: tokens that a sequence can hold; None: as memory lasts.
        areas: how slots live, those that new tokens go to last.
        layout: CONTIGUOUS, CHUNKS or BLOCKS.
        unit: slots of a chunk or block; 1 where slots are contiguous.
        reserves: whether anything is reserved at admission.
        turns: what becomes of slots that are too many, where some are.
        tables: of blocks, where groups of layers have their own, one an area; None: slots are alike.
    """

    compiled: Rules
    max_tokens: int | None
    areas: tuple[Area, ...]
    layout: int
    unit: int
    reserves: bool
    turns: Turns | None
    tables: BlockTables | None = None

    @property
    def area(self) -> Area:
        """Where new tokens go."""
        return self.areas[-1]


def bound_rule(strategy: Strategy) -> BoundRule:
    """Compile a strategy's decisions.

    Raises:
        ValueError: they are no integer rule.
    """
    rule, layout, unit = check_rule(strategy)
    turns = rule.turns or NO_TURNS
    check_figures(type(strategy).__name__, (*rule.admitted_by, *rule.grown_by, *turns.by, rule.max_tokens, unit))
    reserves = (rule.admitted, rule.admitted_by) != (constant, (0,))
    compiled = bound(rule.admitted, rule.admitted_by), bound(rule.grown, rule.grown_by), bound_turns(turns)
    tables = strategy.tables if isinstance(strategy, Paged) and len(strategy.areas) > 1 else None
    return BoundRule(compiled, rule.max_tokens, strategy.areas, layout, unit, reserves, rule.turns, tables)


NO_TURNS = Turns(same_capacity, all_stay, all_stay, same_capacity, ())
"""Of strategies that reduce nothing, which are not asked."""


def check_rule(strategy: Strategy) -> tuple[IntegerRule, int, int]:
    """Find a strategy's rule, the layout of the area that new tokens go to, and its unit; nothing is compiled.

    Raises:
        ValueError: its decisions are no integer rule.
    """
    rule = _rule_of(strategy)
    *before, area = strategy.areas
    if rule.turns is not None:
        if not isinstance(area.layout, Contiguous | Ring | Holes) or not _are_known(before, area, rule.turns):
            raise _refused(strategy, f"keeps slots in {', '.join(str(each.layout) for each in strategy.areas)}")
        return rule, CONTIGUOUS, 1
    match area.layout:
        case Contiguous():
            return rule, CONTIGUOUS, 1
        case Chunks(num_tokens):
            return rule, CHUNKS, num_tokens
        case Blocks(num_tokens):
            return rule, BLOCKS, num_tokens
        case _:
            raise _refused(strategy, f"keeps slots in {area.layout}")


def _are_known(before: Sequence[Area], main: Area, turns: Turns) -> bool:
    """Whether areas are such as slots leave main for: pinned ones as its own, then chunks, on the device or over a
    link with files behind."""
    if turns.num_pinned:
        pinned, *before = before
        if (pinned.layout, pinned.format, pinned.num_tracks) != (Contiguous(), main.format, main.num_tracks):
            return False
    if any(not isinstance(each.layout, Chunks) or each.layout != before[-1].layout for each in before):
        return False
    tiers = [each.tier for each in before]
    return tiers in ([], [DEVICE]) or (tiers in ([HOST], [DISK, HOST]) and all(each.attended for each in before))


def copies_of(area: Area) -> int:
    """What an eviction copies in an area."""
    match area.layout:
        case Ring():
            return COPIES_NOTHING
        case Holes():
            return COPIES_EVICTED
        case _:
            return COPIES_KEPT


def _rule_of(strategy: Strategy) -> IntegerRule:
    kind = type(strategy)
    rule = strategy.integer_rule
    if rule is None:
        raise _refused(strategy, f"decides by {strategy.decides_by}")
    owner = next(base for base in kind.__mro__ if "integer_rule" in vars(base))
    own = [hook for hook in HOOKS if getattr(kind, hook) is not getattr(owner, hook)]
    if own:
        inherited = f"has an {own[0]} of its own, beside the integer rule of {owner.__name__}"
        has_said = any("decides_by" in vars(base) for base in kind.__mro__[: kind.__mro__.index(owner)])
        raise _refused(strategy, f"decides by {strategy.decides_by}" if has_said else inherited)
    return rule


def _refused(strategy: Strategy, reason: str) -> ValueError:
    name = type(strategy).__name__
    return ValueError(f"{name} {reason}; a fleet is simulated by integer rules: {', '.join(RULED)}")


@lru_cache(maxsize=256)
def bound(function: Callable[..., int], arguments: tuple[int | float, ...]) -> Rule:
    """Compile a plain function of two whole numbers and further arguments that are the same at every call."""
    compiled_function = plain(function)

    def rule(first: int, second: int) -> int:
        return compiled_function(first, second, *arguments)

    return pointer(rule)


@lru_cache(maxsize=256)
def bound_turns(turns: Turns) -> TurnRule:
    """Compile what becomes of slots that are too many: a function of what is asked, and of three whole numbers."""
    functions = (*turns[:4], turns.at_once, turns.of_append)
    full, before, after, rest, at_once, of_append = (plain(function) for function in functions)
    by = turns.by

    def rule(what: int, first: int, second: int, third: int) -> int:
        if what == FULL:
            return full(first, *by)
        if what == BEFORE:
            return before(first, second, third, *by)
        if what == AT_ONCE:
            return at_once(first, second, *by)
        if what == OF_APPEND:
            return of_append(first, second, *by)
        return after(first, second, third, *by) if what == AFTER else rest(first, second, *by)

    return pointer(rule)
