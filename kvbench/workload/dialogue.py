"""Conversations with their texts, for strategies that read what is said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kvbench.checks import check_number
from kvbench.messages import unknown
from kvbench.workload.arrivals import AllAtOnce, Arrivals, check_arrivals, clients_of
from kvbench.workload.conversation import MAX_THINK_S, draw_think_ns
from kvbench.workload.request import Request, Session
from kvbench.workload.scenario import Scenario, Workload

_WORD_OR_MARK = re.compile(r"(\w+)|[^\w\s]")
KEYS = ("user", "answer")


def count_tokens(text: str, tokens_per_word: float) -> int:
    """Estimate a text's tokens without a tokenizer: words × tokens a word, rounded, + punctuation marks.

    A word is a run of letters, digits and underscores; every other visible character is a mark. White space
    counts nothing. It is an estimate for languages that part words by spaces.

    Args:
        text: what to count.
        tokens_per_word: mean tokens of a word.
    Returns:
        Tokens, >= 0.
    """
    pieces = [match[1] for match in _WORD_OR_MARK.finditer(text)]
    num_marks = pieces.count(None)
    return round((len(pieces) - num_marks) * tokens_per_word) + num_marks


@dataclass(frozen=True)
class Exchange:
    """A message and its answer.

    Args:
        user: the message, not blank.
        answer: the answer; "" decodes nothing.
    """

    user: str
    answer: str


EXAMPLE = Exchange("Why is the sea salt?", "Rivers bring salts from the rocks, and only the water leaves again.")


@dataclass(frozen=True, kw_only=True)
class Dialogue(Scenario):
    """Conversations given word for word. A turn carries its message as text; the answer is only counted.

    Args:
        conversations: each a list of exchanges, `{user: text, answer: text}`.
        arrivals: when they start.
        think_s: mean of the exponential time between an answer and the next message, seconds, >= 0.
        tokens_per_word: mean tokens of a word, from 1 to 10 (see `count_tokens`).
    Raises:
        ValueError: a conversation is not such a list, or a number is out of its range.
    """

    conversations: tuple[tuple[Exchange, ...], ...] = ((EXAMPLE,),)
    arrivals: Arrivals = field(default_factory=AllAtOnce)
    think_s: float = 0.0
    tokens_per_word: float = 1.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arrivals("arrivals", self.arrivals)
        check_number("think_s", self.think_s, 0, MAX_THINK_S)
        check_number("tokens_per_word", self.tokens_per_word, 1, 10)
        conversations = tuple(
            tuple(_exchange(f"conversation {number}, turn {place}", turn) for place, turn in _items(turns, number))
            for number, turns in _items(self.conversations)
        )
        object.__setattr__(self, "conversations", conversations)

    @property
    def num_available(self) -> int:
        """See `Scenario`."""
        return len(self.conversations)

    def workload(self, rng: np.random.Generator) -> Workload:
        """Make the conversations; only arrivals and think times are drawn."""
        arrivals_rng, think_rng = rng.spawn(2)
        taken = self.conversations[: self.max_requests]
        arrivals = self.arrivals.times_ns(len(taken), arrivals_rng).tolist()
        sessions = tuple(
            Session(arrival, self._turns(conversation, think_rng))
            for arrival, conversation in zip(arrivals, taken, strict=True)
        )
        return Workload(sessions, self.num_available, clients_of(self.arrivals))

    def _turns(self, conversation: tuple[Exchange, ...], rng: np.random.Generator) -> tuple[Request, ...]:
        think_ns = [0, *draw_think_ns(len(conversation) - 1, self.think_s, rng).tolist()]
        return tuple(
            Request(
                count_tokens(exchange.user, self.tokens_per_word),
                count_tokens(exchange.answer, self.tokens_per_word),
                think,
                exchange.user,
            )
            for exchange, think in zip(conversation, think_ns, strict=True)
        )


def _items(given: object, number: int | None = None) -> list[tuple[int, object]]:
    what = "conversations is a list of conversations" if number is None else f"conversation {number} is a list of turns"
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"{what}, at least one; got {given!r}")
    return list(enumerate(given, start=1))


def _exchange(where: str, given: object) -> Exchange:
    if isinstance(given, Exchange):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {{user: text, answer: text}}, got {given!r}")
    for key in given:
        if key not in KEYS:
            raise ValueError(f"{where}: {unknown('key', key, KEYS)}")
    for key in KEYS:
        if not isinstance(given.get(key), str):
            raise ValueError(f"{where}: {key} is a text, got {given.get(key)!r}")
    if not given["user"].strip():
        raise ValueError(f"{where}: user is a text with at least one word, got {given['user']!r}")
    return Exchange(given["user"], given["answer"])
