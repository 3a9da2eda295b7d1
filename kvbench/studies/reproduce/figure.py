"""One published figure and ours."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published figure beside ours.

    Args:
        result: which published result it belongs to.
        quantity: what it is, of which system.
        unit: of both.
        published: as printed; None where only ours exists.
        ours: computed; None where a trace is missing.
        goal: the largest difference that counts as reproduced, in the same unit; None where it is shown, not judged.
        source: where it was printed.
    """

    result: str
    quantity: str
    unit: str
    published: float | None
    ours: float | None
    goal: float | None
    source: str

    @property
    def difference(self) -> float | None:
        """Ours less the published one."""
        if self.published is None or self.ours is None:
            return None
        return self.ours - self.published

    @property
    def verdict(self) -> str:
        """Whether ours is within the goal."""
        if self.ours is None:
            return "not run"
        if self.goal is None or self.difference is None:
            return "shown"
        # Figures are printed with few digits: a difference in the last of ours is none.
        return "reproduced" if abs(self.difference) <= self.goal + 1e-9 else "missed"


def figures_frame(figures: Iterable[Figure]) -> pd.DataFrame:
    """A row a figure."""
    rows = [asdict(figure) | {"difference": figure.difference, "verdict": figure.verdict} for figure in figures]
    columns = ["result", "quantity", "published", "ours", "difference", "goal", "unit", "verdict", "source"]
    return pd.DataFrame(rows, columns=columns)
