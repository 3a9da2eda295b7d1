"""The measured backend, its live storages counted over a whole run."""

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from tests.support.catalogue import TINY
from tests.support.storages import LiveStorages


class Watched(MeasuredBackend):
    """Counts what steps allocate; at the end of each repetition nothing of it may be left."""

    def __init__(self, attend=True, geometry=TINY):
        super().__init__(Conditions(geometry=geometry, device="cpu", attend=attend))
        self.storages = LiveStorages()

    def step(self, booking, num_queries, continued=False):
        with self.storages:
            return super().step(booking, num_queries, continued)

    def end_repetition(self):
        super().end_repetition()
        assert self.storages.live_bytes == 0
