"""What a run tells of tiers below the device: tokens that a request loads, and what went there and back."""

from collections import Counter
from collections.abc import Mapping

from kvbench.backend.base import Backend, Booking
from kvbench.ledger import Ledger
from kvbench.plan.area import DEVICE
from kvbench.plan.ops import Reuse
from kvbench.results.tier_columns import MOVED
from kvbench.timing.prices import PS_PER_S


def loaded_tokens(booking: Booking) -> Mapping[str, int]:
    """Tokens of the blocks that a booking loads, by tier."""
    found: Counter[str] = Counter()
    for op in booking.plan:
        if isinstance(op, Reuse) and op.tier != DEVICE and booking.account is not None:
            found[op.tier] += booking.account.holdings[op.area].cost.area.blocks.num_tokens
    return found


def tier_rows(run: tuple[int, int], ledger: Ledger, backend: Backend) -> list[dict[str, object]]:
    """What each tier did in a repetition of a strategy; bytes are one accelerator's."""
    stored, times = ledger.stored, backend.tier_times()
    return [
        {"repetition": run[0], "strategy": run[1], "tier": tier}
        | {what: getattr(stored, what)[tier] for what in MOVED}
        | {f"{what}_s": spent.get(tier, 0) / PS_PER_S for what, spent in times.items()}
        for tier in stored.sizes
    ]
