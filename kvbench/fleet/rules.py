"""A strategy's integer rule, compiled as it stands: the functions that the strategy calls, bound to its parameters."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from kvbench.compiled import plain, pointer
from kvbench.fleet.bounds import check_figures
from kvbench.fleet.state import BLOCKS, CHUNKS, CONTIGUOUS, Rule
from kvbench.plan.area import Area, Blocks, Chunks, Contiguous
from kvbench.strategy.base import IntegerRule, Strategy, constant

HOOKS = ("on_admit", "at_once", "on_append", "on_attended", "on_pressure", "on_finish", "on_complete")
RULED = ("chunked", "concat", "dynamic", "exact", "fp8", "paged", "power_of_two", "static")
"""Strategies that come with an integer rule, for messages."""


class BoundRule(NamedTuple):
    """A strategy's rule, ready for the kernel.

    Args:
        admitted: slots reserved at admission, of prompt and output tokens.
        grown: capacity after growth, of capacity and slots required.
        max_tokens: tokens that a sequence can hold; None: as memory lasts.
        area: how slots live.
        layout: CONTIGUOUS, CHUNKS or BLOCKS.
        unit: slots of a chunk or block; 1 where slots are contiguous.
        reserves: whether anything is reserved at admission.
    """

    admitted: Rule
    grown: Rule
    max_tokens: int | None
    area: Area
    layout: int
    unit: int
    reserves: bool


def bound_rule(strategy: Strategy) -> BoundRule:
    """Compile a strategy's decisions.

    Raises:
        ValueError: they are no integer rule.
    """
    rule, area, layout, unit = check_rule(strategy)
    check_figures(type(strategy).__name__, (*rule.admitted_by, *rule.grown_by, rule.max_tokens, unit))
    reserves = (rule.admitted, rule.admitted_by) != (constant, (0,))
    admitted, grown = bound(rule.admitted, rule.admitted_by), bound(rule.grown, rule.grown_by)
    return BoundRule(admitted, grown, rule.max_tokens, area, layout, unit, reserves)


def check_rule(strategy: Strategy) -> tuple[IntegerRule, Area, int, int]:
    """Find a strategy's rule and area, the area's layout, and its unit; nothing is compiled.

    Raises:
        ValueError: its decisions are no integer rule.
    """
    rule = _rule_of(strategy)
    (area,) = strategy.areas
    match area.layout:
        case Contiguous():
            return rule, area, CONTIGUOUS, 1
        case Chunks(num_tokens):
            return rule, area, CHUNKS, num_tokens
        case Blocks(num_tokens):
            return rule, area, BLOCKS, num_tokens
        case _:
            raise _refused(strategy, f"keeps slots in {area.layout}")


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
