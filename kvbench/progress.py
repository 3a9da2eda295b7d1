"""How far one request has come."""

from dataclasses import dataclass

from kvbench.recorder import DECODE, PREFILL, RECOMPUTE
from kvbench.workload.request import Request


@dataclass(slots=True, eq=False)
class Progress:
    """A request's position in its turns, and what the runner must know of it.

    Args:
        index: the request's number in the scenario; also its sequence's number.
        request: what it asks for.
    """

    index: int
    request: Request
    turn: int = 0
    num_decoded: int = 0
    num_held: int = 0
    num_to_recompute: int = 0
    prefilled: bool = False
    ready_ns: int = 0
    num_preemptions: int = 0
    reserved_bytes: int = 0
    waste_bytes: int = 0
    is_new: bool = True

    def next_step(self) -> tuple[int, int]:
        """Phase and number of tokens of the next step."""
        if self.num_to_recompute:
            return RECOMPUTE, self.num_to_recompute
        if not self.prefilled:
            return PREFILL, self.request.turns[self.turn].num_append_tokens
        return DECODE, 1

    def advance(self, phase: int, num_tokens: int, clock_ns: int) -> None:
        """Take a step as done at this time."""
        self.is_new = False
        if phase == RECOMPUTE:
            self.num_to_recompute = 0
            return
        self.num_held += num_tokens
        if phase == PREFILL:
            self.prefilled = True
        else:
            self.num_decoded += 1
        turn = self.request.turns[self.turn]
        if self.num_decoded == turn.num_decode_tokens:
            self.turn += 1
            self.num_decoded = 0
            self.prefilled = False
            if not self.is_done:
                self.ready_ns = clock_ns + self.request.turns[self.turn].think_ns

    @property
    def is_done(self) -> bool:
        """Whether all turns are done."""
        return self.turn == len(self.request.turns)

    def preempt(self) -> None:
        """Lose the cache: what was held is to be computed again before the next step."""
        self.num_to_recompute = self.num_held
        self.num_preemptions += not self.is_new
        self.is_new = True
