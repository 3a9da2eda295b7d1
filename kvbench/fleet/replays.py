"""The same trace served again and again with other times of work: what figures of the summary are then."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from kvbench.fleet.result import FleetResult, Served
from kvbench.fleet.sums import RequestSums
from kvbench.model.hardware import Hardware
from kvbench.results.intervals import RESIDUALS, SHEETS
from kvbench.timing.doubt import doubt_of
from kvbench.timing.shapes import Factors

Figures = Mapping[str, float]
Serve = Callable[[Factors, Callable[[Served], object]], FleetResult]
"""Serves the trace with times multiplied so, and hands on what became of requests."""


class Replays(NamedTuple):
    """Figures of a summary in replays.

    Args:
        rows: a replay each.
        drawn_from: what times were drawn from, see `intervals.RESIDUALS`.
    """

    rows: tuple[Figures, ...] = ()
    drawn_from: str = RESIDUALS

    @property
    def values(self) -> dict[str, np.ndarray]:
        """By figure, a value a replay; empty without replays."""
        names = self.rows[0] if self.rows else ()
        return {name: np.array([row[name] for row in self.rows]) for name in names}


def replayed(
    hardware: Hardware,
    number: int,
    serve: Serve,
    sums_of: Callable[[], RequestSums],
    figures: Callable[[FleetResult, RequestSums], Figures],
) -> Replays:
    """Serve a trace so many times, each with times drawn from what the machine's may be off by.

    Args:
        hardware: the machine.
        number: of replays, >= 0.
        serve: serves the trace.
        sums_of: makes empty sums of requests.
        figures: what is kept of a replay.
    """
    doubt = doubt_of(hardware)

    def rows() -> Iterator[Figures]:
        for factors in doubt.draws(number):
            sums = sums_of()
            yield figures(serve(factors, sums.add), sums)

    return Replays(tuple(rows()), RESIDUALS if doubt.is_measured else SHEETS)
