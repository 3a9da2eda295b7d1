"""Resizes beside the steps: how much of dynamic's stall async hides, and its slowest step over static's."""

from time import perf_counter_ns

import numpy as np
from driven import GROWTH_FACTOR, SEQ, Place, geometry
from table import Goal, print_row, print_share
from timing import NS_PER_S, no_collection, synchronize

from kvbench.backend.base import Booking
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.runner.drive import Driver
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic, grown_capacity
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session

DTYPE = "float16"
INITIAL, LENGTH, MOST = 512, 16_384, 19_683
START_AT = 0.9
NUM_BEFORE, NUM_RUNNING, NUM_AFTER = 8, 64, 32
"""Steps decoded before a resize begins, from its beginning on, and on each side of the append that needs it."""
MAX_APPEND_TOKENS = 1024

HIDDEN_GOAL = Goal(80, at_least=True, unit=" %")
SLOWEST_GOAL = Goal(1.5, at_least=False)


class Decoding:
    """One sequence under a strategy, decoded with attention in windows.

    Args:
        strategy: what decides.
    """

    def __init__(self, strategy: Strategy) -> None:
        shape = geometry(DTYPE)
        self._backend = MeasuredBackend(Conditions(geometry=shape, device=Place.device))
        self._backend.prepare(MAX_APPEND_TOKENS, 1)
        self._backend.begin_repetition(strategy.areas)
        self._driver = Driver(strategy, strategy.ledger(shape), self._backend)
        self._driver.open(SEQ)
        self.num_resizes = 0
        self.step_ns: list[int] = []
        self.stall_ns: list[int] = []
        self._carry_out(self._driver.admit(SEQ, Session(0, (Request(1),))), 0)

    def _carry_out(self, booking: Booking, num_queries: int) -> int:
        """Nanoseconds spent reserving and settling."""
        self.num_resizes += booking.receipt.num_resizes
        return self._backend.step(booking, num_queries).reserve_ns + sum(booking.waited)

    def decode(self, num_tokens: int) -> None:
        """Tokens one at a time, with attention, timed."""
        self._backend.drain()
        stall_ns = []
        for _ in range(num_tokens):
            synchronize()
            start = perf_counter_ns()
            stall_ns.append(self._carry_out(self._driver.append(SEQ, 1), 1))
            synchronize()
            self.step_ns.append(perf_counter_ns() - start)
        drained = self._backend.drain()  # of an accelerator, the times come now
        self.stall_ns += stall_ns if drained is None else [times.reserve_ns for times in drained]

    def append_up_to(self, length: int) -> None:
        """Tokens many at a time, without attention, not timed; they fit."""
        resizes = self.num_resizes
        while (left := length - self._driver.view.num_used(SEQ)) > 0:
            self._carry_out(self._driver.append(SEQ, min(left, MAX_APPEND_TOKENS)), 0)
        assert self.num_resizes == resizes, "a resize that was not timed"

    def close(self) -> None:
        """Free everything."""
        self._backend.end_repetition()


def capacities(most: int) -> list[int]:
    """Capacities that dynamic outgrows on the way to so many tokens."""
    found = [INITIAL]
    while found[-1] < most:
        found.append(grown_capacity(found[-1], found[-1] + 1, GROWTH_FACTOR, 1, MOST))
    return found[:-1]


def beside_the_steps(quick: bool) -> None:
    """Grow a sequence to 16,384 tokens: stalls and slowest steps under static, dynamic and async."""
    num_repetitions, most = (1, 2048) if quick else (5, LENGTH)
    grows = {"growth_factor": GROWTH_FACTOR, "max_capacity": MOST, "round_to": 1, "initial_capacity": INITIAL}
    strategies = {
        "static": Static(max_seq_len=MOST),
        "dynamic": Dynamic(**grows),
        "async": Ahead(**grows, start_at=START_AT),
    }
    runs: dict[str, list[Decoding]] = {name: [] for name in strategies}
    outgrown = capacities(most)
    names = list(strategies)
    for repetition in range(num_repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            run = Decoding(strategies[name])
            with no_collection():
                for capacity in outgrown:
                    run.append_up_to(int(capacity * START_AT) - NUM_BEFORE)
                    run.decode(NUM_BEFORE + NUM_RUNNING)
                    run.append_up_to(capacity - NUM_AFTER)
                    run.decode(2 * NUM_AFTER)
                run.append_up_to(most - NUM_AFTER)
                run.decode(NUM_AFTER)
            run.close()
            assert run.num_resizes == (0 if name == "static" else len(outgrown)), "other resizes than expected"
            runs[name].append(run)
    _print(runs, f"{INITIAL} → {most:,}", len(outgrown))


def _print(runs: dict[str, list[Decoding]], tokens: str, num_resizes: int) -> None:
    steps = {name: np.array([run.step_ns for run in own]) / NS_PER_S for name, own in runs.items()}
    stalls = {name: np.array([sum(run.stall_ns) for run in own]) / NS_PER_S for name, own in runs.items()}
    note = f"{num_resizes} resizes, {len(stalls['async'])} runs of {steps['async'].shape[1]:,} timed steps"
    hidden = 100 * (1 - stalls["async"] / stalls["dynamic"])
    sides = stalls["async"], stalls["dynamic"]
    print_share("stall hidden, async of dynamic", tokens, DTYPE, *sides, hidden, HIDDEN_GOAL, note=note)
    slowest = {name: own.max(axis=1) for name, own in steps.items()}
    for name, goal in (("async", SLOWEST_GOAL), ("dynamic", None)):
        print_row(f"slowest step, {name} / static", tokens, DTYPE, slowest[name], slowest["static"], goal)
    width = NUM_BEFORE + NUM_RUNNING + 2 * NUM_AFTER
    begins = (num_resizes - 1) * width + NUM_BEFORE
    running = {name: own[:, begins : begins + NUM_RUNNING].sum(axis=1) for name, own in steps.items()}
    note = f"{NUM_RUNNING} steps from the beginning of the last resize on, together"
    print_row("steps beside a resize, async / static", tokens, DTYPE, running["async"], running["static"], note=note)
