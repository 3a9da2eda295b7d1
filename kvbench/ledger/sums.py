"""The sums that a plan changes while it is being booked: bytes by tier and pool, and the most of them."""

from kvbench.ledger.accounts import Holding
from kvbench.ledger.outcome import OutOfMemory
from kvbench.ledger.state import LedgerState
from kvbench.plan.area import DEVICE, Area, Blocks


class Sums:
    """What is held and moved, as it would be after what was booked so far.

    Args:
        ledger: what is booked in.
    """

    def __init__(self, ledger: LedgerState) -> None:
        self._ledger = ledger
        self._used_bytes = ledger.used_bytes
        self._tier_bytes = dict(ledger.tier_bytes)
        self._pooled_bytes = dict(ledger.pooled_bytes)
        self._has_begun = ledger.has_begun
        self._lent_bytes = ledger.lent_bytes
        self._own_peak_bytes = ledger.allocated_bytes - ledger.lent_bytes
        self.peak_bytes = ledger.allocated_bytes
        self.num_resizes = self.copied_bytes = self.moved_bytes = self.requested_bytes = 0

    def _fill(self, held: Holding, num_tokens: int) -> None:
        before = held.num_used
        held.num_used += num_tokens
        if held.cost.area.tier == DEVICE and not held.cost.has_states:
            if held.cost.reach is None:
                self._used_bytes += held.cost.bytes_of(held.num_used) - held.cost.bytes_of(before)
            else:
                self._used_bytes += held.cost.whole_bytes(num_tokens)
        if held.cost.frees_windows:
            self._allocate(held.cost.area, held.cost.window_bytes(held.num_used) - held.cost.window_bytes(before), 0)

    def _begin(self) -> None:
        self._has_begun = True
        self._tier_bytes[DEVICE] += self._ledger.workspace_bytes
        self.requested_bytes += self._ledger.workspace_bytes + sum(self._ledger.pool_bytes.values())
        self._note_peak(0)

    def _change_states(self, added_bytes: int) -> None:
        self._tier_bytes[DEVICE] += added_bytes
        self._used_bytes += added_bytes
        self.requested_bytes += max(added_bytes, 0)
        self._note_peak(0)

    def _allocate(self, area: Area, added_bytes: int, twice_bytes: int) -> None:
        self._tier_bytes[area.tier] += added_bytes
        is_lent = isinstance(area.layout, Blocks)
        if is_lent:
            self._pooled_bytes[area.blocks.of or area.name] += added_bytes
        if area.tier == DEVICE:
            self._lent_bytes += added_bytes * is_lent
            self._note_peak(twice_bytes - min(added_bytes, 0) * (not is_lent))

    def _note_peak(self, passing_bytes: int) -> None:
        """Keep the most that was held: now, and something in passing."""
        now_bytes = self._tier_bytes[DEVICE] + passing_bytes
        self.peak_bytes = max(self.peak_bytes, now_bytes)
        self._own_peak_bytes = max(self._own_peak_bytes, now_bytes - self._lent_bytes)

    def _check_budgets(self) -> None:
        ledger = self._ledger
        for name, pool in ledger.pool_bytes.items():
            if self._pooled_bytes[name] > pool:
                raise OutOfMemory(self._pooled_bytes[name], pool, ledger.tier_of(name), name)
        if ledger.budget_bytes is None:
            return
        # A pool is held whole, whatever was handed out of it.
        of_pools = sum(pool for name, pool in ledger.pool_bytes.items() if ledger.tier_of(name) == DEVICE)
        held_bytes = self._own_peak_bytes + (of_pools if self._has_begun else 0)
        if held_bytes > ledger.budget_bytes:
            raise OutOfMemory(held_bytes, ledger.budget_bytes)
