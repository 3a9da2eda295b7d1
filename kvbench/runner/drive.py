"""The one driver of a sequence: what is asked of a strategy, in which order, and what is booked of it."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from kvbench.backend.base import NO_TIMES, Backend, Booking, Times, summed
from kvbench.ledger import NO_RECEIPT, Ledger, LedgerView, Limits, OutOfMemory, completed
from kvbench.plan.area import DEVICE
from kvbench.plan.ops import NOTHING, Plan, Settle
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


class Hands(Protocol):
    """What a driver asks of those who carry out; a `Backend` is one."""

    def open(self, seq: int) -> None:
        """See `Backend.open`."""
        ...

    def check(self, plan: Plan) -> Times:
        """See `Backend.check`."""
        ...


class Driver:
    """Asks a strategy for plans and books them; who calls carries out each booking before the next is made.

    A sequence is opened and admitted. An append comes in as many steps as `at_once` says: room and append, attention,
    and what follows attention, which waits for the next step's where there is no memory to do it in. In the end it is
    finished. Background work that a plan settles is checked before the plan is booked: what failed is never settled.

    Args:
        strategy: what decides; it begins anew.
        ledger: what counts; it holds nothing yet.
        hands: what is told of sequences that open, and of work that is to be settled.
    """

    def __init__(self, strategy: Strategy, ledger: Ledger, hands: Hands) -> None:
        self.strategy = strategy
        self.ledger = ledger
        self.view = ledger.view
        self._hands = hands
        self._leaves = type(strategy).on_step is not Strategy.on_step
        strategy.on_begin()

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        self.ledger.open(seq)
        self._hands.open(seq)

    def admit(self, seq: int, session: Session, num_tokens: int = 0) -> Booking:
        """What a new sequence needs before its first token, with what it takes over that is there already.

        Args:
            seq: the sequence.
            session: what it is of.
            num_tokens: that it is to compute before its next answer; 0: nothing is taken over.
        """

        def planned(seq: int, session: Session, view: LedgerView) -> Plan:
            plan = self.strategy.on_admit(seq, session, view)
            return (*plan, *self.strategy.on_reuse(seq, num_tokens, view)) if num_tokens else plan

        return self._do(seq, planned, session) or self.book(seq, NOTHING)

    def at_once(self, seq: int, num_tokens: int) -> int:
        """How many of an append's tokens the next step takes."""
        is_whole = num_tokens == 1 and not self.strategy.cuts_prompts
        return num_tokens if is_whole else self.strategy.at_once(seq, num_tokens, self.view)

    def steps(self, seq: int, num_tokens: int) -> Iterator[int]:
        """The steps that an append comes in, in tokens; one is asked for when all of the step before is done."""
        while num_tokens:
            count = self.at_once(seq, num_tokens)
            yield count
            num_tokens -= count

    def num_written(self, num_tokens: int, num_before: int) -> int:
        """Tokens whose K and V a step computes: those before its own too, where nothing is held between steps."""
        return num_tokens + num_before if self.strategy.recomputes else num_tokens

    def append(self, seq: int, num_written: int) -> Booking:
        """Room for a step's tokens, and their append.

        Raises:
            CapacityExceeded: the sequence would be longer than the strategy can hold.
            OutOfMemory: it does not fit; nothing is booked.
            BackgroundError: what it settles has failed; nothing is booked.
        """
        # Without `_do`, which is what each step of a decode asks for: 0.3 µs less.
        return self.book(seq, self.strategy.on_append(seq, num_written, self.view))

    def leave(self, seq: int) -> Booking | None:
        """What goes before a sequence's next step; None where nothing does."""
        return self._do(seq, lambda seq, _, view: self.strategy.on_step(seq, view)) if self._leaves else None

    def attended(self, seq: int, num_tokens: int) -> Booking | None:
        """What follows attention, if anything; where there is no memory to do it in, it waits for the next step's.

        Args:
            seq: the sequence.
            num_tokens: of the step, those anew left out.
        """
        try:
            return self._do(seq, self.strategy.on_attended, num_tokens)
        except OutOfMemory:
            if self.has_failed(seq):
                raise
            return None

    def has_failed(self, seq: int) -> bool:
        """Whether a booking was left half done, so that nothing of it can wait."""
        return False

    def fork(self, seq: int, parent: int, num_tokens: int) -> Booking | None:
        """The first tokens, taken over from another sequence; None where the strategy shares none."""
        return self._do(seq, lambda seq, _, view: self.strategy.on_fork(seq, parent, num_tokens, view))

    def relieve(self, seq: int, need_bytes: int) -> Booking | None:
        """What a victim gives back where memory does not last; None where it offers nothing."""
        return self._do(seq, self.strategy.on_pressure, need_bytes)

    def finish(self, seq: int) -> Booking:
        """The end of a sequence; of a session that is completed, `complete` follows."""
        return self._do(seq, lambda seq, _, view: self.strategy.on_finish(seq, view)) or self.book(seq, NOTHING)

    def complete(self, session: Session) -> None:
        """Let the strategy learn from a session whose sequence was finished, and not for want of anything."""
        self.strategy.on_complete(session)

    def _do(self, seq: int, hook: Callable[[int, Any, LedgerView], Plan], what: object = None) -> Booking | None:
        """Ask, and book the answer; None where nothing is planned.

        A hook takes one thing beside the sequence: calls that gather any number took 0.6 µs more a step.
        """
        plan = hook(seq, what, self.view)
        return self.book(seq, plan) if plan else None

    def book(self, seq: int, plan: Plan) -> Booking:
        """Book a plan, with what follows it, once what it settles is known not to have failed."""
        ledger = self.ledger
        plan = completed(plan, ledger)
        before = ledger.tier_bytes[DEVICE]
        waited = self._hands.check(plan) if plan and type(plan[0]) is Settle else NO_TIMES
        receipt = ledger.book(plan) or NO_RECEIPT
        return Booking(seq, plan, receipt, waited, before, ledger.accounts.get(seq), ledger.used_bytes)


def settles(plan: Plan) -> bool:
    """Whether a plan settles background work, which it does first."""
    return bool(plan) and type(plan[0]) is Settle


SEQ = 0


def step(
    driver: Driver, backend: Backend, num_tokens: int, num_before: int, attends: bool = True
) -> tuple[Times, list[Booking]]:
    """One step of the only sequence, as a runner makes it: room and append, attention, and what follows it.

    Args:
        driver: the sequence's.
        backend: where plans are carried out.
        num_tokens: that are appended.
        num_before: tokens appended before them.
        attends: whether their queries attend.
    Returns:
        What it took, and what was booked.
    """
    num_written = driver.num_written(num_tokens, num_before)
    first = driver.append(SEQ, num_written)
    times = summed(backend.step(first, num_written if attends else 0), first.waited)
    after = driver.attended(SEQ, num_tokens)
    if after is None:
        return times, [first]
    return summed(times, summed(backend.step(after, 0, continued=True), after.waited)), [first, after]


def drive(backend: Backend, strategy: Strategy, session: Session) -> list[Times]:
    """Drive one sequence through a session without attention; it stays open until the caller ends the repetition.

    Inputs are made anew from the seed, so that two strategies that take the same steps are given the same tokens.

    Args:
        backend: where plans are carried out.
        strategy: a lossless one that shares nothing.
        session: what is appended; it fits.
    Returns:
        The times of admission and of each step, without attention.
    """
    backend.prepare(max(session.appends()), session.num_tokens)
    known = (session.num_tokens,)
    strategy = strategy.fitted(Limits(geometry=backend.geometry, budget_bytes=None, live_tokens=known))
    backend.begin_repetition(strategy.areas)
    driver = Driver(strategy, strategy.ledger(backend.geometry, num_rows=backend.num_rows), backend)
    driver.open(SEQ)
    first, held = driver.admit(SEQ, session), 0
    times = [summed(backend.step(first, 0), first.waited)]
    for num_tokens in session.appends():
        for count in driver.steps(SEQ, num_tokens):
            times.append(step(driver, backend, count, held, attends=False)[0])
            held += count
    return backend.drain() or times
