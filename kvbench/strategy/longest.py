"""What strategies share that reserve by the longest sequence that there may be."""

from copy import copy

from kvbench.checks import check_bound
from kvbench.ledger import UNLIMITED, Limits
from kvbench.strategy.base import Strategy


class Longest(Strategy):
    """The base of strategies with a longest sequence, which they reserve by.

    Args:
        max_seq_len: tokens that a sequence can hold, > 0; None: those of the run's longest request, or the model's
            context where requests are not known beforehand.
    Raises:
        ValueError: max_seq_len is not positive.
    """

    def __init__(self, *, max_seq_len: int | None) -> None:
        check_bound("max_seq_len", max_seq_len)
        self._max_seq_len = max_seq_len

    @property
    def max_seq_len(self) -> int:
        """Tokens that a sequence can hold.

        Raises:
            ValueError: it was left to the run, and that has not begun.
        """
        if self._max_seq_len is None:
            raise ValueError("max_seq_len: null is for the run to decide (Strategy.fitted), and none has")
        return self._max_seq_len

    @property
    def max_capacity(self) -> int:
        """The same; without limit as long as no run has decided it."""
        return UNLIMITED if self._max_seq_len is None else self._max_seq_len

    def fitted(self, limits: Limits) -> "Longest":
        """The same strategy with a longest sequence. See `Strategy.fitted`."""
        if self._max_seq_len is not None:
            return self
        made = copy(self)
        made._max_seq_len = limits.to_hold("max_seq_len")
        return made
