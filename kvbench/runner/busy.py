"""How long a device is busy in decode steps, and the host in giving them to it: a pass apart from the timed run."""

from collections.abc import Sequence

from kvbench.backend.base import Backend, Booking
from kvbench.ledger import OutOfMemory
from kvbench.results.summary import least_bytes
from kvbench.runner.drive import SEQ, Driver, step
from kvbench.strategy.base import CapacityExceeded, Strategy
from kvbench.workload.request import NS_PER_S, Session

NUM_STEPS = 8
US_PER_S = 1_000_000
DRAIN_EVERY = 32


def busy_facts(
    strategy: Strategy, sessions: Sequence[Session], backend: Backend, budget_bytes: int | None
) -> dict[str, float]:
    """Drive a session alone, the middle one by its length; time its last decode steps on the host, and profile as many.

    Args:
        strategy: with nothing left to the run.
        sessions: of the run.
        backend: prepared for them.
        budget_bytes: what live requests may hold together; None for no limit.
    Returns:
        busy_us, busy_host_us, busy_bytes of the summary; empty where the host is the device, where no session has so
        many decode steps, and where the strategy does not hold the session.
    """
    fitting = [session for session in sessions if session.turns[-1].num_decode_steps >= 2 * NUM_STEPS]
    if backend.busy_ns is None or not fitting:
        return {}
    session = sorted(fitting, key=lambda session: session.num_tokens)[len(fitting) // 2]
    backend.begin_repetition(strategy.areas)
    try:
        ledger = strategy.ledger(backend.geometry, budget_bytes, backend.num_rows)
        return _measured(Driver(strategy, ledger, backend), backend, session)
    except (CapacityExceeded, OutOfMemory):
        return {}
    finally:
        backend.end_repetition()


def _measured(driver: Driver, backend: Backend, session: Session) -> dict[str, float]:
    """See `busy_facts`."""
    driver.open(SEQ)
    backend.step(driver.admit(SEQ, session), 0)
    held = 0

    def stepped(num_tokens: int) -> float:
        """The bytes that a step moves at least."""
        nonlocal held
        _, bookings = step(driver, backend, num_tokens, held)
        backend.end_iteration()
        held += num_tokens
        copied_bytes = sum(booking.receipt.copied_bytes for booking in bookings)
        return least_bytes(_num_attended(bookings[0], backend), num_tokens, copied_bytes, backend.slot_bytes)

    for number, num_tokens in enumerate(list(session.appends())[: -2 * NUM_STEPS]):
        for count in driver.steps(SEQ, num_tokens):
            stepped(count)
        if number % DRAIN_EVERY == 0:
            backend.drain()
    host_ns = 0
    for _ in range(NUM_STEPS):
        backend.drain()  # the device is idle, so that the host waits for nothing
        start = backend.now_ns()
        stepped(1)
        host_ns += backend.now_ns() - start
    moved: list[float] = []
    assert backend.busy_ns is not None
    busy_ns = backend.busy_ns(lambda: moved.extend(stepped(1) for _ in range(NUM_STEPS)))
    backend.drain()
    if busy_ns is None:
        return {}
    us = US_PER_S / NS_PER_S / NUM_STEPS
    return {"busy_us": busy_ns * us, "busy_host_us": host_ns * us, "busy_bytes": sum(moved) / NUM_STEPS}


def _num_attended(booking: Booking, backend: Backend) -> int:
    """Tokens that a step's attention reads; none where steps do not attend."""
    return booking.account.num_attended if booking.account is not None and backend.signals else 0
