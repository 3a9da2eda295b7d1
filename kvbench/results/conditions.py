"""Conditions as people write them, such as `mape>0.1` or `paged.ttft_p99>5%`: a measure, a comparison and a number."""

import re
from collections.abc import Callable
from typing import NamedTuple

from kvbench.messages import cut, unknown
from kvbench.results.schema import SUMMARY

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}
EQUAL, UNTOLD = "equal", "cannot be told"
"""What is said of figures that are the same, and of what their intervals leave open."""
ENDINGS = ("_s", "_us", "_bytes", "_per_s", "_share", "_tokens", "_ratio")
"""Of figures' names, which may be left out."""
QUALITY = "quality."
"""Before the names of what a strategy costs a real model: quality.kl is quality_kl."""
_FORM = re.compile(
    r"\s*((?:[^\s.<>=]+\.)*)([^\s.<>=]+)\s*(>=|<=|>|<)\s*((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)\s*"
)


class Stated(NamedTuple):
    """A condition as it is stated.

    Args:
        text: as it was given.
        of: words before the measure, which say of what it is.
        measure: what is compared.
        operator: of OPERATORS.
        limit: a number; one in per cent is a share.
    """

    text: str
    of: tuple[str, ...]
    measure: str
    operator: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a value is so."""
        return OPERATORS[self.operator](value, self.limit)


def stated(text: str, key: str, example: str) -> tuple[Stated, ...]:
    """Conditions with commas between them.

    Args:
        text: the conditions.
        key: what they are given as, for messages.
        example: one of them, for messages.
    Raises:
        ValueError: one has another form.
    """
    found = []
    for part in text.strip("\"' ").split(","):  # a shell may leave quotes around all
        match = _FORM.fullmatch(part)
        if match is None:
            raise ValueError(f"{key} is a measure, a comparison and a number, such as {example}; got {cut(repr(part))}")
        of, measure, operator, number, percent = match.groups()
        if of.endswith(QUALITY):
            of, measure = of.removesuffix(QUALITY), f"{QUALITY}{measure}"
        limit = float(number) / (100 if percent else 1)
        found.append(Stated(part.strip(), tuple(of.split(".")[:-1]), measure, operator, limit))
    return tuple(found)


def column_of(name: str) -> str:
    """The summary's column of a figure's name, whose unit may be left out.

    Raises:
        ValueError: there is none.
    """
    if name.startswith(QUALITY):
        name = name.replace(".", "_", 1)
    found = next((each for each in (name, *(name + ending for ending in ENDINGS)) if each in SUMMARY), None)
    if found is None:
        raise ValueError(unknown("metric", name, [each for each, column in SUMMARY.items() if column.label]))
    return found
