"""Booking that a batch's rows are selected, repeated or reordered."""

from copy import copy

from kvbench.area import DEVICE, STAGING_TOKENS, Blocks, Chunks
from kvbench.ledger.accounts import Account, AreaCost, Holding, Receipt
from kvbench.ledger.outcome import LedgerError, OutOfMemory
from kvbench.ledger.state import State
from kvbench.ops import Rows


def book_rows(ledger: State, op: Rows) -> Receipt:
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
    sized = copy(ledger)
    sized.size(op.num_rows)
    own = _with_costs(account, sized.costs)
    _count(sized, own)
    before, after = ledger.allocated_bytes, sized.allocated_bytes
    twice = min(_largest_bytes(ledger, account), _largest_bytes(sized, own))
    _check_budget(sized, max(before, after) + twice)
    ledger.size(op.num_rows)
    ledger.accounts[op.seq] = own
    ledger.used_bytes, ledger.tier_bytes, ledger.pooled_bytes = sized.used_bytes, sized.tier_bytes, sized.pooled_bytes
    copied = sum(held.cost.bytes_of(held.num_used) for held in own.holdings.values())
    requested = sum(held.num_bytes for held in own.holdings.values() if not isinstance(held.cost.area.layout, Blocks))
    requested += sum(sized.pool_bytes.values()) if sized.has_begun else 0
    return Receipt(0, copied, 0, requested, twice, max(before, after) + twice)


def _with_costs(account: Account, costs: dict[str, AreaCost]) -> Account:
    own = account.copy()
    for name, held in own.holdings.items():
        held.cost = costs[name]
    return own


def _count(ledger: State, account: Account) -> None:
    """Sum up what the only sequence holds, and what is held for reading."""
    ledger.tier_bytes = dict.fromkeys(ledger.tier_bytes, 0)
    ledger.tier_bytes[DEVICE] = ledger.reading_bytes
    ledger.pooled_bytes = dict.fromkeys(ledger.pooled_bytes, 0)
    ledger.used_bytes = 0
    for name, held in account.holdings.items():
        tier = held.cost.area.tier
        ledger.tier_bytes[tier] += held.num_bytes
        if name in ledger.pooled_bytes:
            ledger.pooled_bytes[name] += held.num_bytes
        if tier == DEVICE:
            ledger.used_bytes += held.cost.bytes_of(held.num_used)


def _largest_bytes(ledger: State, account: Account) -> int:
    """The largest tensor on the device."""
    sizes = [_tensor_bytes(held) for held in account.holdings.values() if held.cost.area.tier == DEVICE]
    staged = STAGING_TOKENS * ledger.geometry.tensor_bytes_per_token * ledger.num_rows if ledger.reading_bytes else 0
    return max(*sizes, staged, 0)


def _tensor_bytes(held: Holding) -> int:
    match held.cost.area.layout:
        case Chunks(num_tokens):
            return held.cost.largest_bytes(num_tokens) if held.capacity else 0
        case Blocks(_, pool_tokens):
            return held.cost.largest_bytes(pool_tokens)
        case _:
            return held.cost.largest_bytes(held.capacity)


def _check_budget(ledger: State, peak_bytes: int) -> None:
    """Pools are held whole, whatever was handed out of them."""
    if ledger.budget_bytes is None:
        return
    of_pools = sum(pool for name, pool in ledger.pool_bytes.items() if ledger.tier_of(name) == DEVICE)
    held_bytes = peak_bytes + (of_pools - ledger.lent_bytes if ledger.has_begun else 0)
    if held_bytes > ledger.budget_bytes:
        raise OutOfMemory(held_bytes, ledger.budget_bytes)
