"""What a search tries of a parameter: a range or choices, said beside it in a signature by `Annotated`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

from kvbench.checks import check_number

Value = str | int | float | bool | None
"""What a key is set to."""


@dataclass(frozen=True)
class Tried:
    """A range of numbers, or choices.

    Args:
        low: the least; with `high` a whole number, all are.
        high: the most.
        log: whether equal ratios count alike, not equal differences.
        choices: instead of a range.
    Raises:
        ValueError: it is neither, or both, or nothing is in it.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            if (self.low, self.high) != (None, None):
                raise ValueError(f"what is tried is a range or choices, not both; got {self.low} to {self.high}, too")
            return
        for name in ("low", "high"):
            check_number(name, getattr(self, name), -math.inf)
        low, high = self.ends
        if low >= high or (self.log and low <= 0):
            least = ", above 0 where log is true" if self.log else ""
            raise ValueError(f"low is below high{least}; got {low:g} to {high:g}")

    @property
    def ends(self) -> tuple[float, float]:
        """Of a range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def is_whole(self) -> bool:
        """Whether a range has whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def values(self) -> "tuple[Value, ...] | range | None":
        """All of them, where they can be told one by one; None: any number between two ends."""
        if self.choices:
            return self.choices
        return range(int(self.ends[0]), int(self.ends[1]) + 1) if self.is_whole else None

    def __contains__(self, value: object) -> bool:
        if self.values is not None:
            return among(value, self.values)
        return isinstance(value, int | float) and self.ends[0] <= value <= self.ends[1]


def among(value: object, values: Iterable[object]) -> bool:
    """Whether a value is one of these, of its own type: 1 is neither 1.0 nor true."""
    return any(value == each and type(value) is type(each) for each in values)


def tried_of(owner: type) -> dict[str, Tried]:
    """What is tried of a class's parameters, by name; of most, nothing is said."""
    said = {
        name: each for base in reversed(owner.__mro__) for name, each in vars(base).get("__annotations__", {}).items()
    }
    found = {name: _said(each) for name, each in said.items()}
    return {name: tried for name, tried in found.items() if tried is not None}


def _said(annotation: object) -> Tried | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((each for each in get_args(annotation)[1:] if isinstance(each, Tried)), None)
