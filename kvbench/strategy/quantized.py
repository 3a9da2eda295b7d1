"""Quantization: older tokens in few bits, the newest as they are."""

from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int
from kvbench.ledger import LedgerView
from kvbench.plan.area import STAGING_TOKENS, Area, Chunks, Packed, Ring
from kvbench.plan.ops import MAIN, NOTHING, Append, Move, Plan, Reserve, Rule, append_plan
from kvbench.strategy.base import IntegerRule, Strategy, Turns, constant, derived, in_units, rounded_up
from kvbench.tried import Tried
from kvbench.workload.request import Session

PACKED = "packed"


@dataclass(frozen=True, kw_only=True)
class Quantized(Strategy):
    """Round older tokens to few bits, packed into bytes; keep a window of the newest in full precision.

    Keys share a scale per channel over a group of tokens, values per token over a group of channels; attention reads a
    restored copy, part by part. Layers that see a window's tokens only hold those as they come: they are few.

    Args:
        bits: 8, 4 or 2.
        group_size: elements that share scale and minimum, a divisor of 1,024.
        residual_tokens: newest tokens in full precision, >= 0.
        keys_per: "channel", or "token" for the naive way.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Liu et al. 2024, arXiv:2402.02750, sections 3.2 and 3.3 (KIVI).
    Departs: keys and values leave the window together, a group at a time: attention reads residual_tokens and 1 to
        group_size more of the newest as they are (129 to 160 with 128 and 32), rounded up to whole groups. The
        reference's code rounds all its newest keys when there are 128, and values one by one: it keeps 0 to 127 keys
        and 128 values in full precision. A prompt is rounded after it was attended.
    """

    lossless = False

    bits: int = 4
    group_size: Annotated[int, Tried(choices=(32, 64, 128))] = 32
    residual_tokens: Annotated[int, Tried(choices=(0, 32, 128, 256))] = 128
    keys_per: str = "channel"

    def __post_init__(self) -> None:
        check_int("group_size", self.group_size, 1)
        if STAGING_TOKENS % self.group_size:
            raise ValueError(f"group_size divides {STAGING_TOKENS}, got {self.group_size}")
        check_int("residual_tokens", self.residual_tokens, 0)
        Packed(self.bits, self.group_size, self.keys_per)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Packed chunks, and a ring of the newest."""
        packed = Packed(self.bits, self.group_size, self.keys_per)
        return (Area(PACKED, layout=Chunks(self._chunk_tokens), format=packed), Area(layout=Ring()))

    @derived
    def window(self) -> int:
        """Slots of the newest: whole groups, so that none lies at the ring's end and its beginning."""
        return rounded_up(self.residual_tokens + self.group_size, self.group_size)

    @property
    def attends_all(self) -> bool:
        """It rounds, and evicts nothing."""
        return True

    @property
    def _chunk_tokens(self) -> int:
        return min(max(self.group_size, 128), STAGING_TOKENS)

    @property
    def integer_rule(self) -> IntegerRule:
        """The window at admission; whole groups for a while where several tokens come."""
        by = (self.window, self.group_size, self.residual_tokens)
        turns = Turns(window_or_more, less_a_group, less_whole_groups, window_again, by)
        return IntegerRule(constant, (self.window,), in_units, (self.group_size,), None, turns)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve the window."""
        return (Reserve(seq, self.window),)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits; for a single token round the oldest group, for more make room for the while."""
        required = view.num_used(seq) + num_tokens
        if required <= max(view.capacity(seq), self.window):
            return append_plan(seq, num_tokens)
        if num_tokens == 1:
            return (*self._round(seq, self.group_size, view), Append(seq, 1))
        return (Reserve(seq, rounded_up(required, self.group_size)), Append(seq, num_tokens))

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Round what was let in beyond the window, in whole groups."""
        if view.capacity(seq) <= self.window:
            return NOTHING
        num_used = view.num_used(seq)
        left = less_whole_groups(num_used, 0, 0, self.window, self.group_size, self.residual_tokens)
        rounded = self._round(seq, num_used - left, view) if left < num_used else ()
        return (*rounded, Reserve(seq, self.window))

    def _round(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        held = view.num_used(seq, PACKED) + num_tokens
        move = Move(seq, MAIN, PACKED, Rule(recent=view.num_used(seq) - num_tokens))
        if held <= view.capacity(seq, PACKED):
            return (move,)
        return (Reserve(seq, rounded_up(held, self._chunk_tokens), PACKED), move)


def window_or_more(capacity: int, window: int, group: int, residual: int) -> int:
    """Slots of the newest in use when a group is rounded to make room for a token."""
    return max(capacity, window)


def less_a_group(used: int, num_tokens: int, held: int, window: int, group: int, residual: int) -> int:
    """Slots that stay then; where several tokens come, all."""
    return used - group if num_tokens == 1 else used


def less_whole_groups(used: int, num_single: int, held: int, window: int, group: int, residual: int) -> int:
    """Slots that stay after attention: of more than the window, those to be left in full precision, and less than a
    group."""
    return used if used <= window else residual + (used - residual) % group


def window_again(capacity: int, kept: int, window: int, group: int, residual: int) -> int:
    """Capacity then."""
    return window
