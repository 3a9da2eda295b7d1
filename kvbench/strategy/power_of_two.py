"""An oracle that is right to a factor of two: room for the output, rounded up to a power of two."""

from dataclasses import dataclass

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Plan, Reserve
from kvbench.strategy.base import CapacityExceeded, IntegerRule, append_in_units, as_required
from kvbench.strategy.static import Longest
from kvbench.workload.request import Session


def over_provisioned(num_prompt_tokens: int, num_further_tokens: int, max_seq_len: int) -> int:
    """Slots at admission: the prompt, and the least power of two that is no less than the output.

    Args:
        num_prompt_tokens: tokens of all prompts.
        num_further_tokens: tokens that the cache is given after them; for none there is no room.
        max_seq_len: slots at most.
    """
    room = min(num_further_tokens, 1)
    while room < num_further_tokens:
        room *= 2
    return min(num_prompt_tokens + room, max_seq_len)


@dataclass(frozen=True, kw_only=True)
class PowerOfTwo(Longest):
    """Reserve the prompt and, for the output, the next power of two at admission; never resize.

    Less than half of the output's slots are wasted. Like exact it looks at the request's end, and is no strategy to
    deploy.

    Args:
        max_seq_len: tokens that a sequence can hold, > 0; None: those of the run's longest request, or the model's
            context where requests are not known beforehand.
    Raises:
        ValueError: max_seq_len is not positive.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 6.1 (the "Orca (Pow2)" baseline).
    Departs: without a buddy allocator, but where a fleet is simulated with one.
    """

    reference = True

    @property
    def integer_rule(self) -> IntegerRule:
        """All room at admission; nothing grows."""
        return IntegerRule(over_provisioned, (self.max_tokens,), as_required, (), self.max_tokens)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the prompt and the output's room."""
        num_further_tokens = session.num_tokens - session.num_prompt_tokens
        return (Reserve(seq, over_provisioned(session.num_prompt_tokens, num_further_tokens, self.longest)),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append, never more than the maximum; it fits, unless the request goes on beyond what was known of it."""
        required = view.num_used(seq) + num_tokens
        if required > self.longest:
            raise CapacityExceeded(required, self.longest)
        return append_in_units(seq, num_tokens, 1, view)
