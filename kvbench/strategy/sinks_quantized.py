"""Sinks and quantization: the first tokens and the newest as they are, those between in few bits, up to a window."""

from kvbench.ledger import LedgerView
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import MAIN, NOTHING, Append, Keep, Move, Operation, Plan, Reserve, Rule
from kvbench.strategy.base import IntegerRule, Strategy, Turns, constant, passed_on, rounded_up
from kvbench.strategy.quantized import PACKED, Quantized
from kvbench.strategy.sinks import Sinks
from kvbench.workload.request import Session

SINKS = "sinks"


class SinksQuantized(Strategy):
    """Keep attention sinks and a window; of the window, all but the newest tokens in few bits. Evict the rest.

    Tokens leave the ring of the newest for the packed chunks in whole groups, and the chunks at their oldest end.

    Args:
        sinks: how many first tokens are kept, and how many of the window.
        quantized: how tokens are packed, and how many are not.
    Raises:
        ValueError: the window has no room for a group beside the newest tokens.
    Source: Xiao et al. 2023, arXiv:2309.17453, with Liu et al. 2024, arXiv:2402.02750.
    Departs: as both do; since groups come and go whole, less than two groups of the window stay empty.
    """

    lossless = False

    def __init__(self, *, sinks: Sinks, quantized: Quantized) -> None:
        self.ring_tokens = quantized.window
        self._group = quantized.group_size
        self._residual = quantized.residual_tokens
        self._num_sinks = self.num_first = sinks.num_sinks
        self._most_packed = (sinks.window - self.ring_tokens) // self._group * self._group
        if self._most_packed < self._group:
            raise ValueError(
                f"the window of sinks is at least {self.ring_tokens + self._group} (the tokens that quantized keeps as "
                f"they are, and a group), got {sinks.window}"
            )
        packed, ring = quantized.areas
        assert isinstance(packed.layout, Chunks)
        self._chunk = packed.layout.num_tokens
        self.areas = (*([Area(SINKS)] if self._num_sinks else []), packed, ring)

    @property
    def integer_rule(self) -> IntegerRule:
        """Sinks and ring at admission; whole groups for a while where several tokens come."""
        by = (self._num_sinks, self.ring_tokens, self._group, self._residual)
        turns = Turns(
            sinks_and_ring,
            less_a_group,
            less_whole_groups,
            ring_again,
            by,
            most_aside=self._most_packed,
            num_pinned=self._num_sinks,
        )
        return IntegerRule(constant, (self._num_sinks + self.ring_tokens,), room_in_groups, by[:3:2], None, turns)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the sinks and the ring."""
        first = (Reserve(seq, self._num_sinks, SINKS),) if self._num_sinks else ()
        return (*first, Reserve(seq, self.ring_tokens))

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """First tokens to the sinks, the others to the ring: for one, the oldest group leaves; for more, room grows."""
        first = min(self._num_sinks - view.num_used(seq, SINKS), num_tokens) if self._num_sinks else 0
        rest = num_tokens - first
        plan: list[Operation] = [Append(seq, first, SINKS)] if first else []
        required = view.num_used(seq) + rest
        if required > max(view.capacity(seq), self.ring_tokens):
            more = room_in_groups(0, self._num_sinks + required, self._num_sinks, self._group) - self._num_sinks
            plan += self._round(seq, self._group, view) if rest == 1 else [Reserve(seq, more)]
        return (*plan, Append(seq, rest)) if rest else tuple(plan)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Round what was let in beyond the ring, in whole groups."""
        used = self._num_sinks + view.num_used(seq)
        left = less_whole_groups(used, 0, 0, self._num_sinks, self.ring_tokens, self._group, self._residual)
        return (*self._round(seq, used - left, view), Reserve(seq, self.ring_tokens)) if left < used else NOTHING

    def _round(self, seq: int, num_tokens: int, view: LedgerView) -> list[Operation]:
        """Move the ring's oldest tokens to the chunks, and evict what is too much: of the chunks, then of the ring."""
        used, packed = view.num_used(seq), view.num_used(seq, PACKED)
        num_moved, stay = min(num_tokens, self._most_packed), used - num_tokens
        of_chunks = passed_on(packed, num_moved, self._most_packed, 1)
        plan: list[Operation] = []
        offset = view.allocated(seq, PACKED) - view.capacity(seq, PACKED)
        if of_chunks:
            plan.append(Keep(seq, Rule(recent=packed - of_chunks), PACKED))
            offset = (offset + of_chunks) % self._chunk if of_chunks < packed else 0
        if num_moved < num_tokens:
            plan.append(Keep(seq, Rule(recent=stay + num_moved)))
        held = packed - of_chunks + num_moved
        plan.append(Reserve(seq, rounded_up(offset + held, self._chunk), PACKED))
        return [*plan, Move(seq, MAIN, PACKED, Rule(recent=stay))]


def sinks_and_ring(capacity: int, sinks: int, ring: int, group: int, residual: int) -> int:
    """Slots of sinks and ring in use when a group is rounded to make room for a token."""
    return max(capacity, sinks + ring)


def less_a_group(used: int, num_tokens: int, held: int, sinks: int, ring: int, group: int, residual: int) -> int:
    """Slots of both that stay then; where several tokens come, all."""
    return used - group if num_tokens == 1 else used


def less_whole_groups(used: int, num_single: int, held: int, sinks: int, ring: int, group: int, residual: int) -> int:
    """Slots of both that stay after attention: of more than there are for long, the sinks, those to be left in full
    precision, and less than a group."""
    kept = sinks + residual
    return used if used <= sinks + ring else kept + (used - kept) % group


def ring_again(capacity: int, kept: int, sinks: int, ring: int, group: int, residual: int) -> int:
    """Capacity of both then."""
    return sinks + ring


def room_in_groups(capacity: int, required: int, sinks: int, group: int) -> int:
    """Capacity of both after growth: the sinks, and whole groups."""
    return sinks + rounded_up(required - sinks, group)
