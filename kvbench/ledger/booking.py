"""A plan being booked on copies of the accounts that it touches, so that a refusal leaves no trace."""

from typing import get_args

from kvbench.ledger.accounts import Holding, Posting, Receipt
from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.refusals import (
    check_behind,
    check_chains,
    check_groups,
    check_move,
    check_one_chain,
    check_reach,
    check_rule,
    check_unshared,
    check_windows,
)
from kvbench.ledger.storing import Storing
from kvbench.messages import unknown
from kvbench.plan.area import DEVICE, Blocks, Chunks, Contiguous, Holes, Ring
from kvbench.plan.ops import (
    MAIN,
    Append,
    Drop,
    Fork,
    Keep,
    Move,
    Operation,
    Publish,
    Release,
    Reserve,
    Reuse,
    Rows,
    Rule,
    Save,
    Settle,
    Truncate,
)


class Draft(Storing):
    """Books a plan's operations one by one; `commit` makes them the ledger's.

    Args:
        ledger: what is booked in.
    """

    def apply(self, op: Operation) -> None:
        """Book one operation.

        Raises:
            LedgerError: it cannot be done.
            OutOfMemory: it does not fit.
        """
        copied_bytes, moved_bytes, requested_bytes = self.copied_bytes, self.moved_bytes, self.requested_bytes
        num_before, capacity = 0, 0
        released: tuple[Holding, ...] = ()
        match op:
            case Append():
                self._append(op)
            case Reserve():
                num_before = self._held(op, op.area)[1].capacity
                self._reserve(op)
            case Keep():
                account, held = self._held(op, op.area)
                num_before = held.num_used
                num_evicted = self._evict(op, held, op.rule)
                capacity = held.capacity
                account.num_altered += 0 if held.cost.area.alters else num_evicted
            case Move():
                self._move(op)
                capacity = self._held(op, op.src)[1].capacity
            case Settle():
                capacity = self._settle(op)
            case Truncate():
                self._truncate(op)
            case Fork():
                self._fork(op)
            case Publish():
                self._publish(op)
            case Reuse(tier=tier):
                self._reuse(op) if tier == DEVICE else self._load(op)
            case Drop(tier=tier):
                self._drop(op) if tier == DEVICE else self._drop_copy(op)
            case Save():
                self._save(op)
            case Rows():
                raise LedgerError(f"{op}: a change of rows stands alone in its plan")
            case Release():
                account = self._account(op.seq, op)
                released = tuple(account.holdings.values())
                for held in released:
                    self._free(held)
                self._change_states(-account.state_bytes)
                self._accounts[op.seq] = None
            case _:
                raise LedgerError(unknown("operation", repr(op), (kind.__name__ for kind in get_args(Operation))))
        self._check_budgets()
        if self._ledger.declared is not None:
            for account in filter(None, self._accounts.values()):
                self._ledger.declared.check(op, account)
        moved = self.copied_bytes - copied_bytes, self.moved_bytes - moved_bytes, self.requested_bytes - requested_bytes
        self._postings.append(Posting(op, num_before, capacity, *moved, released))

    def _append(self, op: Append) -> None:
        account, held = self._held(op, op.area)
        if not 1 <= op.num_tokens <= held.room:
            raise LedgerError(
                f"{op}: {held.num_used} of {held.capacity} slots are in use, so that between 1 and {held.room} tokens "
                "can be appended"
            )
        check_behind(op, held)
        check_groups(op, held, op.num_tokens)
        check_reach(op, held)
        if not held.is_private:
            self._make_private(held)
        has_passing = held.cost.is_bounded and held.cost.reach is None
        passing_bytes = held.cost.passing_bytes(held.num_used, op.num_tokens) if has_passing else 0
        self._fill(held, op.num_tokens)
        if passing_bytes:
            self._allocate(held.cost.area, 0, passing_bytes)
        account.see(held.cost.chain, op.num_tokens)
        account.num_altered += self._ledger.counts_altered(held.cost) * op.num_tokens

    def _reserve(self, op: Reserve) -> None:
        account, held = self._held(op, op.area)
        if held.busy:
            raise LedgerError(f"{op}: background work on area {op.area} is under way; settle it first")
        if op.num_tokens < held.num_used + held.offset:
            raise LedgerError(f"{op}: {held.num_used} slots are in use; evict or truncate before shrinking")
        if not self._has_begun:
            self._begin()
        self._hold_states(account)
        match held.cost.area.layout:
            case Chunks(chunk_tokens):
                self._add(op, held, chunk_tokens, "chunks")
            case Blocks(block_tokens):
                self._add(op, held, block_tokens, "blocks")
            case _:
                self._resize(op, held)

    def _resize(self, op: Reserve, held: Holding) -> None:
        old_bytes, new_bytes = held.cost.bytes_of(held.capacity), held.cost.bytes_of(op.num_tokens)
        if op.background:
            if op.num_tokens <= held.capacity or not isinstance(held.cost.area.layout, Contiguous):
                raise LedgerError(f"{op}: in the background, contiguous slots grow; there are {held.capacity} now")
            held.next_capacity, held.num_copied = op.num_tokens, held.num_used
            self._allocate(held.cost.area, held.num_bytes - old_bytes, 0)
        else:
            # While the last (or, shrinking, the first) tensor is copied, the smaller of its two is held as well.
            self._allocate(
                held.cost.area, new_bytes - old_bytes, held.cost.twice_bytes(min(held.capacity, op.num_tokens))
            )
            self.num_resizes += held.capacity > 0 and op.num_tokens > 0
        if op.num_tokens:
            self.requested_bytes += held.cost.replaced_bytes(op.num_tokens, held.capacity, op.num_tokens)
            self.copied_bytes += held.cost.replaced_bytes(held.num_used, held.capacity, op.num_tokens)
        if not op.background:
            held.capacity = op.num_tokens

    def _add(self, op: Reserve, held: Holding, unit: int, name: str) -> None:
        if op.num_tokens % unit or op.background:
            raise LedgerError(f"{op}: a capacity in {name} is a multiple of {unit}, and never in the background")
        added_bytes = held.cost.bytes_of(op.num_tokens) - held.cost.bytes_of(held.capacity)
        if isinstance(held.cost.area.layout, Blocks):
            self._give_blocks(held, op.num_tokens // unit)
        else:
            self._allocate(held.cost.area, added_bytes, 0)
            self.requested_bytes += max(added_bytes, 0)
        held.capacity = op.num_tokens

    def _evict(self, op: Operation, held: Holding, rule: Rule) -> int:
        """Take slots out of an area; returns how many."""
        num_kept = rule.num_kept(held.num_used)
        num_evicted = held.num_used - num_kept
        if held.busy:
            raise LedgerError(f"{op}: background work on area {held.cost.area.name} is under way; settle it first")
        if not num_evicted:
            return 0
        moves_data = True
        check_rule(op, held.cost.area, rule, held.num_used)
        match held.cost.area.layout:
            case Contiguous():
                num_copied = num_kept
            case Holes():
                num_copied = min(num_evicted, num_kept)
            case Ring():
                moves_data = False
            case Chunks(chunk_tokens):
                moves_data = False
                self._drop_chunks(held, num_evicted, chunk_tokens)
            case Blocks(block_tokens) if held.cost.reach is not None:
                num_blocks = num_evicted // block_tokens - held.num_left
                self._drop_blocks(held, num_blocks)
                held.num_left += num_blocks
                held.capacity += num_blocks * block_tokens
                check_reach(op, held)
                return 0
            case Blocks() if held.cost.frees_windows:
                raise LedgerError(f"{op}: layers with a window give back what it has left, and no others evict then")
            case Blocks(block_tokens):
                self._drop_blocks(held, -(-num_evicted // block_tokens))
                held.num_used, held.is_private = num_kept, held.is_private or not num_kept
                return num_evicted
        if moves_data:
            self.copied_bytes += held.cost.full_bytes(num_copied)
            # One tensor's slots are gathered at a time.
            self._allocate(held.cost.area, 0, held.cost.largest_bytes(num_copied))
        self._fill(held, -num_evicted)
        return num_evicted

    def _drop_chunks(self, held: Holding, num_evicted: int, chunk_tokens: int) -> None:
        num_chunks, held.offset = divmod(held.offset + num_evicted, chunk_tokens)
        if num_evicted == held.num_used:
            held.offset = 0
        before = held.num_bytes
        held.capacity -= num_chunks * chunk_tokens
        self._allocate(held.cost.area, held.num_bytes - before, 0)

    def _move(self, op: Move) -> None:
        account, src = self._held(op, op.src)
        _, dst = self._held(op, op.dst)
        num_moved = src.num_used - op.rule.num_kept(src.num_used)
        if num_moved > dst.room:
            raise LedgerError(f"{op}: {num_moved} tokens go where there is room for {dst.room}")
        check_move(op, src, dst, num_moved)
        if not num_moved:
            return
        self.moved_bytes += dst.cost.bytes_of(num_moved)
        if op.background:
            src.leaving = dst.arriving = num_moved
            dst.is_private = False
        else:
            if op.rule.top or not src.in_order:  # what leaves is gathered first
                self._allocate(src.cost.area, 0, src.cost.bytes_of(num_moved))
            self._evict(op, src, op.rule)
        if not (dst.is_private or dst.arriving):
            self._make_private(dst)
        self._fill(dst, num_moved)
        if dst.cost.area.alters and not src.cost.area.alters:
            account.num_altered += num_moved

    def _settle(self, op: Settle) -> int:
        """Returns the capacity of an area whose resize is put in place, 0 where there is none."""
        capacity = 0
        if self._accounts:
            raise LedgerError(f"{op}: settling comes first in its plan, so that failed work is discovered before")
        for held in self._account(op.seq, op).holdings.values():
            if held.arriving:
                held.is_private = True
            if held.next_capacity:
                num_late = held.num_used - held.num_copied
                self.copied_bytes += held.cost.replaced_bytes(num_late, held.capacity, held.next_capacity)
                before = held.num_bytes
                self.num_resizes += held.capacity > 0
                held.capacity, held.next_capacity = held.next_capacity, 0
                capacity = held.capacity
                self._allocate(held.cost.area, held.num_bytes - before, 0)
            leaving, held.leaving, held.arriving = held.leaving, 0, 0
            self._fill(held, -leaving)
        return capacity

    def _truncate(self, op: Truncate) -> None:
        account, held = self._held(op, MAIN)
        check_one_chain(op, self._ledger.num_leading)
        if held.busy:
            raise LedgerError(f"{op}: background work is under way; settle it first")
        if not 1 <= op.num_tokens <= held.num_used:
            raise LedgerError(f"{op}: between 1 and {held.num_used} tokens, those in the area {MAIN}, can be removed")
        check_unshared(op, held, self._is_read)
        follower = account.holdings[self._ledger.follower] if self._ledger.follower is not None else None
        for each in filter(None, (held, follower)):
            check_windows(op, each)
        num_lost = account.num_altered - held.num_cast
        if num_lost:
            raise LedgerError(f"{op}: {num_lost} tokens were evicted or rounded; what was cannot be restored")
        account.num_altered -= op.num_tokens if held.num_cast else 0
        for each in filter(None, (held, follower)):
            account.see(each.cost.chain, -op.num_tokens)
            self._fill(each, -op.num_tokens)

    def _free(self, held: Holding) -> None:
        if held.blocks:
            if held.cost.frees_windows:
                self._used_bytes -= held.cost.bytes_of(held.num_used) - held.cost.full_bytes(held.num_used)
                self._allocate(held.cost.area, -held.cost.window_bytes(held.num_used), 0)
            self._drop_blocks(held, len(held.blocks))
            return
        self._fill(held, -held.num_used)
        self._allocate(held.cost.area, -held.num_bytes, 0)

    def commit(self) -> Receipt:
        """Make what was booked the ledger's, and say what it costs."""
        ledger = self._ledger
        before = ledger.allocated_bytes
        check_chains(self._accounts)
        for seq, account in self._accounts.items():
            if account is None:
                del ledger.accounts[seq]
            else:
                ledger.accounts[seq] = account
        self._commit_blocks()
        self._stored.commit()
        ledger.used_bytes = self._used_bytes
        ledger.tier_bytes = self._tier_bytes
        ledger.pooled_bytes = self._pooled_bytes
        ledger.has_begun = self._has_begun
        transient = self.peak_bytes - max(before, ledger.allocated_bytes)
        moved = self.copied_bytes, self.moved_bytes, self.requested_bytes
        return Receipt(self.num_resizes, *moved, transient, self.peak_bytes, tuple(self._postings))
