"""A strategy's integer rule, compiled as it stands: the functions that the strategy calls, bound to its parameters."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from kvbench.compiled import plain, pointer
from kvbench.fleet.bounds import check_figures
from kvbench.fleet.state import (
    AFTER,
    BEFORE,
    BLOCKS,
    CHUNKS,
    CONTIGUOUS,
    COPIES_EVICTED,
    COPIES_KEPT,
    COPIES_NOTHING,
    FULL,
    Rule,
    Rules,
    TurnRule,
)
from kvbench.plan.area import DEVICE, Area, Blocks, Chunks, Contiguous, Holes, Ring
from kvbench.strategy.base import IntegerRule, Strategy, Turns, as_it_is, as_required, constant

HOOKS = ("on_admit", "at_once", "on_append", "on_attended", "on_pressure", "on_finish", "on_complete")
RULED = (
    "chunked",
    "concat",
    "dynamic",
    "exact",
    "fp8",
    "heavy_hitters",
    "int2",
    "int2_naive",
    "int4",
    "int8",
    "paged",
    "power_of_two",
    "sinks",
    "snapkv",
    "static",
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
    """

    compiled: Rules
    max_tokens: int | None
    areas: tuple[Area, ...]
    layout: int
    unit: int
    reserves: bool
    turns: Turns | None

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
    return BoundRule(compiled, rule.max_tokens, strategy.areas, layout, unit, reserves, rule.turns)


NO_TURNS = Turns(as_it_is, as_it_is, as_required, as_required, ())
"""Of strategies that reduce nothing, which are not asked."""


def check_rule(strategy: Strategy) -> tuple[IntegerRule, int, int]:
    """Find a strategy's rule, the layout of the area that new tokens go to, and its unit; nothing is compiled.

    Raises:
        ValueError: its decisions are no integer rule.
    """
    rule = _rule_of(strategy)
    *before, area = strategy.areas
    if rule.turns is not None:
        aside = before[0] if before else None
        is_plain = aside is None or (isinstance(aside.layout, Chunks) and aside.attended and aside.tier == DEVICE)
        if len(before) > 1 or not is_plain or not isinstance(area.layout, Contiguous | Ring | Holes):
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
    """Compile what becomes of slots that are too many: a function of what is asked, and of two whole numbers."""
    full, before, after, rest = (plain(function) for function in turns[:4])
    by = turns.by

    def rule(what: int, first: int, second: int) -> int:
        if what == FULL:
            return full(first, *by)
        if what == BEFORE:
            return before(first, *by)
        return after(first, second, *by) if what == AFTER else rest(first, second, *by)

    return pointer(rule)
