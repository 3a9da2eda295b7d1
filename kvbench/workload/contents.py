"""What prompts and answers say, as far as it matters: which of their tokens are the same from the beginning on."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""No stretch before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """The texts of requests as paths in one tree of stretches of tokens, split where texts part and where they end.

    Two requests share the tokens of the stretches that both paths have, and no others. A tree may be there several
    times, its copies sharing nothing: stretch s of copy c has the number s + c x stretches, and is not in the arrays.

    Args:
        parents: int64 [stretches]; the stretch before, which has a smaller number; NONE where a text begins.
        ends: int64 [stretches]; tokens from a text's beginning to the stretch's end, more than to its parent's.
        prompts: int64 [requests]; the stretch that a request's prompt ends with, of any copy.
        answers: int64 [requests]; the one that its answer ends with, at or below its prompt's.
    Raises:
        ValueError: a stretch is no longer than its parent, or does not come after it.
    """

    parents: NDArray[np.int64]
    ends: NDArray[np.int64]
    prompts: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __post_init__(self) -> None:
        late = self.parents >= np.arange(self.parents.size)
        if late.any():
            number = int(np.argmax(late))
            raise ValueError(f"stretch {number} comes before its parent {self.parents[number]}")
        short = self.ends <= self.begins
        if short.any():
            number = int(np.argmax(short))
            raise ValueError(f"stretch {number} ends at {self.ends[number]} tokens, where its parent ends or before")

    @classmethod
    def unshared(cls, num_prompt_tokens: NDArray[np.int64], num_output_tokens: NDArray[np.int64]) -> "Contents":
        """Texts of which no two begin alike: a request finds in a cache what it has left there itself, as it does that
        was preempted.

        Args:
            num_prompt_tokens: int64 [requests], each >= 1.
            num_output_tokens: int64 [requests], each >= 0.
        """
        prompts = np.arange(num_prompt_tokens.size)
        answered = np.flatnonzero(num_output_tokens)
        answers = prompts.copy()
        answers[answered] = prompts.size + np.arange(answered.size)
        return cls(
            parents=np.concatenate([np.full(prompts.size, NONE), answered]),
            ends=np.concatenate([num_prompt_tokens, (num_prompt_tokens + num_output_tokens)[answered]]),
            prompts=prompts,
            answers=answers,
        )

    @property
    def begins(self) -> NDArray[np.int64]:
        """Tokens from a text's beginning to each stretch's."""
        return np.where(self.parents == NONE, 0, self.ends[self.parents])

    def passes(self, stretches: NDArray[np.int64], through: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the text that ends with each stretch has another in it, at its place."""
        copies, found = np.divmod(stretches, self.parents.size)
        copies_through, own = np.divmod(through, self.parents.size)
        while (beyond := np.flatnonzero(found > own)).size:
            found[beyond] = self.parents[found[beyond]]
        passes: NDArray[np.bool_] = (found == own) & (copies == copies_through)
        return passes

    def num_distinct_tokens(self, stretches: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the texts of each group that end with these stretches, those that several share counted once.

        Args:
            stretches: of any copy.
            groups: of each of them, its group's number, from 0.
        Returns:
            A count for each group up to the last.
        """
        stride = int(stretches.max(initial=0)) + 1
        known = new = np.unique(groups * stride + stretches)
        while new.size:
            group, stretch = np.divmod(new, stride)
            own = stretch % self.parents.size
            before = self.parents[own]
            up = np.unique((group * stride + stretch - own + before)[before != NONE])
            new = up[~np.isin(up, known, assume_unique=True)]
            known = np.union1d(known, new)
        group, stretch = np.divmod(known, stride)
        lengths = (self.ends - self.begins)[stretch % self.parents.size]
        return np.bincount(group, lengths).astype(np.int64)

    def of(self, requests: NDArray[np.int64], copies: NDArray[np.int64] | int = 0) -> "Contents":
        """The same texts, of these requests only, and of later copies of the tree."""
        prompts, answers = (
            stretches[requests] + copies * self.parents.size for stretches in (self.prompts, self.answers)
        )
        return replace(self, prompts=prompts, answers=answers)

    def path(self, stretch: int) -> list[int]:
        """The stretches of a text that ends with one, from its beginning on."""
        found = []
        copy, own = divmod(stretch, self.parents.size)
        while own != NONE:
            found.append(own + copy * self.parents.size)
            own = int(self.parents[own])
        return found[::-1]

    def block_keys(self, request: int, block_tokens: int) -> list[tuple[int, int]]:
        """Names of the full blocks of a request's prompt and answer: equal ones have equal tokens, and so all before.

        A block is named by the stretch that its last token is in, and its number.

        Args:
            request: its number.
            block_tokens: tokens of a block, > 0.
        """
        keys: list[tuple[int, int]] = []
        for stretch in self.path(int(self.answers[request])):
            stop = int(self.ends[stretch % self.ends.size]) // block_tokens
            keys += [(stretch, block) for block in range(len(keys), stop)]
        return keys


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Names of a request's full blocks, of its prompt and then of its answer; made when they are first asked for.

    Args:
        contents: what all requests say.
        request: its number there.
    """

    contents: Contents
    request: int
    _made: dict[int, list[tuple[int, int]]] = field(default_factory=dict, init=False)

    def of(self, block_tokens: int) -> list[tuple[int, int]]:
        """See `Contents.block_keys`."""
        if block_tokens not in self._made:
            self._made[block_tokens] = self.contents.block_keys(self.request, block_tokens)
        return self._made[block_tokens]
