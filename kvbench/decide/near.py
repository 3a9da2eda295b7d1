"""Which deployments are near a front by their figures alone: those worth a closer look."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvbench.decide.constraints import Constraint
from kvbench.decide.objectives import Goal

NEAR = 24
"""Looked at closely."""
LOOSE = 0.5
"""Beyond a bound, as a share of it, that intervals may yet reach over."""


def near_front(
    rows: Sequence[Mapping[str, Any]], goals: Sequence[Goal], constraints: Sequence[Constraint], number: int = NEAR
) -> list[int]:
    """The places of those nearest to the front; of four, one at most that breaks a bound by a little.

    Args:
        rows: of deployments that may be chosen.
        goals: what is wanted.
        constraints: what has to hold.
        number: how many, at most.
    """
    costs = np.array([[goal.cost(row) for goal in goals] for row in rows], dtype=float).reshape(len(rows), len(goals))
    excess = np.array([max((each.excess(row) for each in constraints), default=-math.inf) for row in rows])
    known = np.isfinite(costs).all(axis=1)
    held = layered(costs, np.flatnonzero(known & (excess <= 0)), number)
    hopeful = np.flatnonzero(known & (excess > 0) & (excess <= LOOSE))
    hopeful = hopeful[~(costs[held][:, None] <= costs[hopeful]).all(axis=2).any(axis=0)]
    hopeful = hopeful[np.argsort(excess[hopeful], kind="stable")]
    beside = [int(place) for place in hopeful[: max(number // 4, number - len(held))]]
    if not held and not beside:  # nothing is near: say of the least bad how bad they are
        order = np.argsort(excess, kind="stable")
        beside = [int(place) for place in order if known[place]][: max(number // 4, 1)]
    return [*held[: number - len(beside)], *beside]


def layered(costs: np.ndarray, places: np.ndarray, number: int) -> list[int]:
    """So many of these places, those that no other is as good as and better than first, then those of what is left.

    Args:
        costs: [points, goals], smaller is better.
        places: of points, with costs that are finite.
        number: how many, at most.
    """
    found: list[int] = []
    left = places[np.argsort(_ranks(costs[places]), kind="stable")]
    while left.size and len(found) < number:
        layer, waiting = [], left
        while waiting.size:
            best, waiting = waiting[0], waiting[1:]
            layer.append(int(best))
            is_worse = (costs[best] <= costs[waiting]).all(axis=1) & (costs[best] < costs[waiting]).any(axis=1)
            waiting = waiting[~is_worse]
        layer.sort(key=lambda place: tuple(costs[place]))
        found += layer
        left = left[~np.isin(left, layer)]
    return found[:number]


def _ranks(costs: np.ndarray) -> np.ndarray:
    """The sum of ranks: who is as good in all and better in one has less."""
    total = np.zeros(len(costs))
    for column in costs.T:
        total += np.searchsorted(np.sort(column), column)
    return total
