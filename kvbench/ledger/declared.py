"""What a strategy says of itself that its plans could contradict."""

from dataclasses import dataclass

from kvbench.checks import check_flag
from kvbench.ledger.accounts import Account
from kvbench.ledger.outcome import LedgerError
from kvbench.plan.ops import Operation, Truncate


@dataclass(frozen=True, slots=True)
class Declared:
    """What holds for every sequence of a ledger, whatever is planned.

    Args:
        name: the strategy's, for messages.
        lossless: whether attention reads every token, unchanged.
        attends_all: whether it reads every token, unchanged or rounded.
        recomputes: whether tokens are removed after each step, to be computed anew in the next.
    Raises:
        ValueError: it contradicts itself, or is neither true nor false.
    """

    name: str
    lossless: bool
    attends_all: bool
    recomputes: bool

    def __post_init__(self) -> None:
        for what in ("lossless", "attends_all", "recomputes"):
            check_flag(f"{self.name}: {what}", getattr(self, what))
        if self.lossless and not self.attends_all:
            raise ValueError(f"{self.name} is lossless, so that attention reads all its tokens; attends_all is False")

    def check(self, op: Operation, account: Account) -> None:
        """Refuse what is no longer as it was declared.

        Args:
            op: what was booked last.
            account: of a sequence that it concerns, after it.
        Raises:
            LedgerError: tokens are gone, out of attention's sight, or rounded.
        """
        if self.lossless and account.num_altered:
            raise LedgerError(
                f"{op}: {account.num_altered} tokens evicted, out of attention's sight, or rounded, and {self.name} is "
                "declared lossless; a strategy that may do this declares lossless = False"
            )
        if self.attends_all and account.num_attended < account.num_seen:
            raise LedgerError(
                f"{op}: attention reads {account.num_attended} of {account.num_seen} tokens, and {self.name} is "
                "declared to attend to all (attends_all)"
            )

    def check_planned(self, op: Operation) -> None:
        """Refuse a plan that takes tokens back as if they had never come, and so leaves no trace of their loss.

        Raises:
            LedgerError: it does.
        """
        if self.lossless and not self.recomputes and isinstance(op, Truncate):
            raise LedgerError(
                f"{op}: {self.name} is declared lossless, and its plans remove no tokens; who made the cache may"
            )
