"""The oracle: it knows each request's final length."""

from dataclasses import dataclass

from kvbench.checks import check_int
from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve
from kvbench.strategy.base import IntegerRule, Strategy, append_in_units, as_required, rounded_up
from kvbench.workload.request import Session


def final_length(num_prompt_tokens: int, num_further_tokens: int, round_to: int) -> int:
    """Slots at admission: all tokens that the cache will be given, rounded up."""
    return rounded_up(num_prompt_tokens + num_further_tokens, round_to)


@dataclass(frozen=True, kw_only=True)
class Exact(Strategy):
    """Reserve exactly the final length at admission: what a perfect prediction would do.

    No resize and no waste; what is reserved early is the only slack. It bounds the others' copies and waste, not the
    peak of several live requests, and is no strategy to deploy.

    Args:
        round_to: capacities are multiples of this, > 0.
    Raises:
        ValueError: round_to is not positive.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 6.1 (the "Orca (Oracle)" baseline).
    Departs: without a buddy allocator.
    """

    reference = True

    round_to: int = 1

    def __post_init__(self) -> None:
        check_int("round_to", self.round_to, 1)

    @property
    def integer_rule(self) -> IntegerRule:
        """The final length at admission; nothing grows."""
        return IntegerRule(final_length, (self.round_to,), as_required, (), None)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the request's final length."""
        num_further_tokens = session.num_tokens - session.num_prompt_tokens
        return (Reserve(seq, final_length(session.num_prompt_tokens, num_further_tokens, self.round_to)),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append; it fits, unless the request goes on beyond what was known of it."""
        return append_in_units(seq, num_tokens, 1, view)
