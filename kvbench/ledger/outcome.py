"""What the ledger answers where a plan cannot be booked."""

from kvbench.plan.area import DEVICE, DISK, HOST

OUTCOMES = {DEVICE: "out_of_memory", HOST: "out_of_host_memory", DISK: "disk_full"}
"""How a request ends that does not fit a tier alone."""


class LedgerError(Exception):
    """A plan asked for something that cannot be done; nothing of it was booked."""


class BackgroundError(Exception):
    """Work beside the steps failed. What it was to settle was not booked; its sequence can only be released.

    Args:
        seq: the sequence.
        what: the work that failed.
        cause: what it raised.
    """

    def __init__(self, seq: int, what: str, cause: BaseException) -> None:
        self.seq = seq
        super().__init__(f"sequence {seq}: {what} failed in the background: {type(cause).__name__}: {cause}")


class OutOfMemory(Exception):
    """A plan does not fit a budget, a pool, or the machine; an outcome, not a crash. Nothing of it was booked.

    Args:
        need_bytes: bytes that would have been held at the plan's peak.
        budget_bytes: bytes that may be held; None where the machine, not a budget, refused.
        tier: which memory: device, host or disk.
        pool: the area whose pool is exhausted; "" where it is the tier.
    """

    def __init__(self, need_bytes: int, budget_bytes: int | None, tier: str = DEVICE, pool: str = "") -> None:
        self.need_bytes = need_bytes
        self.budget_bytes = budget_bytes
        self.tier = tier
        self.pool = pool
        what = f"the pool of area {pool} has" if pool else "the budget is"
        limit = f"more than the {tier} gives" if budget_bytes is None else f"{what} {budget_bytes:,} bytes"
        super().__init__(f"the plan needs {need_bytes:,} bytes of {tier} memory at its peak; {limit}")

    @property
    def outcome(self) -> str:
        """How a request ends for which no memory can be found."""
        return OUTCOMES[self.tier]
