"""SnapKV: the prompt's last tokens vote for what is kept of it."""

from dataclasses import dataclass, replace
from typing import Annotated

from kvbench.checks import check_int
from kvbench.ledger import LedgerView
from kvbench.plan.area import SIGNALS, Area, Votes
from kvbench.plan.ops import NOTHING, Keep, Plan, Reserve, Rule
from kvbench.strategy.base import (
    IntegerRule,
    Strategy,
    Turns,
    all_stay,
    append_in_units,
    constant,
    derived,
    in_units,
    rounded_up,
    same_capacity,
)
from kvbench.tried import Tried

GROWTH_TOKENS = 256
"""Slots by which capacity grows: a resize each 256 decoded tokens."""


@dataclass(frozen=True, kw_only=True)
class SnapKV(Strategy):
    """Reduce each prompt to the tokens that its last ones look at, and those last ones; keep all that is decoded.

    Every layer, row and KV head keeps tokens of its own, in order. Votes are attention mass, pooled over neighbouring
    tokens, so that a clue is kept with what surrounds it.

    Args:
        budget: tokens kept of a prompt, observation window included, > window.
        window: tokens at the prompt's end that vote and are kept, > 0.
        kernel_size: neighbouring tokens whose votes are pooled, odd; the paper's configurations have 7.
        pooling: "max", as in the paper's configurations, or "avg", the default of the reference's code.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Li et al. 2024, arXiv:2404.14469, section 4.
    Departs: in a conversation, each turn's prompt votes anew over all that is held; with grouped heads, the votes of a
        KV head are the sum over its query heads.
    """

    lossless = False

    budget: Annotated[int, Tried(choices=(256, 512, 1024, 2048, 4096))] = 1024
    window: Annotated[int, Tried(choices=(8, 16, 32, 64))] = 32
    kernel_size: int = 7
    pooling: str = "max"

    def __post_init__(self) -> None:
        check_int("budget", self.budget, 1)
        check_int("window", self.window, 1)
        check_int("kernel_size", self.kernel_size, 1)
        if self.window >= self.budget:
            raise ValueError(f"window is less than budget ({self.budget}), got {self.window}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is odd, got {self.kernel_size}")
        Votes(self.window, self.kernel_size, self.pooling)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Slots in order, with positions and votes."""
        return (Area(positions=True, score=Votes(self.window, self.kernel_size, self.pooling)),)

    @derived
    def _prompt_end(self) -> dict[int, int]:
        """Of each sequence, where its last prompt ended."""
        return {}

    def within(self, budget_tokens: int, num_tokens: int) -> "SnapKV":
        """So many of all that is held when a prompt ends; what is decoded after comes on top."""
        check_int("snapkv: its budget in tokens", budget_tokens, self.window + 1)
        return replace(self, budget=budget_tokens)

    @property
    def integer_rule(self) -> IntegerRule:
        """Capacity by units; a prompt is reduced to the budget, and what is decoded after comes on top."""
        turns = Turns(same_capacity, all_stay, budget_and_singles, room_for_the_next, (self.budget, GROWTH_TOKENS))
        return IntegerRule(constant, (0,), in_units, (GROWTH_TOKENS,), None, turns)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or make room first."""
        return append_in_units(seq, num_tokens, GROWTH_TOKENS, view)

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reduce a prompt over the budget, with room for the next tokens; later, where there was no memory to do it."""
        num_used, num_seen = view.num_used(seq), view.num_seen(seq)
        if num_tokens > 1:
            self._prompt_end[seq] = num_seen
        num_decoded = num_seen - self._prompt_end.get(seq, 0)
        kept = budget_and_singles(num_used, num_decoded, num_seen, self.budget, GROWTH_TOKENS)
        if seq not in self._prompt_end or kept == num_used:
            return NOTHING
        rule = Rule(recent=self.window + num_decoded, top=self.budget - self.window, by=SIGNALS[Votes])
        capacity = room_for_the_next(view.capacity(seq), kept, self.budget, GROWTH_TOKENS)
        return (Keep(seq, rule), Reserve(seq, capacity)) if capacity < view.capacity(seq) else (Keep(seq, rule),)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release, and forget where the prompt ended."""
        self._prompt_end.pop(seq, None)
        return super().on_finish(seq, view)


def budget_and_singles(used: int, num_single: int, held: int, budget: int, unit: int) -> int:
    """Slots that stay after attention: the budget of a prompt, and what was decoded since."""
    return min(used, budget + num_single)


def room_for_the_next(capacity: int, kept: int, budget: int, unit: int) -> int:
    """Capacity then, with room for the next tokens."""
    return min(capacity, rounded_up(kept + 1, unit))
