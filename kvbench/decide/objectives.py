"""What a search wants less of, or more: figures of the summary."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvbench.results.conditions import column_of
from kvbench.results.schema import MORE_IS_BETTER, SUMMARY

USUAL = "cost_per_million_tokens"
"""What is made less of where nothing is said."""


class Goal(NamedTuple):
    """A figure, and which side of it is better.

    Args:
        column: of the summary.
        more: whether more of it is better.
    """

    column: str
    more: bool = False

    @property
    def text(self) -> str:
        """In words."""
        return f"{'most' if self.more else 'least'} {self.column}"

    def cost(self, row: Mapping[str, Any]) -> float:
        """A row's figure, of which less is better; NaN where it has none."""
        value = float(row.get(self.column, math.nan))
        return -value if self.more else value


def goals_of(minimise: Iterable[str], maximise: Iterable[str]) -> tuple[Goal, ...]:
    """The goals, those to be less first.

    Args:
        minimise: figures of the summary, whose units may be left out.
        maximise: likewise.
    Raises:
        ValueError: a figure is unknown, has no better side, stands twice, or stands on its worse side.
    """
    named = [(name, False) for name in minimise] + [(name, True) for name in maximise]
    found: dict[str, Goal] = {}
    for name, more in named or [(USUAL, False)]:
        column = column_of(name)
        if column in found:
            raise ValueError(f"{column} stands twice among what is to be less or more")
        if not SUMMARY[column].label:
            raise ValueError(f"{column} has no side that is better: name another figure of the summary")
        if more != (column in MORE_IS_BETTER):
            better, asked = ("more", "maximise") if column in MORE_IS_BETTER else ("less", "minimise")
            raise ValueError(f"{column}: {better} of it is better, so it goes into {asked}")
        found[column] = Goal(column, more)
    return tuple(found.values())
