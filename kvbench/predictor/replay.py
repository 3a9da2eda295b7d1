"""Requests replayed against a predictor, as a server would meet them: each is known once it has ended, not before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.predictor.base import Predictor
from kvbench.workload.request import NS_PER_S, Session

TOKENS_PER_S = 20
"""Traces record no ends: here a request ends when its tokens were decoded at this pace, and its thinking is over."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Requests to learn from, in order of arrival; int64, one a request.

    Args:
        arrival_ns: when each is admitted.
        end_ns: when each is known.
        num_prompt_tokens: of its first prompt.
        num_further_tokens: that enter its cache afterwards.
    """

    arrival_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    num_prompt_tokens: NDArray[np.int64]
    num_further_tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrival_ns)


def further_tokens(session: Session) -> int:
    """Tokens that enter a completed request's cache after its first prompt."""
    return session.num_tokens - session.turns[0].num_append_tokens


def examples_of(sessions: Sequence[Session]) -> Examples:
    """Turn requests, in order of arrival, into examples."""
    rows = [
        (
            session.arrival_ns,
            session.arrival_ns
            + sum(turn.think_ns for turn in session.turns)
            + session.num_decode_tokens * NS_PER_S // TOKENS_PER_S,
            session.turns[0].num_append_tokens,
            further_tokens(session),
        )
        for session in sessions
    ]
    return Examples(*np.array(rows, dtype=np.int64).reshape(len(rows), 4).T)


def replay(
    examples: Examples, on_arrival: Callable[[int], object], on_end: Callable[[int], object], end: int | None = None
) -> None:
    """Call for each request when it arrives and when it ends, in order of time; of equal times ends come first.

    Args:
        examples: the requests.
        on_arrival: called with the request's number.
        on_end: called with the request's number, after its own arrival.
        end: requests to replay, from the first; None for all.
    """
    ends = np.argsort(examples.end_ns, kind="stable").tolist()
    end_ns, place = examples.end_ns.tolist(), 0
    for index, now in enumerate(examples.arrival_ns[:end].tolist()):
        while place < len(ends) and end_ns[ends[place]] <= now and ends[place] < index:
            on_end(ends[place])
            place += 1
        on_arrival(index)


def predictions(predictor: Predictor, examples: Examples, span: slice) -> NDArray[np.int64]:
    """What a predictor says of a span of requests, having met all before them.

    Args:
        predictor: it forgets everything first.
        examples: the requests.
        span: which of them are predicted.
    Returns:
        Tokens, one a request of the span; 0 where it had nothing to go by.
    """
    predictor.forget()
    prompts, further = examples.num_prompt_tokens.tolist(), examples.num_further_tokens.tolist()
    told: list[int] = []

    def ask(index: int) -> None:
        if index >= span.start:
            told.append(predictor.predict(prompts[index]) or 0)

    replay(examples, ask, lambda index: predictor.learn(prompts[index], further[index]), span.stop)
    return np.array(told, dtype=np.int64)
