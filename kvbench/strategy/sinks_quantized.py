"""Sinks and quantization: the first tokens and the newest as they are, those between in few bits, up to a window."""

from kvbench.ledger import LedgerView
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import MAIN, NOTHING, Append, Keep, Move, Operation, Plan, Reserve, Rule
from kvbench.strategy.base import Strategy, rounded_up
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
            plan += (
                self._round(seq, self._group, view) if rest == 1 else [Reserve(seq, rounded_up(required, self._group))]
            )
        return (*plan, Append(seq, rest)) if rest else tuple(plan)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Round what was let in beyond the ring, in whole groups."""
        num_used = view.num_used(seq)
        if num_used <= self.ring_tokens:
            return NOTHING
        num_groups = (num_used - self._residual) // self._group
        return (*self._round(seq, num_groups * self._group, view), Reserve(seq, self.ring_tokens))

    def _round(self, seq: int, num_tokens: int, view: LedgerView) -> list[Operation]:
        """Move the ring's oldest tokens to the chunks, and evict what is too much: of the chunks, then of the ring."""
        used, packed = view.num_used(seq), view.num_used(seq, PACKED)
        excess = max(packed + num_tokens - self._most_packed, 0)
        of_chunks = min(excess, packed)
        stay = used - num_tokens
        plan: list[Operation] = []
        offset = view.allocated(seq, PACKED) - view.capacity(seq, PACKED)
        if of_chunks:
            plan.append(Keep(seq, Rule(recent=packed - of_chunks), PACKED))
            offset = (offset + of_chunks) % self._chunk if of_chunks < packed else 0
        if excess > of_chunks:
            num_tokens -= excess - of_chunks
            plan.append(Keep(seq, Rule(recent=stay + num_tokens)))
        held = packed - of_chunks + num_tokens
        plan.append(Reserve(seq, rounded_up(offset + held, self._chunk), PACKED))
        return [*plan, Move(seq, MAIN, PACKED, Rule(recent=stay))]
