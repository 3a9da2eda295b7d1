"""What is left of measured times by a form, as a smooth grid of corrections by shape."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kvbench.timing.corrections import HUNDREDTHS, corners

Numbers = NDArray[np.float64]

NEAR = 0.03
"""Errors below which squares count, and above which sizes do."""
NUM_ROUNDS = 8
PAIR_PULL, WHOLE_PULL = 0.02, 0.1
"""Towards no correction: of pairs of axes, one of which is the first, and of all axes together."""
BEND = 0.05
"""Of neighbours along an axis that are not on a line."""


def corrections_of(knots: Sequence[Sequence[float]], coordinates: Sequence[Numbers], logs: Numbers) -> list[int]:
    """Hundredths of a natural logarithm at a grid's knots, for `timing.corrections`.

    A grid of all axes is fitted together with those of the first axis and each of the others, which say more of shapes
    that nobody measured.

    Args:
        knots: of each axis.
        coordinates: of the rows, along each axis.
        logs: of measured time over the form's, a row.
    """
    first, *others = range(len(knots))
    sets: list[tuple[int, ...]] = [(first, other) for other in others] if len(others) > 1 else []
    sets.append(tuple(range(len(knots))))
    pulls = [PAIR_PULL] * (len(sets) - 1) + [WHOLE_PULL]
    basis = np.hstack([_basis([knots[at] for at in axes], [coordinates[at] for at in axes]) for axes in sets])
    penalty = _block([_penalty([len(knots[at]) for at in axes], pull) for axes, pull in zip(sets, pulls, strict=True)])
    found = _solved(basis, logs, penalty)
    shape = [len(axis) for axis in knots]
    total, start = np.zeros(shape), 0
    for axes in sets:
        own = [shape[at] if at in axes else 1 for at in range(len(shape))]
        total += found[start : start + int(np.prod(own))].reshape(own)
        start += int(np.prod(own))
    return [round(HUNDREDTHS * value) for value in total.ravel().tolist()]


def _basis(knots: Sequence[Sequence[float]], coordinates: Sequence[Numbers]) -> Numbers:
    rows = np.arange(len(coordinates[0]))
    found = np.zeros((len(rows), int(np.prod([len(axis) for axis in knots]))))
    for place, weight in corners(knots, *coordinates):
        found[rows, place] += weight
    return found


def _penalty(shape: Sequence[int], pull: float) -> Numbers:
    number = int(np.prod(shape))
    found = pull * np.eye(number)
    for axis, size in enumerate(shape):
        lines = np.moveaxis(np.arange(number).reshape(shape), axis, 0).reshape(size, -1)
        for (before, here), (_, after) in pairwise(pairwise(lines)):
            bend = np.zeros((len(here), number))
            at = np.arange(len(here))
            bend[at, before], bend[at, here], bend[at, after] = 1.0, -2.0, 1.0
            found += BEND * bend.T @ bend
    return found


def _block(parts: Sequence[Numbers]) -> Numbers:
    size = sum(len(part) for part in parts)
    found, start = np.zeros((size, size)), 0
    for part in parts:
        found[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return found


def _solved(basis: Numbers, logs: Numbers, penalty: Numbers) -> Numbers:
    weights: Numbers = np.ones(len(logs))
    found: Numbers = np.zeros(basis.shape[1])
    for _ in range(NUM_ROUNDS):
        weighed = basis.T * weights
        found = np.asarray(np.linalg.solve(weighed @ basis + penalty, weighed @ logs), np.float64)
        weights = NEAR / np.hypot(logs - basis @ found, NEAR)
    return found
