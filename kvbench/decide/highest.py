"""The highest load at which constraints hold, by bisection: each load is tried once, with the same random numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvbench.decide.constraints import SATISFIED, VIOLATED, Constraint
from kvbench.results.front import unserved

STEPS = 64
"""A doubling of the load has so many, each 1.1 per cent."""
LEAST, MOST = -20 * STEPS, 20 * STEPS
"""Steps from the load that is asked at first, at most."""

Row = Mapping[str, Any]


class Highest(NamedTuple):
    """A load and its interval.

    Args:
        value: the highest at which all is served, and each figure itself is within its bound; 0: none was; NaN: it
            cannot be told, since a figure is empty, and those that are not hold at some load.
        low: at which all of each interval is.
        high: at which no interval is wholly beyond; NaN where all figures are empty.
        limited_by: what is empty, or else violated at the next load tried above; "" where the highest tried is held.
    """

    value: float
    low: float
    high: float
    limited_by: str


@dataclass
class Ladder:
    """Loads, each 1.1 per cent above the one before, and what came of those that were tried.

    Args:
        load_at: the load of a step; equal loads are tried once.
        run: what comes of a load, a row of a summary.
    Attributes:
        tried: rows by load.
    """

    load_at: Callable[[int], float]
    run: Callable[[float], Row]
    tried: dict[float, Row] = field(default_factory=dict)

    def row(self, step: int) -> Row:
        """What came of a step's load."""
        load = self.load_at(step)
        if load not in self.tried:
            self.tried[load] = self.run(load)
        return self.tried[load]

    def highest(self, holds: Callable[[Row], bool], start: int = 0) -> int | None:
        """The highest step at which it holds, if at all lower ones it does, too; None: at none that is tried.

        Args:
            holds: whether a row keeps to what it has to.
            start: a step near by.
        """
        step, stride = start, 1
        if holds(self.row(start)):
            while step < MOST and holds(self.row(min(step + stride, MOST))):
                step, stride = min(step + stride, MOST), 2 * stride
            low, high = step, min(step + stride, MOST + 1)
        else:
            while step > LEAST and not holds(self.row(max(step - stride, LEAST))):
                step, stride = max(step - stride, LEAST), 2 * stride
            if step == LEAST:
                return None
            low, high = max(step - stride, LEAST), step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(self.row(middle)) else (low, middle)
        return low


def highest_load(ladder: Ladder, constraints: Sequence[Constraint]) -> Highest:
    """The highest load at which all constraints hold, and its interval.

    Args:
        ladder: its step 0 is tried first.
        constraints: that hold at all lower loads, too.
    """
    empty = [each.text for each in constraints if math.isinf(each.excess(ladder.row(0)))]
    told = [each for each in constraints if each.text not in empty]
    if not told and not unserved(ladder.row(0)):
        return Highest(math.nan, 0.0, math.nan, ", ".join(empty))
    found = ladder.highest(lambda row: not _broken(row, told))
    near = LEAST if found is None else found
    low = None if empty else ladder.highest(lambda row: _verdicts(row, told) <= {SATISFIED}, near)
    high = ladder.highest(lambda row: VIOLATED not in _verdicts(row, told), near)
    value, under, over = (0.0 if step is None else ladder.load_at(step) for step in (found, low, high))
    if empty and found is not None:
        return Highest(math.nan, 0.0, max(over, value), ", ".join(empty))
    beyond = [] if near >= MOST else _broken(ladder.row(near + 1), told)
    return Highest(value, min(under, value), max(over, value), ", ".join(beyond))


def _broken(row: Row, constraints: Sequence[Constraint]) -> list[str]:
    """What a row breaks by its figures; first that not all were served, since figures are of those that were."""
    lacks = unserved(row)
    return [*([lacks] if lacks else []), *(each.text for each in constraints if not each.is_met(row))]


def _verdicts(row: Row, constraints: Sequence[Constraint]) -> set[str]:
    return {VIOLATED} if unserved(row) else {each.verdict(row) for each in constraints}
