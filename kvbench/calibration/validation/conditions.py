"""Conditions on what rows come to, such as `mape>0.1` or `gemm.held_out.bias>5%`: on which a validation fails."""

import math
from collections.abc import Callable

import pandas as pd

from kvbench.calibration.validation.rows import HELD_OUT, Errors, errors_of
from kvbench.messages import cut, unknown
from kvbench.results.conditions import Stated, stated

MEASURES: dict[str, Callable[[Errors], float]] = {
    "mape": lambda errors: errors.mape,
    "bias": lambda errors: abs(errors.bias),
    "median": lambda errors: errors.median,
    "worst": lambda errors: abs(errors.worst),
    "coverage": lambda errors: errors.coverage,
}
"""What is compared; of bias and of the worst error the size."""
EXAMPLE = "fail_if='mape>0.1,gemm.held_out.bias>5%'"


class Condition(Stated):
    """What must not hold: of rows that words name, each a kind, a part of a group or of a region with _ for spaces, or
    held_out; by a measure of MEASURES, and a share.
    """

    __slots__ = ()

    def value(self, rows: pd.DataFrame) -> float:
        """What rows come to in this measure.

        Raises:
            ValueError: no row is of what it names, or none has an interval.
        """
        known = {HELD_OUT, *(each for parts in rows["parts"] for each in parts)}
        for word in self.of:
            if word not in known:
                raise ValueError(f"fail_if={self.text}: {unknown('rows', word, known)}")
            own = rows[HELD_OUT] if word == HELD_OUT else rows["parts"].map(lambda parts, word=word: word in parts)
            rows = rows[own]
        found = MEASURES[self.measure](errors_of(rows))
        if math.isnan(found):
            raise ValueError(f"fail_if={self.text}: no row {'has an interval' if len(rows) else 'is of that'}")
        return found


def conditions_of(text: str) -> tuple[Condition, ...]:
    """Conditions with commas between them.

    Raises:
        ValueError: one has another form, or an unknown measure.
    """
    found = []
    for each in stated(text, "fail_if", EXAMPLE):
        if each.measure not in MEASURES:
            raise ValueError(f"fail_if={cut(each.text)}: {unknown('measure', each.measure, MEASURES)}")
        found.append(Condition(*each))
    return tuple(found)


def failures(conditions: tuple[Condition, ...], rows: pd.DataFrame) -> tuple[str, ...]:
    """Which of them hold, each with what was found.

    Raises:
        ValueError: as `Condition.value`.
    """
    words = zip(rows["kind"], rows["group"], rows["region"], strict=True)
    rows = rows.assign(parts=pd.Series([_parts(*each) for each in words], rows.index, dtype=object))
    told = ((each, each.value(rows)) for each in conditions)
    return tuple(
        f"{each.text}: it is {100 * value:,.1f} %" if each.measure == "coverage" else f"{each.text}: it is {value:,.4g}"
        for each, value in told
        if each.holds(value)
    )


def _parts(kind: str, group: str, region: str) -> frozenset[str]:
    return frozenset(part.replace(" ", "_") for part in (kind, *group.split(", "), *region.split(", ")) if part)
