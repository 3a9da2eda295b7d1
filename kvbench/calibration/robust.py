"""Positive figures of a form, fitted to measured times by their relative errors, of which far ones count little."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

TYPICAL_PULL = 1e-3
"""Of a figure's typical value, which stays where the rows say nothing of it."""
NEAR = 0.03
"""Errors below which squares count, and above which sizes do."""
MOST_ROUNDS, MOST_TRIES, LONGEST_STEP, DAMPED = 80, 12, 1.0, 4.0
STEP, SETTLED = 1e-4, 1e-6


def fitted(
    predicted: Callable[[Mapping[str, float]], Numbers],
    typical: Mapping[str, float],
    measured: Numbers,
    most: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The figures with which a form's times are nearest to measured ones.

    Args:
        predicted: times by figures, as many as were measured, > 0.
        typical: where to begin, > 0.
        measured: seconds, > 0.
        most: of some figures.
    Returns:
        Figures by name, > 0.
    """
    names, told = list(typical), np.log(measured)
    begin = np.log([typical[name] for name in names])
    limit = np.log([(most or {}).get(name, np.inf) for name in names])

    def off(at: Numbers) -> Numbers:
        return np.asarray(np.log(predicted(_figures(names, at))) - told)

    def loss(errors: Numbers, at: Numbers) -> float:
        return float(np.hypot(errors, NEAR).mean() + TYPICAL_PULL * ((at - begin) ** 2).sum() / 2)

    at, damping = np.minimum(begin, limit), 1e-2
    errors = off(at)
    least = loss(errors, at)
    for _ in range(MOST_ROUNDS):
        slopes = np.stack([(off(at + STEP * unit) - errors) / STEP for unit in np.eye(len(at))], axis=1)
        weighed = slopes.T / (np.hypot(errors, NEAR) * len(errors))
        curved = weighed @ slopes + TYPICAL_PULL * np.eye(len(at))
        down = weighed @ errors + TYPICAL_PULL * (at - begin)
        for _ in range(MOST_TRIES):
            step = np.linalg.solve(curved + damping * np.diag(np.diag(curved)), -down)
            tried = np.minimum(at + np.clip(step, -LONGEST_STEP, LONGEST_STEP), limit)
            tried_errors = off(tried)
            found = loss(tried_errors, tried)
            if found < least:
                break
            damping *= DAMPED
        else:
            break
        gained, at, errors, least = least - found, tried, tried_errors, found
        damping = max(damping / DAMPED, STEP**2)
        if gained < SETTLED:
            break
    return _figures(names, at)


def _figures(names: Sequence[str], logs: Numbers) -> dict[str, float]:
    return dict(zip(names, np.exp(logs).tolist(), strict=True))
