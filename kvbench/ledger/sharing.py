"""Blocks of pools in a plan that is being booked: who holds which, and which have names."""

from kvbench.ledger.accounts import Account, Holding, Posting
from kvbench.ledger.costs import AreaCost
from kvbench.ledger.names import DraftNames, Named
from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.refusals import check_one_chain, check_published, check_reused
from kvbench.ledger.state import LedgerState
from kvbench.ledger.sums import Sums
from kvbench.plan.area import DEVICE, Blocks
from kvbench.plan.ops import MAIN, Drop, Fork, OfSequence, Publish, Reuse


class Sharing(Sums):
    """Books what is done to blocks, on copies of the accounts that hold them.

    Args:
        ledger: what is booked in.
    """

    def __init__(self, ledger: LedgerState) -> None:
        super().__init__(ledger)
        self._accounts: dict[int, Account | None] = {}
        self._sharers: dict[int, int] = {}
        self._names = DraftNames(ledger.names)
        self._num_blocks = ledger.num_blocks
        self._postings: list[Posting] = []

    def _held(self, op: OfSequence, area: str) -> tuple[Account, Holding]:
        account = self._account(op.seq, op)
        held = account.holdings.get(area)
        if held is None:
            raise LedgerError(f"{op}: there is no area {area!r}, only {', '.join(account.holdings)}")
        return account, held

    def _account(self, seq: int, op: OfSequence) -> Account:
        if seq not in self._accounts:
            self._accounts[seq] = self._ledger.account(seq, op).copy()
        account = self._accounts[seq]
        if account is None:
            raise LedgerError(f"{op}: sequence {seq} was released earlier in the same plan")
        return account

    def _give_blocks(self, held: Holding, num_blocks: int) -> None:
        num_blocks -= held.num_left
        for block in held.blocks[num_blocks:]:
            self._drop_block(held, block)
        del held.blocks[num_blocks:]
        if held.cost.has_states:  # it is where a step ends
            held.blocks += [0] * (num_blocks - 1 - len(held.blocks))
        while len(held.blocks) < num_blocks:
            held.blocks.append(self._new_block(held))

    def _new_block(self, held: Holding) -> int:
        self._num_blocks += 1
        self._sharers[self._num_blocks] = 1
        self._allocate(held.cost.area, held.cost.block_bytes, 0)
        if held.cost.has_states:
            self._used_bytes += held.cost.block_bytes
        return self._num_blocks

    def _num_sharers(self, block: int) -> int:
        return self._sharers[block] if block in self._sharers else self._ledger.sharers.get(block, 0)

    def _is_read(self, block: int) -> bool:
        """Whether others read a block, or find it by its name."""
        return self._num_sharers(block) > 1 or self._names.of(block) is not None

    def _drop_block(self, held: Holding, block: int) -> bool:
        """Whether it is free then: no sequence holds it any more, and it has no name to be found by."""
        if not block:
            return False
        sharers = self._num_sharers(block)
        self._sharers[block] = sharers - 1
        if sharers > 1:
            return False
        if self._names.of(block) is not None:
            self._names.let_go(block)
            return False
        self._give_back(held.cost)
        return True

    def _give_back(self, cost: AreaCost) -> None:
        self._allocate(cost.area, -cost.block_bytes, 0)

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

    def _drop_blocks(self, held: Holding, num_blocks: int) -> None:
        """Let go of the oldest blocks, the last of them first; what nobody can read any more is no longer in use."""
        unit = held.cost.area.blocks.num_tokens
        for number in reversed(range(num_blocks)):
            block = held.blocks[number]
            num_filled = min(unit, max(held.num_used - (held.num_left + number) * unit, 0))
            num_filled = unit if held.cost.has_states else num_filled
            if self._drop_block(held, block) and held.cost.area.tier == DEVICE:
                self._used_bytes -= held.cost.block_bytes * num_filled // unit
        del held.blocks[:num_blocks]
        held.capacity -= num_blocks * unit

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

    def _publish(self, op: Publish) -> None:
        account, held = self._held(op, op.area)
        place = check_published(op, account, held) - held.num_left - 1
        block = held.blocks[place]
        if not block:
            raise LedgerError(f"{op}: no state of sequence {op.seq} was kept there")
        known = self._names.of(block)
        if known is not None:
            raise LedgerError(f"{op}: the block of these tokens of sequence {op.seq} has a name already, {known.key!r}")
        before = self._names.of(held.blocks[place - 1]) if place else None
        named = Named(op.key, op.area, op.num_tokens, None if before is None else before.key, account.number)
        self._names.give(block, named, op.seq)

    def _reuse(self, op: Reuse) -> None:
        account, held = self._held(op, op.area)
        copies = self._names.copies(op.key)
        if not copies:
            raise LedgerError(f"{op}: there is no block of the name {op.key!r} for sequence {op.seq}")
        block = copies[0]
        named = self._names.of(block)
        assert named is not None
        check_reused(op, held, named, self._ledger.state_bytes)
        self._names.find(block, op.seq, not self._num_sharers(block))
        self._sharers[block] = self._num_sharers(block) + 1
        held.blocks.append(block)
        num_tokens = named.num_tokens - held.num_used
        held.num_left += num_tokens // held.cost.area.blocks.num_tokens - 1  # what no window reaches is passed over
        held.num_used = held.capacity = named.num_tokens
        account.see(held.cost.chain, num_tokens)
        account.num_altered += self._ledger.counts_altered(held.cost) * num_tokens

    def _drop(self, op: Drop) -> None:
        block = self._names.first_idle(op.key)
        if block is None:
            copies = self._names.copies(op.key)
            why = f"sequences hold all {len(copies)} blocks of" if copies else "there is no block of"
            raise LedgerError(f"{op}: {why} the name {op.key!r}")
        named = self._names.of(block)
        assert named is not None
        cost = self._ledger.costs[named.area]
        self._names.forget(block)
        self._give_back(cost)
        if cost.area.tier == DEVICE:
            self._used_bytes -= cost.block_bytes

    def _hold_states(self, account: Account) -> None:
        if not account.state_bytes:
            account.state_bytes = self._ledger.state_bytes
            self._change_states(account.state_bytes)

    def _commit_blocks(self) -> None:
        ledger = self._ledger
        for block, sharers in self._sharers.items():
            if sharers:
                ledger.sharers[block] = sharers
            else:
                ledger.sharers.pop(block, None)
        ledger.num_blocks = self._num_blocks
        self._names.commit()
