"""Requests: what a scenario yields and a runner carries out."""

from dataclasses import dataclass

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One turn of a request: tokens appended at once, then tokens decoded one at a time.

    Args:
        num_append_tokens: tokens of the prompt, or of the user's message, > 0.
        num_decode_tokens: tokens generated in answer, >= 0. With none, the turn has no TTFT and no TPOT.
        think_ns: nanoseconds between the end of the turn before and this one, >= 0.
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
            raise ValueError(f"a turn appends at least 1 token, got {self.num_append_tokens}")
        if self.num_decode_tokens < 0:
            raise ValueError(f"a turn decodes 0 tokens or more, got {self.num_decode_tokens}")
        if self.think_ns < 0:
            raise ValueError(f"think time is 0 ns or more, got {self.think_ns}")

    @property
    def num_tokens(self) -> int:
        """Tokens that the turn adds to the cache."""
        return self.num_append_tokens + self.num_decode_tokens


@dataclass(frozen=True, slots=True)
class Session:
    """A request: when it arrives, and its turns. One request has one cache.

    Args:
        arrival_ns: nanoseconds after the run's start, >= 0.
        turns: one or more.
        group: requests of one group have the same prompt (samples of it, drawn in parallel); None where alone.
    Raises:
        ValueError: it arrives before the start, or has no turns.
    """

    arrival_ns: int
    turns: tuple[Request, ...]
    group: int | None = None

    def __post_init__(self) -> None:
        if self.arrival_ns < 0:
            raise ValueError(f"a request arrives at 0 ns or later, got {self.arrival_ns}")
        if not self.turns:
            raise ValueError("a request has at least 1 turn, got none")

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache when the request ends."""
        return sum(turn.num_tokens for turn in self.turns)

    @property
    def num_decode_tokens(self) -> int:
        """Tokens generated over all turns."""
        return sum(turn.num_decode_tokens for turn in self.turns)
