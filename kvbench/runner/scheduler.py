"""Continuous batching: admission in order of arrival, a step of each request an iteration, who gives memory back."""

from collections import deque
from collections.abc import Iterator, Sequence

from kvbench.backend.base import Backend, Booking
from kvbench.ledger import BackgroundError, Ledger, OutOfMemory
from kvbench.plan.area import Blocks
from kvbench.results.columns import COMPLETED, UNREACHED
from kvbench.runner.carrying import Carrier
from kvbench.runner.drive import Driver
from kvbench.runner.expected import Expected
from kvbench.runner.filling import Filling
from kvbench.runner.live import LiveRequest
from kvbench.runner.promises import Promises
from kvbench.runner.recorder import (
    ADMIT,
    ARRIVALS,
    BATCH,
    COMPUTING,
    DECODE,
    FINISH,
    FORK,
    MEMORY,
    POOL,
    PREFILL,
    RECOMPUTE,
    RELIEVE,
    Recorder,
)
from kvbench.runner.tiers import loaded_tokens
from kvbench.strategy.base import CapacityExceeded, Strategy
from kvbench.workload.request import Session

DRAIN_EVERY = 32
"""Iterations between drains of a device that runs behind the host; while requests are still to arrive, one."""


class Scheduler:
    """One strategy's run over all sessions, on a clock that counts steps and skips idle time.

    Requests, the turns of sessions, are computed first come, first served, while fewer than `max_concurrency` are live
    and memory lasts; the backend's `scheduling` says how a pass over them is filled. While a session thinks of its next
    turn it is idle: it keeps its cache and takes no place; a turn that follows at once keeps the place. Where memory
    does not last, a victim gives its own back: the session that has been idle longest, else the request admitted last.
    The strategy may offer what of the victim's is cheaper to give than all. A live victim waits at the head of the
    queue until a request has finished, or until a step in which nobody gives way; what a victim held, and is not found
    again, is computed again before its next step. A request that does not fit alone ends its session as out_of_memory;
    one that is longer than the strategy holds, as too_long; who follows such a session is not reached.

    Args:
        strategy: what decides.
        sessions: in order of arrival.
        backend: what carries out.
        ledger: what counts; it holds nothing yet.
        recorder: what keeps rows.
        run: repetition and the strategy's index, for the rows.
        max_concurrency: requests computed at once.
        num_clients: who send the sessions in their order, each the next one when its last has ended; None: they arrive
            at their times.
    """

    def __init__(
        self,
        strategy: Strategy,
        sessions: Sequence[Session],
        backend: Backend,
        ledger: Ledger,
        recorder: Recorder,
        run: tuple[int, int],
        max_concurrency: int,
        num_clients: int | None = None,
    ) -> None:
        self._driver = Driver(strategy, ledger, backend)
        self._strategy = strategy
        self._backend = backend
        self._ledger = ledger
        self._recorder = recorder
        self._run = run
        self._carrier = Carrier(self._driver, backend, ledger, recorder, run)
        self._rules = backend.scheduling.of_pool(any(isinstance(area.layout, Blocks) for area in strategy.areas))
        # Of blocks with names, what one leaves in a step the next one may find in it.
        self._admits_late = self._rules.admits_late or strategy.keeps_prefixes(by_engine=False)
        self._filling, self._promises = Filling(self._rules, strategy.cuts_prompts), Promises(self._rules, strategy)
        self._max_concurrency = min(max_concurrency, self._rules.most_live(max_concurrency))
        self._expected = Expected(sessions, num_clients)
        self._waiting: deque[LiveRequest] = deque()
        self._live: list[LiveRequest] = []
        self._idle: list[LiveRequest] = []
        self._ended: list[LiveRequest] = []
        """Whose turn has ended in the iteration, so that another one comes, or others that follow."""
        self._ending: list[LiveRequest] = []
        """Whose last token came in an iteration that was planned with them to its end."""
        self._lacking: int | None = None
        self._lacked: int | None = None  # as the pass began
        self._quota = 0
        self._has_given_way = self._is_full = False

    def iterations(self) -> Iterator[int]:
        """Run to the end; yields after each iteration the tokens that it appended."""
        carrier = self._carrier
        while self._expected or self._waiting or self._live:
            self._begin_pass()
            if not (self._live or (self._waiting and self._admits_late)):
                self._skip_idle()
                continue
            self._backend.begin_iteration({live.index for live in self._live if live.is_decoding})
            num_tokens = self._iterate()
            carrier.wait_for_loads()
            self._backend.end_iteration()
            carrier.iteration += 1
            if self._expected or carrier.iteration % DRAIN_EVERY == 0:
                carrier.drain()
            self._think()
            self._send()
            yield num_tokens
        carrier.drain()

    @property
    def clock_ns(self) -> int:
        """The run's clock."""
        return self._carrier.clock_ns

    def _begin_pass(self) -> None:
        """Queue up who has come, and admit who is admitted before the others have their turns."""
        self._promises.begin_step()
        self._strategy.on_pass(self.clock_ns)
        for progress in self._expected.due(self.clock_ns):
            self._waiting.append(progress)
            if progress not in self._idle:
                self._strategy.on_wait(progress.index, progress.session, progress.num_known, self._driver.view)
        self._quota = self._max_concurrency - len(self._live)
        self._has_given_way = self._is_full = False
        if not self._rules.waits_for_end:
            self._lacking = None
        self._lacked = self._lacking if self._admits_late and self._live else None
        if not self._admits_late:
            for _ in self._newcomers():
                pass

    def _iterate(self) -> int:
        """A pass over the live requests: a step of each that has its turn and is still live. The tokens appended."""
        num_tokens = 0
        newcomers = self._newcomers() if self._admits_late else iter(())
        for progress in self._filling.turns(self._live, newcomers):
            if progress in self._live:
                try:
                    num_tokens += self._step(progress)
                except BackgroundError as error:
                    self._let_go(error.seq)
                    raise
        while self._ending:
            self._end_turn(self._ending.pop(0))
        return num_tokens

    def _think(self) -> None:
        """Let the next turns of those whose turn ended in this iteration come when their think time is over."""
        if self._ended:
            self._carrier.drain()
        for progress in self._ended:
            if progress in self._idle:
                self._expected.come_back(progress, self.clock_ns + progress.request.think_ns)
            else:
                self._expected.let_follow(progress, self.clock_ns)
        self._ended.clear()

    def _send(self) -> None:
        """Let clients that are free send the next sessions."""
        if self._expected.waits:
            self._carrier.drain()
            self._expected.send(self._carrier.clock_ns)

    def _skip_idle(self) -> None:
        self._carrier.drain()
        if self._expected:
            self._carrier.skip_to(self._expected.next_ns)

    def _newcomers(self) -> Iterator[LiveRequest]:
        """Admit from the head of the queue, one by one, while nothing speaks against it."""
        while self._waiting and self._limit() == COMPUTING:
            progress = self._waiting[0]
            if self._admits_late and (self._has_given_way or not self._fits(progress)):
                self._is_full = True
                return
            self._waiting.popleft()
            self._quota -= 1
            self._live.append(progress)
            if progress in self._idle:
                self._idle.remove(progress)
            else:
                self._promises.give(progress.session)
                progress.joins = self._strategy.cuts_prompts or self._rules.plans_steps
                self._driver.open(progress.index)
                self._begin(progress)
            yield progress

    def _fits(self, progress: LiveRequest) -> bool:
        """Whether there is room for all that one is to compute, where that is asked; one alone is let in to fail."""
        asked = progress.session, progress.num_known, self._filling.left_tokens, self._driver.view
        if progress in self._idle or not self._live:
            return True
        if not self._strategy.can_begin(progress.index, *asked):
            return False
        return not self._rules.fits_prompts or self._strategy.has_room(*asked)

    def _begin(self, progress: LiveRequest) -> None:
        """Give a new cache what it needs before its first token; idle ones may give way to it, live ones do not."""
        while True:
            start = self._backend.now_ns()
            try:
                booking = self._driver.admit(progress.index, progress.session, progress.num_known)
                if booking.account is not None and booking.account.num_seen:
                    progress.take_over(booking.account.num_seen, loaded_tokens(booking))
                self._carry_out(progress, ADMIT, 0, booking, start)
                progress.load_wait_ps += self._backend.load_wait_ps(progress.index)
            except OutOfMemory as error:
                if self._idle and self._relieved(progress, error):
                    continue
                self._give_way(progress, error)
                self._send()
            return

    def _limit(self) -> int:
        """What the head of the queue waits for: the first test that it fails, or the steps at hand."""
        if not self._waiting:
            return ARRIVALS
        if self._quota <= 0 if self._admits_late else len(self._live) >= self._max_concurrency:
            return BATCH
        if self._waiting[0] not in self._idle and not self._promises.has_room(self._waiting[0].session):
            return POOL
        if self._is_full:
            return POOL
        lacking = self._lacking if self._live and self._lacked is None else self._lacked
        return COMPUTING if lacking is None else lacking

    def _step(self, progress: LiveRequest) -> int:
        """One step of one request; returns the tokens appended, 0 where it was not to be.

        Where steps have so many tokens, what was lost and the rest of its prompt are computed in one.
        """
        if self._strategy.cuts_prompts and not self._num_now(progress):
            return 0
        leaving = self._driver.leave(progress.index)
        if leaving is not None:
            self._carry_out(progress, RELIEVE, 0, leaving, self._backend.now_ns())
        while True:
            try:
                phase, num_tokens = self._append(progress)
            except CapacityExceeded:
                self._finish(progress, "too_long")
                return 0
            except OutOfMemory as error:
                if self._relieved(progress, error):
                    continue
                if progress in self._live:
                    self._give_way(progress, error)
                return 0
            if not num_tokens:
                return 0
            if progress.advance(phase, num_tokens):
                if self._rules.plans_steps:
                    self._ending.append(progress)
                    return num_tokens
                self._end_turn(progress)
            if phase != RECOMPUTE or progress.joins:
                return num_tokens
            if not self._filling.is_bounded or progress.is_decoding:
                return 0

    def _num_now(self, progress: LiveRequest) -> int:
        """Tokens of a request's next step that it is given now."""
        phase, num_tokens = progress.next_step()
        num_tokens = num_tokens if phase == DECODE else self._filling.taken(num_tokens)
        return self._driver.at_once(progress.index, num_tokens) if num_tokens else 0

    def _append(self, progress: LiveRequest) -> tuple[int, int]:
        """Carry out what a request's next step appends, or takes over from another; its phase and number of tokens."""
        phase, num_tokens = progress.next_step()
        seq, driver = progress.index, self._driver
        start, num_written = self._backend.now_ns(), 0
        booking = self._fork(progress) if phase == PREFILL else None
        if booking is not None:
            phase = FORK
        else:
            num_tokens = self._num_now(progress)
            if not num_tokens:
                return phase, 0
            num_written = driver.num_written(num_tokens, progress.num_held if phase != RECOMPUTE else 0)
            booking = driver.append(seq, num_written)
            self._filling.note(num_tokens, phase == DECODE)
        self._carry_out(progress, phase, num_tokens, booking, start, num_written)
        return phase, num_tokens

    def _end_turn(self, progress: LiveRequest) -> None:
        """Finish a session after its last turn; else it is idle while it thinks of the next, or goes on at once."""
        if progress.is_last_turn:
            self._finish(progress, COMPLETED)
            return
        self._recorder.requests.append(progress.row(self._run, COMPLETED))
        progress.begin_next_turn()
        if progress.request.think_ns:
            self._lacking = None
            self._live.remove(progress)
            self._idle.append(progress)
            self._ended.append(progress)

    def _carry_out(
        self, progress: LiveRequest, phase: int, num_tokens: int, booking: Booking, start: int, num_queries: int = 0
    ) -> None:
        """See `Carrier.carry_out`."""
        queue = len(self._live), self._limit()
        self._carrier.carry_out(progress, phase, num_tokens, booking, start, num_queries, queue)

    def _fork(self, progress: LiveRequest) -> Booking | None:
        """The first prompt, taken over from a live request of the same group, where the strategy shares."""
        if progress.num_held or progress.session.group is None:
            return None
        num_tokens = progress.session.turns[0].num_append_tokens
        for other in self._live:
            same = other is not progress and other.session.group == progress.session.group
            if same and other.num_held >= num_tokens and not other.num_to_recompute:
                return self._driver.fork(progress.index, other.index, num_tokens)
        return None

    def _relieved(self, progress: LiveRequest, error: OutOfMemory) -> bool:
        """Whether memory was found: what a victim of the scheduler's choice gives back, or else all that it held."""
        victim = self._idle[0] if self._idle else self._live[-1]
        if error.budget_bytes is not None:
            if self._gives_back(victim, error.need_bytes - error.budget_bytes, error):
                return True
        elif victim not in self._idle:
            return False
        if victim is progress:
            return False
        self._give_way(victim, error)
        return True

    def _gives_back(self, victim: LiveRequest, need_bytes: int, error: OutOfMemory) -> bool:
        """Carry out what gives memory back; no, where it finds none to do it in, or gives none."""
        start, held_bytes = self._backend.now_ns(), self._held_bytes(error)
        try:
            booking = self._driver.relieve(victim.index, need_bytes)
            if booking is None:
                return False
            self._carry_out(victim, RELIEVE, 0, booking, start)
        except OutOfMemory:
            return False
        return self._held_bytes(error) < held_bytes

    def _held_bytes(self, error: OutOfMemory) -> int:
        """What is held of the memory that ran out."""
        return self._ledger.pooled_bytes[error.pool] if error.pool else self._ledger.tier_bytes[error.tier]

    def _give_way(self, progress: LiveRequest, error: OutOfMemory) -> None:
        """Free a session's cache for another's sake; one that is computed waits, and ends where there is no other."""
        self._has_given_way = True
        if progress in self._idle:
            self._release(progress)
            progress.preempt(False)
            return
        if len(self._live) == 1:
            self._finish(progress, error.outcome)
            return
        self._release(progress)
        progress.preempt(self._rules.plans_steps)
        self._lacking = POOL if error.pool and self._ledger.has_room_beside(error.pool) else MEMORY
        self._waiting.appendleft(progress)

    def _finish(self, progress: LiveRequest, outcome: str) -> None:
        self._release(progress)
        self._lacking = None
        self._expected.end(progress)
        self._recorder.requests.append(progress.row(self._run, outcome))
        if outcome == COMPLETED:
            self._driver.complete(progress.session)
            if self._expected.is_followed(progress):
                self._ended.append(progress)
            return
        while not progress.is_last_turn:
            progress.begin_next_turn()
            self._recorder.requests.append(progress.row(self._run, UNREACHED))
        for lost in self._expected.lose(progress):
            self._recorder.requests.append(lost.row(self._run, UNREACHED))

    def _let_go(self, seq: int) -> None:
        """Release a sequence whose background work has failed, so that books and storages agree when the run ends."""
        if self._ledger.view.is_open(seq):
            self._release(next(progress for progress in (*self._live, *self._idle) if progress.index == seq))

    def _release(self, progress: LiveRequest) -> None:
        start = self._backend.now_ns()
        self._carry_out(progress, FINISH, 0, self._driver.finish(progress.index), start)
        self._promises.take_back(progress.session)
        (self._live if progress in self._live else self._idle).remove(progress)
