"""What a configuration has to keep to, judged by intervals: satisfied, violated, or it cannot be told."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kvbench.results.columns import ends
from kvbench.results.conditions import UNTOLD, Stated, column_of, stated
from kvbench.results.quality_columns import QUALITY_OF_MODEL, WHERE

SATISFIED, VIOLATED = "satisfied", "violated"
LEAST_EXCESS = 1e-12
"""Of a figure that is at a bound that it has to be beyond."""
EXAMPLE = "subject_to='[ttft_p99_s<=1,tpot_p99_s<=0.05]'"


class Constraint(Stated):
    """A bound of a figure of the summary, whose unit may be left out."""

    __slots__ = ()

    @property
    def column(self) -> str:
        """The summary's column."""
        return column_of(self.measure)

    def excess(self, row: Mapping[str, Any]) -> float:
        """How far the figure itself is beyond the bound, as a share of it; below 0 within, infinite where empty."""
        value = float(row.get(self.column, math.nan))
        if math.isnan(value):
            return math.inf
        beyond = value - self.limit if self.operator.startswith("<") else self.limit - value
        share = beyond / (abs(self.limit) or 1.0)
        return share if self.holds(value) or share > 0 else LEAST_EXCESS

    def verdict(self, row: Mapping[str, Any]) -> str:
        """What a row says: of a figure that has an interval, by all of it.

        Args:
            row: of a summary.
        """
        value = float(row.get(self.column, math.nan))
        if math.isnan(value):
            return UNTOLD
        around = [float(row.get(end, math.nan)) for end in ends(self.column)]
        held = [self.holds(each) for each in (around if all(map(math.isfinite, around)) else [value])]
        return SATISFIED if all(held) else UNTOLD if any(held) else VIOLATED

    def why_empty(self, row: Mapping[str, Any]) -> str:
        """Why a row has no such figure, and what to do."""
        if self.column in QUALITY_OF_MODEL:
            return str(row.get(WHERE, UNTOLD))
        if not re.search(r"_p\d+_", f"{self.column}_"):
            return f"{self.column} is empty: nothing that is served here has it; name another"
        return (
            f"{self.column} is empty; a percentile takes ten requests beyond it, so serve more (backend.repeats serves "
            "all again), or name another"
        )

    def is_met(self, row: Mapping[str, Any]) -> bool:
        """Whether the figure itself, whatever its interval, is within the bound."""
        return self.holds(float(row.get(self.column, math.nan)))


def constraints_of(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Constraints of figures of the summary.

    Args:
        texts: such as "ttft_p99_s<=1", or several with commas between them.
    Raises:
        ValueError: one has another form, or its figure is unknown; or there is none.
    """
    found = []
    for text in texts:
        for each in stated(text, "subject_to", EXAMPLE):
            constraint = Constraint(*each)
            if constraint.of:
                raise ValueError(f"subject_to={each.text}: a figure of the whole run has no word before it")
            _ = constraint.column  # refuses what is none
            found.append(constraint)
    if not found:
        raise ValueError(f"subject_to says what has to hold, for example {EXAMPLE}; got nothing")
    return tuple(found)
