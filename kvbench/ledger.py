"""The ledger: it books every byte, refuses what cannot be done, and is the only thing that counts."""

from dataclasses import dataclass

from kvbench.geometry import KVGeometry
from kvbench.ops import Append, Area, Chunks, Operation, Plan, Release, Reserve, Truncate

UNLIMITED = 2**62
MAIN = Area()


class LedgerError(Exception):
    """A plan asked for something that cannot be done; nothing of it was booked."""


class OutOfMemory(Exception):
    """A plan does not fit the budget, or the device; an outcome, not a crash. Nothing of it was booked.

    Args:
        need_bytes: bytes that would have been held at the plan's peak.
        budget_bytes: bytes that may be held; None where the device, not the budget, refused.
    """

    def __init__(self, need_bytes: int, budget_bytes: int | None) -> None:
        self.need_bytes = need_bytes
        self.budget_bytes = budget_bytes
        limit = "more than the device gives" if budget_bytes is None else f"the budget is {budget_bytes:,} bytes"
        super().__init__(f"the plan needs {need_bytes:,} bytes at its peak; {limit}")


@dataclass(slots=True)
class Account:
    """What one sequence holds: slots that hold tokens, slots allocated, and bytes a slot (over its rows)."""

    num_used: int
    capacity: int
    slot_bytes: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a booked plan costs, in bytes and counts.

    Args:
        num_resizes: storages replaced by larger or smaller ones.
        copied_bytes: live bytes copied from old storage to new.
        requested_bytes: bytes of new allocations.
        transient_bytes: bytes held during the plan beyond what was held both before and after it.
        peak_bytes: the most bytes held during the plan, over all sequences.
    """

    num_resizes: int
    copied_bytes: int
    requested_bytes: int
    transient_bytes: int
    peak_bytes: int


class Ledger:
    """Occupancy of one device, in bytes, by sequence.

    Args:
        geometry: bytes of a token.
        budget_bytes: the most that may be held at any time, the double buffer of a resize included; None: no limit.
        area: how every sequence's slots live.
    Raises:
        ValueError: the budget is not positive.
    """

    def __init__(self, geometry: KVGeometry, budget_bytes: int | None = None, area: Area = MAIN) -> None:
        if budget_bytes is not None and budget_bytes < 1:
            raise ValueError(f"budget_bytes is 1 or more, or null for the device's own limit; got {budget_bytes}")
        self.geometry = geometry
        self.budget_bytes = budget_bytes
        self.area = area
        self.used_bytes = 0
        self.allocated_bytes = 0
        self._accounts: dict[int, Account] = {}
        self.view = LedgerView(self)

    def open(self, seq: int, num_rows: int = 1) -> None:
        """Begin a sequence that holds nothing yet.

        Args:
            seq: its number; not one that is open.
            num_rows: rows of its batch, > 0.
        Raises:
            LedgerError: the sequence is open already, or has no rows.
        """
        if seq in self._accounts:
            raise LedgerError(f"sequence {seq} is open already")
        if num_rows < 1:
            raise LedgerError(f"sequence {seq}: a batch has 1 row or more, got {num_rows}")
        self._accounts[seq] = Account(0, 0, self.geometry.bytes_per_token * num_rows)

    def book(self, plan: Plan) -> Receipt | None:
        """Book a plan whole, or nothing of it.

        Returns:
            The receipt; None for the common case of one append that fits, and for an empty plan: they move nothing.
        Raises:
            LedgerError: an operation cannot be done.
            OutOfMemory: the plan's peak is over the budget.
        """
        if len(plan) == 1 and type(plan[0]) is Append:
            op = plan[0]
            account = self._account(op.seq, op)
            account.num_used = self._appended(account, op)
            self.used_bytes += op.num_tokens * account.slot_bytes
            return None
        return self._book_all(plan) if plan else None

    def _book_all(self, plan: Plan) -> Receipt:
        draft = _Draft(self)
        for op in plan:
            draft.apply(op)
        if self.budget_bytes is not None and draft.peak_bytes > self.budget_bytes:
            raise OutOfMemory(draft.peak_bytes, self.budget_bytes)
        before = self.allocated_bytes
        draft.commit()
        return Receipt(
            draft.num_resizes,
            draft.copied_bytes,
            draft.requested_bytes,
            draft.peak_bytes - max(before, self.allocated_bytes),
            draft.peak_bytes,
        )

    def _account(self, seq: int, op: Operation) -> Account:
        account = self._accounts.get(seq)
        if account is None:
            raise LedgerError(f"{op}: sequence {seq} is not open (never admitted, or released already)")
        return account

    @staticmethod
    def _appended(account: Account, op: Append) -> int:
        num_used = account.num_used + op.num_tokens
        if op.num_tokens < 1 or num_used > account.capacity:
            raise LedgerError(
                f"{op}: {account.num_used} of {account.capacity} slots are in use, so that between 1 and "
                f"{account.capacity - account.num_used} tokens can be appended"
            )
        return num_used


class _Draft:
    """A plan being tried on copies of the accounts that it touches, so that a refusal leaves no trace."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._accounts: dict[int, Account | None] = {}
        self._used_bytes = ledger.used_bytes
        self._allocated_bytes = ledger.allocated_bytes
        self.peak_bytes = ledger.allocated_bytes
        self.num_resizes = self.copied_bytes = self.requested_bytes = 0

    def apply(self, op: Operation) -> None:
        account = self._copy(op)
        match op:
            case Append():
                account.num_used = Ledger._appended(account, op)
                self._used_bytes += op.num_tokens * account.slot_bytes
            case Reserve():
                self._reserve(account, op)
            case Truncate():
                if not 1 <= op.num_tokens <= account.num_used:
                    raise LedgerError(f"{op}: between 1 and {account.num_used} tokens can be removed")
                account.num_used -= op.num_tokens
                self._used_bytes -= op.num_tokens * account.slot_bytes
            case Release():
                self._used_bytes -= account.num_used * account.slot_bytes
                self._allocated_bytes -= account.capacity * account.slot_bytes
                self._accounts[op.seq] = None

    def _reserve(self, account: Account, op: Reserve) -> None:
        if op.num_tokens < account.num_used:
            raise LedgerError(f"{op}: {account.num_used} slots are in use; evict or truncate before shrinking")
        old_bytes, new_bytes = account.capacity * account.slot_bytes, op.num_tokens * account.slot_bytes
        if isinstance(self._ledger.area.layout, Chunks):
            self._add_chunks(account, op, self._ledger.area.layout.num_tokens, new_bytes - old_bytes)
            return
        # Tensor by tensor: while the last (or, shrinking, the first) is copied, the smaller of its two is held as well.
        twice_bytes = min(old_bytes, new_bytes) // self._ledger.geometry.num_tensors
        self._allocate(new_bytes - old_bytes, twice_bytes)
        if op.num_tokens:
            self.requested_bytes += new_bytes
            self.num_resizes += account.capacity > 0
            self.copied_bytes += account.num_used * account.slot_bytes
        account.capacity = op.num_tokens

    def _add_chunks(self, account: Account, op: Reserve, chunk_tokens: int, added_bytes: int) -> None:
        if op.num_tokens % chunk_tokens:
            raise LedgerError(f"{op}: a capacity in chunks is a multiple of {chunk_tokens}")
        self._allocate(added_bytes, 0)
        self.requested_bytes += max(added_bytes, 0)
        account.capacity = op.num_tokens

    def _allocate(self, added_bytes: int, twice_bytes: int) -> None:
        self.peak_bytes = max(self.peak_bytes, self._allocated_bytes + max(0, added_bytes) + twice_bytes)
        self._allocated_bytes += added_bytes

    def _copy(self, op: Operation) -> Account:
        if op.seq not in self._accounts:
            original = self._ledger._account(op.seq, op)
            self._accounts[op.seq] = Account(original.num_used, original.capacity, original.slot_bytes)
        account = self._accounts[op.seq]
        if account is None:
            raise LedgerError(f"{op}: sequence {op.seq} was released earlier in the same plan")
        return account

    def commit(self) -> None:
        for seq, account in self._accounts.items():
            if account is None:
                del self._ledger._accounts[seq]
            else:
                self._ledger._accounts[seq] = account
        self._ledger.used_bytes = self._used_bytes
        self._ledger.allocated_bytes = self._allocated_bytes


class LedgerView:
    """What a strategy may know of the ledger: it reads, and cannot book."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def num_used(self, seq: int) -> int:
        """Slots of a sequence that hold tokens."""
        return self._ledger._accounts[seq].num_used

    def capacity(self, seq: int) -> int:
        """Slots that a sequence has allocated."""
        return self._ledger._accounts[seq].capacity

    def room(self, seq: int) -> int:
        """The most slots that a sequence could be resized to now, its old tensors held meanwhile."""
        ledger, account = self._ledger, self._ledger._accounts[seq]
        if ledger.budget_bytes is None:
            return UNLIMITED
        held_bytes = account.capacity * account.slot_bytes
        others_bytes = ledger.allocated_bytes - held_bytes
        twice_bytes = held_bytes // ledger.geometry.num_tensors
        return max((ledger.budget_bytes - others_bytes - twice_bytes) // account.slot_bytes, 0)

    def is_open(self, seq: int) -> bool:
        """Whether the sequence was admitted and not yet released."""
        return seq in self._ledger._accounts
