"""What a search's rows say beside the best: what has least room, what nothing meets, what would win otherwise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kvbench.decide.constraints import SATISFIED, VIOLATED, Constraint
from kvbench.decide.objectives import Goal
from kvbench.results.conditions import UNTOLD
from kvbench.results.front import may_win

Row = Mapping[str, Any]
EVEN, BETTER = "no better", "better"
BEST, FRONT, DEFAULT = "best", "front", "default"
"""What a deployment is judged as, on requests that were not searched on."""
WORTH = 0.01
"""Of a figure, that a change has to save."""


class Room(NamedTuple):
    """What a deployment leaves of a condition.

    Args:
        constraint: the condition.
        value: its figure; NaN: it has none.
        left: of the bound, as a share of it; below 0 beyond; NaN where there is no figure.
        verdict: by the figure's interval.
    """

    constraint: Constraint
    value: float
    left: float
    verdict: str


class Unmet(NamedTuple):
    """A condition that no deployment meets, whatever its interval.

    Args:
        constraint: the condition.
        nearest: the row that comes nearest; None: no row has the figure.
    """

    constraint: Constraint
    nearest: Row | None


class Otherwise(NamedTuple):
    """What would be best without a condition.

    Args:
        constraint: the condition.
        row: of the deployment that would.
    """

    constraint: Constraint
    row: Row


def rooms(row: Row, constraints: Iterable[Constraint]) -> list[Room]:
    """What a row leaves of each condition, the least first."""
    found = []
    for each in constraints:
        value, excess = float(row.get(each.column, math.nan)), each.excess(row)
        found.append(Room(each, value, math.nan if math.isinf(excess) else -excess, each.verdict(row)))
    return sorted(found, key=lambda room: (not math.isnan(room.left), room.left))


def unmet(rows: pd.DataFrame, constraints: Iterable[Constraint]) -> list[Unmet]:
    """Conditions that no deployment meets that may be chosen, each with what comes nearest."""
    choosable = records(rows[_choosable(rows)])
    found = []
    for each in constraints:
        excess = [each.excess(row) for row in choosable]
        if not any(value <= 0 for value in excess):
            known = [place for place, value in enumerate(excess) if math.isfinite(value)]
            nearest = choosable[min(known, key=lambda place: excess[place])] if known else None
            found.append(Unmet(each, nearest))
    return found


def nearest_of(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> Row | None:
    """The deployment whose worst condition is least beyond its bound; None: none has all figures."""
    choosable = records(rows[_choosable(rows)])
    worst = [max((each.excess(row) for each in constraints), default=-math.inf) for row in choosable]
    known = [place for place, value in enumerate(worst) if value < math.inf]
    return choosable[min(known, key=lambda place: worst[place])] if known else None


def otherwise(
    rows: pd.DataFrame, goals: Sequence[Goal], constraints: Sequence[Constraint], best: Row | None
) -> list[Otherwise]:
    """Without each condition, by figures alone, what would be better than the best in the first goal."""
    choosable, goal = records(rows[_choosable(rows)]), goals[0]
    limit = math.inf if best is None else goal.cost(best)
    found = []
    for dropped in constraints:
        others = [each for each in constraints if each is not dropped]
        held = [row for row in choosable if all(each.excess(row) <= 0 for each in others)]
        better = [(cost, place) for place, row in enumerate(held) if (cost := _cost(goal, row)) < limit]
        if better and not dropped.excess(held[min(better)[1]]) <= 0:
            found.append(Otherwise(dropped, held[min(better)[1]]))
    return found


def contenders_of(
    rows: pd.DataFrame,
    goals: Sequence[Goal],
    constraints: Sequence[Constraint],
    by: Sequence[str],
    number: int,
    most_excess: float = math.inf,
) -> list[Row]:
    """The best of each kind in the first goal: who may win at a smaller load, and of those that hold here at a larger.

    Args:
        rows: of a search.
        goals: what is wanted.
        constraints: what has to hold; who lacks a figure for one is none.
        by: columns that tell kinds apart.
        number: of kinds, at most.
        most_excess: how far each condition is exceeded here, at most; 0: those that hold by their figures.
    """
    found: dict[tuple[str, ...], Row] = {}
    competing = [
        row
        for row in records(rows[_choosable(rows)])
        if all(math.isfinite(over := each.excess(row)) and over <= most_excess for each in constraints)
    ]
    for row in sorted(competing, key=lambda row: _cost(goals[0], row)):
        found.setdefault(tuple(str(row.get(name)) for name in by), row)
    return list(found.values())[:number]


def untold(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> dict[str, list[str]]:
    """Strategies of which a condition cannot be told for want of a figure, by why that is."""
    found: dict[str, list[str]] = {}
    for row in records(rows):
        for each in constraints:
            if math.isinf(each.excess(row)):
                strategies = found.setdefault(each.why_empty(row), [])
                if str(row["strategy"]) not in strategies:
                    strategies.append(str(row["strategy"]))
    return found


def verdict_of(rows: pd.DataFrame, judged: pd.DataFrame, against: pd.DataFrame, metric: str) -> str:
    """What is to be answered: SATISFIED where the best holds on requests that were not searched on, too, and beats
    every default that does, beyond doubt and by what is worth a change; EVEN where a default is to be kept.

    Args:
        rows: of a search.
        judged: as in `Tuned`.
        against: likewise.
        metric: the first goal's.
    """
    best = judged.loc[judged["role"] == BEST, "verdict"]
    if best.empty:
        return UNTOLD if (rows["verdict"] == UNTOLD).any() else VIOLATED
    usual = judged.loc[judged["role"] == DEFAULT, "verdict"] == SATISFIED
    if best.iloc[0] != SATISFIED:
        return EVEN if usual.any() else UNTOLD
    own = against[(against["metric"] == metric) & (against["holds"] == SATISFIED)]
    beaten = (own["verdict"] == BETTER) & ((own["ratio"] - 1).abs() >= WORTH)
    return SATISFIED if beaten.all() else EVEN


def advised_of(judged: pd.DataFrame, verdict: str, goal: Goal) -> Row | None:
    """What is advised, on requests that were not searched on: the best, or where it is EVEN the usual choice to keep.

    Args:
        judged: with roles, as in `Tuned`.
        verdict: as in `Recommended`.
        goal: the first: of several usual choices that hold, the best.
    """
    if verdict == EVEN:
        usual = judged[(judged["role"] == DEFAULT) & (judged["verdict"] == SATISFIED)]
        return min(records(usual), key=goal.cost)
    return next(iter(records(judged[judged["role"] == BEST])), None)


def _choosable(rows: pd.DataFrame) -> np.ndarray:
    served: np.ndarray = may_win(rows) & (rows["error"] == "").to_numpy()
    return served


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as mappings by column."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _cost(goal: Goal, row: Row) -> float:
    cost = goal.cost(row)
    return math.inf if math.isnan(cost) else cost
