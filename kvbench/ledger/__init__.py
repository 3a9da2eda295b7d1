"""The ledger: it books every byte of every plan before a backend carries it out."""

from kvbench.ledger.accounts import NO_RECEIPT, Posting, Receipt
from kvbench.ledger.book import Ledger
from kvbench.ledger.costs import AreaCost
from kvbench.ledger.declared import Declared
from kvbench.ledger.following import completed
from kvbench.ledger.limits import Limits, LoadTimes
from kvbench.ledger.names import Idle
from kvbench.ledger.outcome import BackgroundError, LedgerError, OutOfMemory
from kvbench.ledger.view import UNLIMITED, LedgerView

__all__ = [
    "NO_RECEIPT",
    "UNLIMITED",
    "AreaCost",
    "BackgroundError",
    "Declared",
    "Idle",
    "Ledger",
    "LedgerError",
    "LedgerView",
    "Limits",
    "LoadTimes",
    "OutOfMemory",
    "Posting",
    "Receipt",
    "completed",
]
