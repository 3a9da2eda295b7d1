"""Carrying bookings out: the clock that they advance, and the row of each."""

from kvbench.backend.base import NO_TIMES, Backend, Booking, summed
from kvbench.engine.tiers import BELOW
from kvbench.ledger import NO_RECEIPT, Ledger
from kvbench.ledger.accounts import Account
from kvbench.runner.drive import Driver
from kvbench.runner.live import LiveRequest
from kvbench.runner.recorder import LOAD, Recorder, transient_bytes

OF_A_STEP = (
    *("num_tokens", "prompt_tokens", "output_tokens", "requested_bytes", "transient_bytes", "num_resizes"),
    *("copied_bytes", "moved_bytes", "idle_ns", "plan_ns"),
)
"""What the row of a wait has none of: it is no step, and what is held is as the last one left it."""


class Carrier:
    """Carries a run's bookings out, one after another.

    Args:
        driver: whose bookings they are.
        backend: what carries out.
        ledger: what counts.
        recorder: what keeps rows.
        run: repetition and the strategy's index, for the rows.
    Attributes:
        clock_ns: the run's clock.
        iteration: the number of the present pass over live requests.
    """

    def __init__(
        self, driver: Driver, backend: Backend, ledger: Ledger, recorder: Recorder, run: tuple[int, int]
    ) -> None:
        self._driver = driver
        self._backend = backend
        self._ledger = ledger
        self._recorder = recorder
        self._row = dict(zip(("repetition", "strategy"), run, strict=True))
        """A step's row, the same one for each: what is known is written over the last one's."""
        self.clock_ns = self._idle_ns = self.iteration = 0
        self._reserved_bytes = self._waste_bytes = 0

    def drain(self) -> None:
        """Learn the times that the device still owes, and set the clock right."""
        self.clock_ns += self._recorder.fill(self._backend.drain())

    def skip_to(self, moment_ns: int) -> None:
        """Let idle time pass until a moment, if it is not over."""
        if moment_ns > self.clock_ns:
            self._idle_ns += moment_ns - self.clock_ns
            self.clock_ns = moment_ns

    def carry_out(
        self,
        progress: LiveRequest,
        phase: int,
        num_tokens: int,
        booking: Booking,
        start: int,
        num_queries: int,
        queue: tuple[int, int],
    ) -> None:
        """Carry a booking out with what follows attention, advance the clock, and record the row.

        Args:
            progress: whose.
            phase: of PHASES.
            num_tokens: of the step.
            booking: what is carried out.
            start: the backend's moment before it was planned.
            num_queries: newest tokens that attend.
            queue: how many are live, and what the next one waits for, of LIMITS.
        """
        ledger, seq, row = self._ledger, progress.index, self._row
        planned, receipt, account = self._backend.now_ns(), booking.receipt, booking.account
        times = self._backend.step(booking, num_queries)
        if booking.waited is not NO_TIMES:
            times, planned = summed(times, booking.waited), planned - sum(booking.waited)
        num_used, row["capacity_tokens"], row["request_bytes"] = account.device_slots if account else (0, 0, 0)
        row["context_tokens"] = account.num_attended if account else 0
        self._measure_slack(progress, account, (num_used, row["capacity_tokens"], row["request_bytes"]))
        row["reserved_bytes"], row["waste_bytes"] = self._reserved_bytes, self._waste_bytes
        row["used_bytes"] = booking.used_bytes
        row["workspace_bytes"] = ledger.reading_bytes
        between = ledger.allocated_bytes
        row["allocated_bytes"] = between - ledger.reading_bytes
        row |= {f"{tier}_bytes": ledger.tier_bytes[tier] for tier in BELOW}
        later = NO_RECEIPT
        if num_queries:
            after = self._driver.attended(seq, num_tokens)
            if after is not None:
                later, account = after.receipt, after.account
                times = summed(times, summed(self._backend.step(after, 0, continued=True), after.waited))
        host_ns = self._backend.now_ns() - start
        row["seen_tokens"] = account.num_seen if account else 0
        row["kept_tokens"] = account.num_attended if account and later is not NO_RECEIPT else row["context_tokens"]
        row["altered_tokens"] = account.num_altered if account else 0
        (row["session"], row["turn"]), row["iteration"] = progress.number, self.iteration
        row["phase"], row["num_tokens"] = phase, num_tokens
        new_tokens = progress.num_new_tokens(phase, num_tokens) if num_tokens else (0, 0)
        row["prompt_tokens"], row["output_tokens"] = new_tokens
        row["requested_bytes"] = receipt.requested_bytes + later.requested_bytes
        row["transient_bytes"] = transient_bytes(
            receipt, later, (booking.before_bytes, between, ledger.allocated_bytes)
        )
        row["num_resizes"] = receipt.num_resizes + later.num_resizes
        row["copied_bytes"] = receipt.copied_bytes + later.copied_bytes
        row["moved_bytes"] = receipt.moved_bytes + later.moved_bytes
        row["num_live"], row["limit"] = queue
        row["idle_ns"], row["plan_ns"], row["host_ns"] = self._idle_ns, planned - start, host_ns
        row["reserve_ns"], row["append_ns"], row["move_ns"], row["attend_ns"], row["model_ns"] = times
        self._recorder.step(row)
        self.clock_ns += max(host_ns, sum(times))
        self._idle_ns = 0

    def wait_for_loads(self) -> None:
        """Let what the iteration loads come; if that is waited for, in a row behind its last step's."""
        times = self._backend.wait_for_loads()
        if times is NO_TIMES:
            return
        row = self._row
        row["phase"], row["host_ns"] = LOAD, sum(times)
        row["reserve_ns"], row["append_ns"], row["move_ns"], row["attend_ns"], row["model_ns"] = times
        row |= dict.fromkeys(OF_A_STEP, 0)
        self._recorder.step(row)
        self.clock_ns += sum(times)

    def _measure_slack(self, progress: LiveRequest, account: Account | None, slots: tuple[int, int, int]) -> None:
        """Keep the totals of device slots that tokens to come will fill, and that none will, up to date."""
        reserved_bytes = waste_bytes = 0
        if account is not None:
            num_used, capacity, num_bytes = slots
            useful = min(capacity, progress.session.num_tokens)
            useful_bytes = account.bytes_of(useful, capacity, num_bytes)
            reserved_bytes = useful_bytes - account.bytes_of(min(num_used, useful), capacity, num_bytes)
            waste_bytes = num_bytes - useful_bytes
        self._reserved_bytes += reserved_bytes - progress.reserved_bytes
        self._waste_bytes += waste_bytes - progress.waste_bytes
        progress.reserved_bytes, progress.waste_bytes = reserved_bytes, waste_bytes
