"""How far one request has come."""

from dataclasses import dataclass

from kvbench.recorder import DECODE, PREFILL, RECOMPUTE
from kvbench.workload.request import Session


@dataclass(slots=True, eq=False)
class Progress:
    """A request's position in its turns, and what the runner must know of it.

    Args:
        index: the request's number in the scenario; also its sequence's number.
        session: what it asks for.
    """

    index: int
    session: Session
    turn: int = 0
    num_decoded: int = 0
    num_held: int = 0
    num_to_recompute: int = 0
    num_prefilled: int = 0
    ready_ns: int = 0
    num_preemptions: int = 0
    reserved_bytes: int = 0
    waste_bytes: int = 0
    is_new: bool = True

    def next_step(self) -> tuple[int, int]:
        """Phase and number of tokens of the next step."""
        if self.num_to_recompute:
            return RECOMPUTE, self.num_to_recompute
        left = self.session.turns[self.turn].num_append_tokens - self.num_prefilled
        return (PREFILL, left) if left else (DECODE, 1)

    def num_output_tokens(self, phase: int, num_tokens: int) -> int:
        """Output tokens that the next step brings.

        A turn's first comes from the last step of its prefill, each other from the decode step before it; so the last
        step, which writes the last token's K and V, brings none.
        """
        if phase == RECOMPUTE or self.is_done:
            return 0
        if phase != DECODE and self.num_prefilled + num_tokens < self.session.turns[self.turn].num_append_tokens:
            return 0
        return int(self.num_decoded + (phase == DECODE) < self.session.turns[self.turn].num_decode_tokens)

    def advance(self, phase: int, num_tokens: int) -> None:
        """Take a step as done."""
        self.is_new = False
        if phase == RECOMPUTE:
            self.num_to_recompute -= num_tokens
            return
        self.num_held += num_tokens
        turn = self.session.turns[self.turn]
        if phase == DECODE:
            self.num_decoded += 1
        else:
            self.num_prefilled += num_tokens
        if self.num_prefilled == turn.num_append_tokens and self.num_decoded == turn.num_decode_tokens:
            self.turn += 1
            self.num_decoded = self.num_prefilled = 0

    @property
    def think_ns(self) -> int:
        """Time to think before the turn that is next."""
        return self.session.turns[self.turn].think_ns

    @property
    def awaits_thought(self) -> bool:
        """Whether a turn has just ended, and the next begins with thinking."""
        return self.has_just_turned and not self.is_done and self.think_ns > 0

    @property
    def has_just_turned(self) -> bool:
        """Whether the next step is the first of a turn, with nothing to compute again before it."""
        return not self.num_prefilled and not self.num_decoded and not self.num_to_recompute

    @property
    def is_done(self) -> bool:
        """Whether all turns are done."""
        return self.turn == len(self.session.turns)

    def preempt(self) -> None:
        """Lose the cache: what was held is to be computed again before the next step."""
        self.num_to_recompute = self.num_held
        self.num_preemptions += not self.is_new
        self.is_new = True
