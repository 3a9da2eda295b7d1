"""Ends of intervals by what a figure comes to with other times of work: of simulations, and of sums of kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvbench.results.columns import TAILS
from kvbench.timing.doubt import REPLAYS, Doubt, reaching

Ends = tuple[NDArray[np.float64], NDArray[np.float64]]


def drawn_ends(figure: str, ours: ArrayLike, drawn: Sequence[Any]) -> Ends:
    """The ends of what a figure comes to, at 90 %, by draws and its margin; NaN without.

    Args:
        figure: see `timing.doubt.margin_of`.
        ours: as it is told.
        drawn: the same with other times of work, a draw each.
    """
    if not drawn:
        return _none_of(ours)
    return reaching(figure, ours, *_quantiles(ours, drawn))


def sum_ends(figure: str, parts: Mapping[str, ArrayLike], doubt: Doubt | None) -> Ends:
    """The same of sums of several kinds of work, a factor a kind drawn for each sum.

    Args:
        figure: of `timing.doubt.SUMS`; machines that nobody measured have no margin.
        parts: seconds by kind of work, of as many sums each.
        doubt: what a machine's times may be off by; None: there are no ends.
    """
    told = {kind: np.asarray(seconds, np.float64) for kind, seconds in parts.items()}
    ours = sum(told.values())
    if doubt is None:
        return _none_of(ours)
    drawn = [sum(getattr(draw, kind) * seconds for kind, seconds in told.items()) for draw in doubt.draws(REPLAYS)]
    return drawn_ends(figure, ours, drawn) if doubt.is_measured else _quantiles(ours, drawn)


def _quantiles(ours: ArrayLike, drawn: Sequence[Any]) -> Ends:
    low, high = np.quantile(np.array(drawn), TAILS, axis=0)
    return np.minimum(low, ours), np.maximum(high, ours)


def _none_of(ours: ArrayLike) -> Ends:
    return np.full(np.shape(ours), np.nan), np.full(np.shape(ours), np.nan)
