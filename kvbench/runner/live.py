"""How far one session has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kvbench.engine.scheduling import lost_tokens
from kvbench.runner.recorder import DECODE, PREFILL, RECOMPUTE, RequestRow
from kvbench.workload.request import Request, Session


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A session's position in its turns, and what the runner must know of it.

    Args:
        index: the session's number in the scenario; also its sequence's number.
        session: what it asks for.
        arrival_ns: when it was sent.
        num_hit: tokens that were there when it was first admitted.
        num_loaded: tokens that were loaded then, by tier below the device.
        load_wait_ps: from the begin of the iterations that admitted it to when all that it loads was there.
        is_ahead: whether what is to be computed again has the next token with it.
        joins: whether what is to be computed again, and the rest of its prompt, are computed as one.
    """

    index: int
    session: Session
    turn: int = 0
    num_decoded: int = 0
    num_held: int = 0
    num_to_recompute: int = 0
    num_prefilled: int = 0
    num_preemptions: int = 0
    num_hit: int = 0
    num_loaded: Mapping[str, int] = field(default_factory=dict)
    load_wait_ps: int = 0
    is_ahead: bool = False
    joins: bool = False
    reserved_bytes: int = 0
    waste_bytes: int = 0
    is_new: bool = True
    arrival_ns: int = 0

    @property
    def request(self) -> Request:
        """The turn that it is in, or waits to begin."""
        return self.session.turns[self.turn]

    @property
    def number(self) -> tuple[int, int]:
        """The session and the turn that it is called by in results."""
        session, turn = self.session.place or (self.index, 0)
        return session, turn + self.turn

    def next_step(self) -> tuple[int, int]:
        """Phase and number of tokens of the next step."""
        left = self.session.num_prefill_tokens(self.turn) - self.num_prefilled
        if self.num_to_recompute:
            return RECOMPUTE, self.num_to_recompute + left * self.joins
        return (PREFILL, left) if left else (DECODE, 1)

    @property
    def is_decoding(self) -> bool:
        """Whether its next step decodes a token."""
        return self.next_step()[0] == DECODE

    def num_new_tokens(self, phase: int, num_tokens: int) -> tuple[int, int]:
        """Tokens of the prompt that the next step writes, and output tokens that it brings.

        A turn's first output token comes from the last step of its prefill, each other from a decode step. Its last one
        is written by the next turn's prefill, before that one's own.
        """
        if phase == RECOMPUTE:
            if num_tokens > self.num_to_recompute:
                return self.num_new_tokens(PREFILL, num_tokens - self.num_to_recompute)
            return 0, int(self.is_ahead and num_tokens == self.num_to_recompute)
        if phase == DECODE:
            return 0, 1
        num_prefill, num_prompt = self.session.num_prefill_tokens(self.turn), self.request.num_append_tokens
        owed = max(num_prefill - num_prompt - self.num_prefilled, 0)
        is_last = self.num_prefilled + num_tokens == num_prefill
        return num_tokens - owed, int(is_last and self.request.num_decode_tokens > 0)

    def advance(self, phase: int, num_tokens: int) -> bool:
        """Take a step as done; whether a turn has ended with it."""
        self.is_new = False
        if phase == RECOMPUTE and num_tokens > self.num_to_recompute:
            phase, num_tokens, self.num_to_recompute = PREFILL, num_tokens - self.num_to_recompute, 0
        if phase == RECOMPUTE:
            self.num_to_recompute -= num_tokens
            if self.num_to_recompute or not self.is_ahead:
                return False
            phase, num_tokens, self.is_ahead = DECODE, 1, False
        self.num_held += num_tokens
        if phase == DECODE:
            self.num_decoded += 1
        else:
            self.num_prefilled += num_tokens
        is_prefilled = self.num_prefilled == self.session.num_prefill_tokens(self.turn)
        return is_prefilled and self.num_decoded == self.request.num_decode_steps

    def begin_next_turn(self) -> None:
        """Go on to the next turn, of which nothing is done."""
        self.turn += 1
        self.num_decoded = self.num_prefilled = self.num_preemptions = 0

    @property
    def is_last_turn(self) -> bool:
        """Whether no turn follows the one that it is in."""
        return self.turn == len(self.session.turns) - 1

    @property
    def num_known(self) -> int:
        """Tokens that are to be in its cache before its next answer: those that it lost, or its whole prompt."""
        left = self.session.num_prefill_tokens(self.turn) - self.num_prefilled
        return max(self.num_to_recompute, self.num_held + left)

    def take_over(self, num_tokens: int, loaded: Mapping[str, int]) -> None:
        """Find so many first tokens in its new cache, of which some are loaded from tiers: they are not computed."""
        if not self.num_to_recompute:
            self.num_hit, self.num_loaded = num_tokens - sum(loaded.values()), loaded
        self.num_to_recompute = max(self.num_to_recompute - num_tokens, 0)
        more = max(num_tokens - self.num_held, 0)
        self.num_prefilled += more
        self.num_held += more

    def preempt(self, is_planned: int) -> None:
        """Lose the cache: what was held is to be computed again before the next step.

        Args:
            is_planned: whether, where it decodes, with the token that it was about to compute.
        """
        held, is_decoding = self.num_held, self.is_decoding or self.is_ahead
        self.num_to_recompute = lost_tokens(held, is_decoding, is_planned)
        self.is_ahead = self.num_to_recompute > held
        self.num_preemptions += not self.is_new
        self.is_new = True

    def row(self, run: tuple[int, int], outcome: str) -> RequestRow:
        """What is recorded of the turn that it is in, as it ends."""
        held = self.num_held, self.num_preemptions, self.arrival_ns, self.num_hit
        return RequestRow(*run, *self.number, outcome, *held, self.index, self.turn, self.num_loaded, self.load_wait_ps)
