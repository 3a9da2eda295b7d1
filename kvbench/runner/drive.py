"""One sequence driven by hand, without attention: what it then holds, and what its operations took."""

from kvbench.backend.base import Backend, Times
from kvbench.ledger import Limits
from kvbench.plan.ops import Plan
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session

SEQ = 0


def drive(backend: Backend, strategy: Strategy, session: Session) -> list[Times]:
    """Append a session's tokens; the sequence stays open until the caller ends the repetition.

    Inputs are made anew from the seed, so that two strategies that take the same steps are given the same tokens.

    Args:
        backend: where plans are carried out.
        strategy: a lossless one that shares nothing and moves nothing in the background.
        session: what is appended; it fits.
    Returns:
        The times of admission and of each step, without attention.
    """
    backend.prepare(max(session.appends()), session.num_tokens)
    known = (session.num_tokens,)
    strategy = strategy.fitted(Limits(geometry=backend.geometry, budget_bytes=None, live_tokens=known))
    ledger = strategy.ledger(backend.geometry, num_rows=backend.num_rows)
    backend.begin_repetition(strategy.areas)
    strategy.on_begin()
    ledger.open(SEQ)
    backend.open(SEQ)
    times: list[Times] = []

    def carry_out(plan: Plan) -> None:
        ledger.book(plan)
        times.append(backend.step(plan, SEQ, 0))

    carry_out(strategy.on_admit(SEQ, session, ledger.view))
    for left in session.appends():
        while left:
            now = strategy.at_once(SEQ, left, ledger.view)
            carry_out(strategy.on_append(SEQ, now, ledger.view))
            carry_out(strategy.on_attended(SEQ, now, ledger.view))
            left -= now
    return backend.drain() or times
