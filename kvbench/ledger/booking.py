"""A plan being booked on copies of the accounts that it touches, so that a refusal leaves no trace."""

from typing import get_args

from kvbench.ledger.accounts import Account, Holding, Posting, Receipt
from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.refusals import (
    check_behind,
    check_chains,
    check_groups,
    check_move,
    check_one_chain,
    check_rule,
    check_unshared,
    check_windows,
)
from kvbench.ledger.state import LedgerState
from kvbench.ledger.sums import Sums
from kvbench.messages import unknown
from kvbench.plan.area import DEVICE, Blocks, Chunks, Contiguous, Holes, Ring
from kvbench.plan.ops import MAIN, Append, Fork, Keep, Move, Operation, Release, Reserve, Rows, Rule, Settle, Truncate


class Draft(Sums):
    """Books a plan's operations one by one; `commit` makes them the ledger's.

    Args:
        ledger: what is booked in.
    """

    def __init__(self, ledger: LedgerState) -> None:
        super().__init__(ledger)
        self._accounts: dict[int, Account | None] = {}
        self._sharers: dict[int, int] = {}
        self._num_blocks = ledger.num_blocks
        self._postings: list[Posting] = []

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
        if not held.is_private:
            self._make_private(held)
        passing_bytes = held.cost.passing_bytes(held.num_used, op.num_tokens) if held.cost.is_bounded else 0
        self._fill(held, op.num_tokens)
        if passing_bytes:
            self._allocate(held, 0, passing_bytes)
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

    def _hold_states(self, account: Account) -> None:
        if not account.state_bytes:
            account.state_bytes = self._ledger.state_bytes
            self._change_states(account.state_bytes)

    def _resize(self, op: Reserve, held: Holding) -> None:
        old_bytes, new_bytes = held.cost.bytes_of(held.capacity), held.cost.bytes_of(op.num_tokens)
        if op.background:
            if op.num_tokens <= held.capacity or not isinstance(held.cost.area.layout, Contiguous):
                raise LedgerError(f"{op}: in the background, contiguous slots grow; there are {held.capacity} now")
            held.next_capacity, held.num_copied = op.num_tokens, held.num_used
            self._allocate(held, held.num_bytes - old_bytes, 0)
        else:
            # While the last (or, shrinking, the first) tensor is copied, the smaller of its two is held as well.
            self._allocate(held, new_bytes - old_bytes, held.cost.twice_bytes(min(held.capacity, op.num_tokens)))
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
            self._allocate(held, added_bytes, 0)
            self.requested_bytes += max(added_bytes, 0)
        held.capacity = op.num_tokens

    def _give_blocks(self, held: Holding, num_blocks: int) -> None:
        for block in held.blocks[num_blocks:]:
            self._drop_block(held, block)
        del held.blocks[num_blocks:]
        while len(held.blocks) < num_blocks:
            held.blocks.append(self._new_block(held))

    def _new_block(self, held: Holding) -> int:
        self._num_blocks += 1
        self._sharers[self._num_blocks] = 1
        self._allocate(held, held.cost.full_bytes(held.cost.area.blocks.num_tokens), 0)
        return self._num_blocks

    def _num_sharers(self, block: int) -> int:
        return self._sharers.get(block) or self._ledger.sharers[block]

    def _drop_block(self, held: Holding, block: int) -> bool:
        """Whether it was the last sequence that held the block."""
        sharers = self._num_sharers(block)
        self._sharers[block] = sharers - 1
        if sharers == 1:
            self._allocate(held, -held.cost.full_bytes(held.cost.area.blocks.num_tokens), 0)
        return sharers == 1

    def _make_private(self, held: Holding) -> None:
        """Before a write: a block that others read as well is copied. Its tokens count for all who hold them."""
        number, num_filled = divmod(held.num_used, held.cost.area.blocks.num_tokens)
        held.is_private = True
        if not num_filled:
            return
        block = held.blocks[number]
        if self._num_sharers(block) == 1:
            return
        self._drop_block(held, block)
        held.blocks[number] = self._new_block(held)
        self.copied_bytes += held.cost.bytes_of(num_filled)
        if held.cost.area.tier == DEVICE:
            self._used_bytes += held.cost.bytes_of(num_filled)

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
            case Blocks() if held.cost.frees_windows:
                raise LedgerError(f"{op}: layers with a window give back what it has left, and no others evict then")
            case Blocks(block_tokens):
                self._drop_blocks(held, -(-num_evicted // block_tokens))
                held.num_used, held.is_private = num_kept, held.is_private or not num_kept
                return num_evicted
        if moves_data:
            self.copied_bytes += held.cost.full_bytes(num_copied)
            # One tensor's slots are gathered at a time.
            self._allocate(held, 0, held.cost.largest_bytes(num_copied))
        self._fill(held, -num_evicted)
        return num_evicted

    def _drop_chunks(self, held: Holding, num_evicted: int, chunk_tokens: int) -> None:
        num_chunks, held.offset = divmod(held.offset + num_evicted, chunk_tokens)
        if num_evicted == held.num_used:
            held.offset = 0
        before = held.num_bytes
        held.capacity -= num_chunks * chunk_tokens
        self._allocate(held, held.num_bytes - before, 0)

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
                self._allocate(src, 0, src.cost.bytes_of(num_moved))
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
                self._allocate(held, held.num_bytes - before, 0)
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
        check_unshared(op, held, self._num_sharers)
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

    def _fork(self, op: Fork) -> None:
        source, src = self._held(op, MAIN)
        check_one_chain(op, self._ledger.num_leading)
        account = self._account(op.new, op)
        dst = account.holdings[MAIN]
        layout = src.cost.area.layout
        if not isinstance(layout, Blocks) or dst.capacity or not 1 <= op.num_tokens <= src.num_used:
            raise LedgerError(
                f"{op}: a sequence of blocks forks into one that holds nothing, with 1 to {src.num_used} of its tokens"
            )
        if src.cost.frees_windows or self._ledger.follower is not None:
            raise LedgerError(f"{op}: layers with a window have given back what another sequence would read")
        if source.num_altered > src.num_cast or source.num_seen > src.num_used:
            raise LedgerError(f"{op}: the first tokens are no longer in its blocks as they were")
        num_shared, rest = divmod(op.num_tokens, layout.num_tokens)
        num_shared += rest > 0 and op.num_tokens == src.num_used
        for block in src.blocks[:num_shared]:
            self._sharers[block] = self._num_sharers(block) + 1
        dst.blocks = src.blocks[:num_shared]
        dst.capacity = num_shared * layout.num_tokens
        dst.num_used = min(op.num_tokens, dst.capacity)
        account.num_seen = op.num_tokens
        account.num_altered = op.num_tokens if src.num_cast else 0
        self._hold_states(account)
        self.copied_bytes += account.state_bytes
        if rest and dst.num_used == op.num_tokens:
            dst.is_private = src.is_private = False
        if dst.num_used < op.num_tokens:  # the source has filled that block further
            dst.blocks.append(self._new_block(dst))
            dst.capacity += layout.num_tokens
            self.copied_bytes += dst.cost.bytes_of(rest)
            self._fill(dst, rest)

    def _free(self, held: Holding) -> None:
        if held.blocks:
            if held.cost.frees_windows:
                self._used_bytes -= held.cost.bytes_of(held.num_used) - held.cost.full_bytes(held.num_used)
                self._allocate(held, -held.cost.window_bytes(held.num_used), 0)
            self._drop_blocks(held, len(held.blocks))
            return
        self._fill(held, -held.num_used)
        self._allocate(held, -held.num_bytes, 0)

    def _drop_blocks(self, held: Holding, num_blocks: int) -> None:
        """Let go of the oldest blocks; what no other sequence holds is no longer in use."""
        unit = held.cost.area.blocks.num_tokens
        for number, block in enumerate(held.blocks[:num_blocks]):
            num_filled = min(unit, max(held.num_used - number * unit, 0))
            if self._drop_block(held, block) and held.cost.area.tier == DEVICE:
                self._used_bytes -= held.cost.full_bytes(num_filled)
        del held.blocks[:num_blocks]
        held.capacity -= num_blocks * unit

    def _held(self, op: Operation, area: str) -> tuple[Account, Holding]:
        account = self._account(op.seq, op)
        held = account.holdings.get(area)
        if held is None:
            raise LedgerError(f"{op}: there is no area {area!r}, only {', '.join(account.holdings)}")
        return account, held

    def _account(self, seq: int, op: Operation) -> Account:
        if seq not in self._accounts:
            self._accounts[seq] = self._ledger.account(seq, op).copy()
        account = self._accounts[seq]
        if account is None:
            raise LedgerError(f"{op}: sequence {seq} was released earlier in the same plan")
        return account

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
        for block, sharers in self._sharers.items():
            if sharers:
                ledger.sharers[block] = sharers
            else:
                ledger.sharers.pop(block, None)
        ledger.num_blocks = self._num_blocks
        ledger.used_bytes = self._used_bytes
        ledger.tier_bytes = self._tier_bytes
        ledger.pooled_bytes = self._pooled_bytes
        ledger.has_begun = self._has_begun
        transient = self.peak_bytes - max(before, ledger.allocated_bytes)
        moved = self.copied_bytes, self.moved_bytes, self.requested_bytes
        return Receipt(self.num_resizes, *moved, transient, self.peak_bytes, tuple(self._postings))
