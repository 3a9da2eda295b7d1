"""The modelled backend books the bytes, the slots and the resizes that the measured one holds, step by step."""

import numpy as np
import pytest

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.modelled import Modelled, ModelledBackend
from kvbench.calibration.validate import (
    ValidationCase,
    outcomes_of,
    steps_of,
)
from kvbench.runner.run import limits_of
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY, scenario, strategy
from tests.support.machines import machine
from tests.support.storages import LiveStorages

UNSIGNALLED = [name for name in STRATEGIES if not strategy(name).signals]


def drawn(seed):
    """Requests of random turns, all there at once: what is live in a step does not depend on how long steps take."""
    rng = np.random.default_rng(seed)
    return [
        Session(
            0, tuple(Request(int(rng.integers(1, 400)), int(rng.integers(0, 30))) for _ in range(rng.integers(1, 4)))
        )
        for _ in range(4)
    ]


CASES = {
    "parallel_sampling": lambda: (
        scenario("parallel_sampling", num_prompts=1, num_samples=2).workload(np.random.default_rng(0)).sessions,
        2,
        1 << 40,
    ),
    "random": lambda: (drawn(1), 3, 1 << 40),
    # Room for 1,171 slots of 256 bytes: some requests make way for others, and what reserves more at once has none.
    "pressed": lambda: (drawn(2), 4, 300_000),
}


class Watched(MeasuredBackend):
    """Keeps the bytes of live storages, counted by themselves, after every step; runs once, without warm-up."""

    is_repeatable = True

    def __init__(self, live, **settings):
        super().__init__(Conditions(geometry=TINY, device="cpu", attend=False, **settings))
        self.live, self.held = live, []

    def begin_repetition(self, areas):
        super().begin_repetition(areas)
        self.before = self.live.live_bytes

    def step(self, *arguments, **settings):
        times = super().step(*arguments, **settings)
        self.wait()
        self.held.append(self.live.live_bytes - self.before)
        return times


class Booked(ModelledBackend):
    """Keeps the bytes of the run's books after every step."""

    def __init__(self, books):
        conditions = Conditions(geometry=TINY, hardware=machine(), cache_only=True, attend=False)
        super().__init__(Modelled(memory_fraction=1.0), conditions)
        self.books, self.held = books, []

    def step(self, *arguments, **settings):
        times = super().step(*arguments, **settings)
        self.held.append(self.books[-1].held_bytes)
        return times


TOO_LARGE = [("hierarchical", "pressed"), ("hierarchical_disk", "pressed")]
"""What is set aside for their fast tier and for reading the others is more than the budget."""


def pairs():
    """Every strategy pressed, and in one of the other cases in turn; the rest are slow."""
    for number, name in enumerate(UNSIGNALLED):
        now = ("pressed", ("parallel_sampling", "random")[number % 2])
        for case in CASES:
            yield pytest.param(name, case, marks=() if case in now else pytest.mark.slow)


@pytest.mark.parametrize(("name", "case"), list(pairs()))
def test_bytes_and_resizes_are_those_that_were_measured(name, case, monkeypatch):
    books, ledger = [], Strategy.ledger
    monkeypatch.setattr(Strategy, "ledger", lambda *of, **more: books.append(ledger(*of, **more)) or books[-1])
    requests, max_concurrency, budget_bytes = CASES[case]()
    model = Booked(books)
    asked = ValidationCase(case, requests, max_concurrency)
    with LiveStorages() as live:
        real = Watched(live)
        chosen = {name: strategy(name).fitted(limits_of(requests, real, max_concurrency, budget_bytes))}
        first = steps_of(real, chosen, asked, budget_bytes=budget_bytes)
    second = steps_of(model, chosen, asked, budget_bytes=budget_bytes)
    assert real.held == model.held
    assert first["iteration"].tolist() == second["iteration"].tolist()
    assert outcomes_of(asked, chosen, first, first, second)[0].differences == ()
    assert (first["num_tokens"].sum() > 0) == ((name, case) not in TOO_LARGE)
