"""How a pass over the live requests is filled: whose turn it is, and how many tokens of prompts are computed."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from kvbench.engine.scheduling import Scheduling, prompts_tokens, taken_tokens
from kvbench.runner.live import LiveRequest
from kvbench.timing.prices import UNBOUNDED

NOBODY: Iterator[LiveRequest] = iter(())


class Filling:
    """Fills one pass after another by an engine's rules.

    Args:
        rules: of a step.
        in_order: whether requests have their turns in order of admission, decoding or not, while the pass has tokens:
            elsewhere only the last one's prompt can be unfinished, where decoding sequences' tokens are among those.
    """

    def __init__(self, rules: Scheduling, in_order: bool = False) -> None:
        self._rules = rules
        self._in_order = in_order and rules.mixes and rules.counts_decode
        self._tokens = UNBOUNDED if rules.tokens is None else rules.tokens
        self._first_tokens = self._left_tokens = self._num_decoded = 0

    @property
    def is_bounded(self) -> bool:
        """Whether a pass has so many tokens for prompts and no more."""
        return self._rules.tokens is not None

    @property
    def left_tokens(self) -> int:
        """What the pass has left for prompts."""
        return self._left_tokens

    def turns(self, live: Sequence[LiveRequest], newcomers: Iterator[LiveRequest] = NOBODY) -> Iterator[LiveRequest]:
        """Live requests in the order of their turns, which begin when the one before has ended; some have none.

        Args:
            live: those who are live already.
            newcomers: those who become live while the pass has tokens for them.
        """
        rules = self._rules
        self._num_decoded = 0
        self._allow()
        if self._in_order:
            yield from takewhile(lambda _: self._left_tokens > 0, list(live))
        elif rules.mixes and not rules.counts_decode:
            yield from list(live)
        else:
            prompts = [progress for progress in live if not progress.is_decoding]
            decoding = [progress for progress in live if progress.is_decoding]
            if rules.mixes:
                yield from decoding
                self._allow()
            yield from prompts
        while self._left_tokens and (progress := next(newcomers, None)) is not None:
            yield progress
        if not rules.mixes and self._left_tokens == self._first_tokens:
            yield from decoding

    def _allow(self) -> None:
        self._first_tokens = prompts_tokens(self._tokens, self._num_decoded, self._rules.counts_decode)
        self._left_tokens = self._first_tokens

    def taken(self, num_wanted: int) -> int:
        """How many of the tokens that a prompt wants it is given; who comes after one that waits, waits too."""
        is_first = self._left_tokens == self._first_tokens
        num_tokens = taken_tokens(num_wanted, self._left_tokens, is_first, self._tokens, self._rules.chunks)
        if not num_tokens:
            self._left_tokens = 0
        return num_tokens

    def note(self, num_tokens: int, is_decoding: bool) -> None:
        """Take tokens as appended."""
        if is_decoding and not self._in_order:
            self._num_decoded += num_tokens
        else:
            self._left_tokens = max(self._left_tokens - num_tokens, 0)
