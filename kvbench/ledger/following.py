"""What a plan leaves unsaid: tokens that come to layers which follow the others."""

from kvbench.ledger.state import LedgerState
from kvbench.plan.area import Chunks
from kvbench.plan.ops import Append, Plan, Reserve


def completed(plan: Plan, ledger: LedgerState) -> Plan:
    """A plan, with what it appends appended to the area that follows, and room for it there.

    Args:
        plan: a strategy's; it says nothing of that area.
        ledger: that it will be booked in.
    """
    name = ledger.follower
    if name is None:
        return plan
    appends = [op for op in plan if type(op) is Append]
    account = ledger.accounts.get(appends[0].seq) if appends else None
    if account is None:
        return plan
    seq, held = appends[0].seq, account.holdings[name]
    num_tokens = sum(op.num_tokens for op in appends)
    required, layout = held.num_used + num_tokens, held.cost.area.layout
    assert isinstance(layout, Chunks)
    unit = layout.num_tokens
    room = (Reserve(seq, -(-required // unit) * unit, name),) if required > held.capacity else ()
    return (*plan, *room, Append(seq, num_tokens, name))
