"""Copies of blocks below the device in a plan that is being booked: what is stored, loaded and dropped there."""

from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.refusals import check_reused
from kvbench.ledger.sharing import Sharing
from kvbench.ledger.state import LedgerState
from kvbench.ledger.stored import DraftStored
from kvbench.plan.area import DEVICE
from kvbench.plan.ops import Drop, Reuse, Save


class Storing(Sharing):
    """Books what is done to copies of blocks.

    Args:
        ledger: what is booked in.
    """

    def __init__(self, ledger: LedgerState) -> None:
        super().__init__(ledger)
        self._stored = DraftStored(ledger.stored)

    def _check_tier(self, op: Save | Reuse | Drop) -> None:
        tiers = self._stored.tiers
        if op.tier not in tiers:
            raise LedgerError(
                f"{op}: no tier {op.tier!r} keeps copies of blocks, only {', '.join(tiers) or 'none does'}"
            )

    def _save(self, op: Save) -> None:
        self._check_tier(op)
        stored, copies = self._stored, self._names.copies(op.key)
        known = stored.of(op.tier, op.key)
        if known is not None:
            stored.put(op.tier, known)
            return
        named, source = (self._names.of(copies[0]), DEVICE) if copies else (None, DEVICE)
        for tier in stored.tiers:
            if named is None:
                named, source = stored.ever(tier, op.key), tier
        if named is None:
            raise LedgerError(f"{op}: neither the device nor a tier below it has a block of the name {op.key!r}")
        num_bytes, held_bytes = self._ledger.costs[named.area].block_bytes, self._tier_bytes[op.tier]
        if held_bytes + num_bytes > stored.size(op.tier):
            raise LedgerError(
                f"{op}: a block of {num_bytes:,} bytes goes where {held_bytes:,} of {stored.size(op.tier):,} are taken"
            )
        stored.put(op.tier, named)
        stored.note(op.tier, "written_bytes", num_bytes)
        self._change_copies(op.tier, num_bytes)
        if source in stored.tiers[stored.tiers.index(op.tier) + 1 :]:  # it came from below, before this plan
            stored.note(source, "prefetched_bytes", num_bytes)
        else:
            self.moved_bytes += num_bytes

    def _drop_copy(self, op: Drop) -> None:
        self._check_tier(op)
        named = self._stored.of(op.tier, op.key)
        if named is None:
            raise LedgerError(f"{op}: tier {op.tier} keeps no block of the name {op.key!r}")
        self._stored.take_out(op.tier, op.key)
        self._change_copies(op.tier, -self._ledger.costs[named.area].block_bytes)

    def _change_copies(self, tier: str, more_bytes: int) -> None:
        self._tier_bytes[tier] += more_bytes
        self._stored.num_bytes += more_bytes

    def _load(self, op: Reuse) -> None:
        self._check_tier(op)
        account, held = self._held(op, op.area)
        named = self._stored.ever(op.tier, op.key)
        if named is None:
            raise LedgerError(f"{op}: tier {op.tier} keeps no block of the name {op.key!r} for sequence {op.seq}")
        check_reused(op, held, named, self._ledger.state_bytes)
        num_tokens, num_bytes = held.cost.area.blocks.num_tokens, held.cost.block_bytes
        held.blocks.append(self._new_block(held))
        held.capacity += num_tokens
        self._fill(held, num_tokens)
        self._names.give(held.blocks[-1], named._replace(maker=account.number), op.seq)
        account.see(held.cost.chain, num_tokens)
        account.num_altered += self._ledger.counts_altered(held.cost) * num_tokens
        self._stored.note(op.tier, "loaded_bytes", num_bytes)
        self.moved_bytes += num_bytes
