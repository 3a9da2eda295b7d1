"""Booking that a batch's rows are selected, repeated or reordered."""

from copy import copy

from kvbench.ledger.accounts import Account, Holding, Receipt
from kvbench.ledger.costs import AreaCost
from kvbench.ledger.outcome import LedgerError, OutOfMemory
from kvbench.ledger.state import LedgerState
from kvbench.plan.area import DEVICE, Blocks, Chunks
from kvbench.plan.ops import Rows


def book_rows(ledger: LedgerState, op: Rows) -> Receipt:
    """Book other rows, or nothing: every storage is replaced, a tensor at a time.

    Raises:
        LedgerError: there are other sequences, background work is under way, or there would be no rows.
        OutOfMemory: what is held with one tensor twice is over the budget.
    """
    account = ledger.account(op.seq, op)
    if op.num_rows < 1:
        raise LedgerError(f"{op}: a batch has 1 row or more")
    if len(ledger.accounts) > 1:
        raise LedgerError(f"{op}: {len(ledger.accounts) - 1} other sequences are open; a batch changes its rows alone")
    if any(held.busy for held in account.holdings.values()):
        raise LedgerError(f"{op}: background work is under way; settle it first")
    if any(held.cost.frees_windows for held in account.holdings.values()):
        raise LedgerError(f"{op}: blocks that windows leave are of one pool for all layers, and keep their rows")
    if ledger.names.blocks:
        raise LedgerError(f"{op}: {len(ledger.names.blocks)} blocks have names, and keep their rows")
    sized = copy(ledger)
    sized.size(op.num_rows)
    own = _with_costs(account, sized.costs)
    own.state_bytes = sized.state_bytes if account.state_bytes else 0
    _count(sized, own)
    twice = min(_largest_bytes(ledger, account), _largest_bytes(sized, own))
    held_bytes = max(_with_pools(ledger), _with_pools(sized)) + twice
    if ledger.budget_bytes is not None and held_bytes > ledger.budget_bytes:
        raise OutOfMemory(held_bytes, ledger.budget_bytes)
    peak_bytes = max(ledger.allocated_bytes, sized.allocated_bytes) + twice
    ledger.size(op.num_rows)
    ledger.accounts[op.seq] = own
    ledger.used_bytes, ledger.tier_bytes, ledger.pooled_bytes = sized.used_bytes, sized.tier_bytes, sized.pooled_bytes
    copied = own.state_bytes + sum(held.cost.bytes_of(held.num_used) for held in own.holdings.values())
    requested = sum(held.num_bytes for held in own.holdings.values() if not isinstance(held.cost.area.layout, Blocks))
    requested += own.state_bytes
    requested += sum(sized.pool_bytes.values()) if sized.has_begun else 0
    return Receipt(0, copied, 0, requested, twice, peak_bytes)


def _with_costs(account: Account, costs: dict[str, AreaCost]) -> Account:
    own = account.copy()
    for name, held in own.holdings.items():
        held.cost = costs[name]
    return own


def _count(ledger: LedgerState, account: Account) -> None:
    """Sum up what the only sequence holds, and what is held for reading."""
    ledger.tier_bytes = dict.fromkeys(ledger.tier_bytes, 0)
    ledger.tier_bytes[DEVICE] = ledger.reading_bytes + account.state_bytes
    ledger.pooled_bytes = dict.fromkeys(ledger.pooled_bytes, 0)
    ledger.used_bytes = account.state_bytes
    for name, held in account.holdings.items():
        tier = held.cost.area.tier
        ledger.tier_bytes[tier] += held.num_bytes
        if name in ledger.pooled_bytes:
            ledger.pooled_bytes[name] += held.num_bytes
        if tier == DEVICE:
            ledger.used_bytes += held.cost.bytes_of(held.num_used)


def _largest_bytes(ledger: LedgerState, account: Account) -> int:
    """The largest tensor on the device; staging buffers are let go of before they are made anew."""
    sizes = [_tensor_bytes(held) for held in account.holdings.values() if held.cost.area.tier == DEVICE]
    if account.state_bytes:
        sizes += [tensor.num_bytes * ledger.num_rows for group in ledger.geometry.groups for tensor in group.state]
    return max(sizes, default=0)


def _tensor_bytes(held: Holding) -> int:
    match held.cost.area.layout:
        case Chunks(num_tokens):
            return held.cost.largest_bytes(num_tokens) if held.capacity else 0
        case Blocks() as blocks:
            return held.cost.largest_bytes(blocks.pool)
        case _:
            return held.cost.largest_bytes(held.capacity)


def _with_pools(ledger: LedgerState) -> int:
    """Device bytes that are allocated, with pools whole, whatever was handed out of them."""
    of_pools = sum(pool for name, pool in ledger.pool_bytes.items() if ledger.tier_of(name) == DEVICE)
    return ledger.allocated_bytes + (of_pools - ledger.lent_bytes if ledger.has_begun else 0)
