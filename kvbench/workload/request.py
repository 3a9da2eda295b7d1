"""Sessions and their requests: what a scenario yields and a runner carries out."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvbench.workload.contents import Keys

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One turn of a session: a prompt, and the answer that is decoded to it.

    Args:
        num_append_tokens: tokens of the prompt, or of the user's message, > 0.
        num_decode_tokens: tokens generated in answer, >= 0; the prefill gives the first of them. With none, the request
            has no TTFT and no TPOT.
        think_ns: nanoseconds between the end of the turn before and the arrival of this one, >= 0.
        text: the message, where the scenario has one.
    Raises:
        ValueError: a number is out of its range.
    """

    num_append_tokens: int
    num_decode_tokens: int = 0
    think_ns: int = 0
    text: str | None = None

    def __post_init__(self) -> None:
        if self.num_append_tokens < 1:
            raise ValueError(f"a request appends at least 1 token, got {self.num_append_tokens}")
        if self.num_decode_tokens < 0:
            raise ValueError(f"a request decodes 0 tokens or more, got {self.num_decode_tokens}")
        if self.think_ns < 0:
            raise ValueError(f"think time is 0 ns or more, got {self.think_ns}")

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt and of the answer."""
        return self.num_append_tokens + self.num_decode_tokens

    @property
    def num_decode_steps(self) -> int:
        """Steps that decode a token each: the prefill gives the first one without."""
        return max(self.num_decode_tokens - 1, 0)


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation: when it arrives, and its turns. One session has one cache.

    Args:
        arrival_ns: nanoseconds after the run's start, >= 0.
        turns: one or more requests; a later one arrives when the one before has ended and its think time is over.
        group: sessions of one group have the same prompt (samples of it, drawn in parallel); None where alone.
        keys: names of the blocks of its first turn's prompt and answer, by which equal ones are found; None: nobody
            else's are equal.
        parents: sessions that it follows, by number: it arrives when all of them have ended and its first turn's think
            time is over, and not before its own time.
        place: the session and the turn that its first turn is called by in results; None: its own number, and 0.
        tenant: whose it is.
        goes_on: whether another request of the same session, as `place` says, is to come after it.
    Raises:
        ValueError: it arrives before the start, or has no turns.
    """

    arrival_ns: int
    turns: tuple[Request, ...]
    group: int | None = None
    keys: Keys | None = None
    parents: tuple[int, ...] = ()
    place: tuple[int, int] | None = None
    tenant: int = 0
    goes_on: bool = False

    def __post_init__(self) -> None:
        if self.arrival_ns < 0:
            raise ValueError(f"a session arrives at 0 ns or later, got {self.arrival_ns}")
        if not self.turns:
            raise ValueError("a session has at least 1 turn, got none")

    def num_prefill_tokens(self, turn: int) -> int:
        """Tokens that a turn's prefill writes: its prompt's, and the last of the answer before it, not yet written."""
        owed = turn > 0 and self.turns[turn - 1].num_decode_tokens > 0
        return self.turns[turn].num_append_tokens + owed

    def appends(self) -> Iterator[int]:
        """Tokens of each append, in order: those of a turn's prefill, then 1 for each of its decode steps."""
        for number, turn in enumerate(self.turns):
            yield self.num_prefill_tokens(number)
            yield from (1,) * turn.num_decode_steps

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache when the session ends: all but the last of its last answer."""
        return self.num_prompt_tokens + self.num_decode_tokens - (self.turns[-1].num_decode_tokens > 0)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompts of all turns."""
        return sum(turn.num_append_tokens for turn in self.turns)

    @property
    def num_decode_tokens(self) -> int:
        """Tokens generated over all turns."""
        return sum(turn.num_decode_tokens for turn in self.turns)
