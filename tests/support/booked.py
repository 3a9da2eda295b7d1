"""A backend whose plans are booked first, as a runner does, in a ledger without a budget."""

from kvbench.ledger import Ledger
from kvbench.runner.drive import Driver
from kvbench.strategy.base import Strategy


class BookedSteps:
    """Takes plans where a backend takes bookings; all else is the backend's.

    Args:
        backend: what is driven; a repetition begins.
        areas: how its sequences live.
    """

    def __init__(self, backend, areas):
        self.backend = backend
        backend.begin_repetition(areas)
        self._driver = Driver(Strategy(), Ledger(backend.geometry, None, areas, backend.num_rows), backend)

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def open(self, seq):
        self._driver.open(seq)

    def step(self, plan, seq, num_queries, continued=False):
        return self.backend.step(self._driver.book(seq, plan), num_queries, continued)
