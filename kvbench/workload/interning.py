"""Ids of prompts' blocks become one tree of contents: what texts share, in tokens, answers included."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE, Contents

Ids = NDArray[np.int64]
MOST_BITS = 32
"""Of a text's tokens: a prompt and an answer of 2^31 each."""


def fits(num_ids: int, num_prompt_tokens: int, block_tokens: int) -> bool:
    """Whether a prompt has an id for each of its full blocks, and at most one more, for a last one filled in part."""
    return num_ids in (num_prompt_tokens // block_tokens, -(-num_prompt_tokens // block_tokens))


@dataclass
class Interning:
    """Collects requests, some at a time, whose blocks have ids; `contents` is the tree of them all.

    Two prompts share what their ids say: the tokens of the ids that are equal from the beginning on; of a last block
    filled in part, as many as the shorter has. A request whose prompt is longer than the prompt and the answer of the
    one before it, and has that one's full blocks, begins with both: so its ids say what the answer was. Where another
    one that follows says something else, it shares what the ids say. What nobody repeats is shared with nobody.
    """

    _scopes: list["_Scope"] = field(default_factory=list)

    def add(
        self,
        ids: Sequence[Ids],
        block_tokens: int,
        num_prompt_tokens: Sequence[int],
        num_output_tokens: Sequence[int],
        histories: Sequence[int] | None = None,
    ) -> None:
        """Add the requests of one scope: ids that are equal mean the same within it, and nothing outside.

        Args:
            ids: of each request's blocks; as many as `fits` allows.
            block_tokens: tokens of a block, > 0.
            num_prompt_tokens: of each request, >= 1.
            num_output_tokens: of each request, >= 0.
            histories: the request, an earlier one of these, that each goes on from; NONE where from none.
        """
        texts = _Texts(ids, block_tokens, num_prompt_tokens, num_output_tokens)
        self._scopes.append(_grown(texts, histories))

    def contents(self) -> Contents:
        """The tree of all that was added; requests in the order in which they were."""
        return _joined(self._scopes)


@dataclass(frozen=True)
class _Texts:
    ids: Sequence[Ids]
    block_tokens: int
    prompts: Sequence[int]
    outputs: Sequence[int]

    def end(self, request: int) -> int:
        return self.prompts[request] + self.outputs[request]

    def covered(self, request: int) -> int:
        """Tokens that a request's ids tell of."""
        return min(len(self.ids[request]) * self.block_tokens, self.prompts[request])

    def same(self, one: int, other: int, num_blocks: int) -> bool:
        """Whether two prompts have as many blocks, and the same."""
        mine, theirs = self.ids[one][:num_blocks], self.ids[other][:num_blocks]
        return mine.size == theirs.size == num_blocks and bool((mine == theirs).all())


@dataclass(frozen=True)
class _Scope:
    """A tree of which requests may end within stretches.

    Args:
        parents, ends: as in Contents, but in any order.
        marks: [2, requests]; the stretches that prompts and answers end in.
        tokens: [2, requests]; how many tokens from the beginning.
    """

    parents: NDArray[np.int64]
    ends: NDArray[np.int64]
    marks: NDArray[np.int64]
    tokens: NDArray[np.int64]


def _grown(texts: _Texts, histories: Sequence[int] | None) -> _Scope:
    num_requests = len(texts.prompts)
    leaves, ties = _heirs(texts, histories)
    tree = _Tree(texts)
    bottoms = [NONE] * num_requests
    for request, leaf in enumerate(leaves):
        if leaf == request:
            bottoms[request] = tree.insert(request, texts.covered(request), texts.end(request))
    for request, leaf in enumerate(leaves):
        if leaf != request and texts.prompts[request] % texts.block_tokens:
            # Others may have the same last block filled in part, which the text that goes on does not have.
            prompt = texts.prompts[request]
            if texts.covered(request) == prompt:
                tree.tie(bottoms[leaf], tree.insert(request, prompt, prompt), prompt)
    for request, before in ties:
        tree.tie(bottoms[leaves[before]], bottoms[leaves[request]], texts.end(before))
    marks = [tree.ending(bottoms[leaf], texts.prompts[request]) for request, leaf in enumerate(leaves)]
    ends = [tree.ending(bottoms[leaf], texts.end(request)) for request, leaf in enumerate(leaves)]
    tokens = np.array([texts.prompts, [texts.end(request) for request in range(num_requests)]], np.int64)
    return tree.scope(np.array([marks, ends], np.int64), tokens)


def _heirs(texts: _Texts, histories: Sequence[int] | None) -> tuple[list[int], list[tuple[int, int]]]:
    """Whose text each request's is the beginning of; and who begins as one before them does, beside its first heir."""
    leaves = list(range(len(texts.prompts)))
    ties: list[tuple[int, int]] = []
    if histories is None:
        return leaves, ties
    heirs = [NONE] * len(leaves)
    for request, before in enumerate(histories):
        if before == NONE or texts.prompts[request] <= texts.end(before):
            continue
        if not texts.same(request, before, texts.prompts[before] // texts.block_tokens):
            continue
        if heirs[before] == NONE:
            heirs[before] = request
        elif texts.same(request, heirs[before], texts.end(before) // texts.block_tokens):
            ties.append((request, before))
    for request in reversed(leaves.copy()):
        if heirs[request] != NONE:
            leaves[request] = leaves[heirs[request]]
    return leaves, ties


class _Tree:
    """A radix tree of texts in tokens; a stretch that is split leaves its number to the lower part."""

    def __init__(self, texts: _Texts) -> None:
        self._texts = texts
        self._parents: list[int] = []
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._owners: list[int] = []  # the request whose ids a stretch has
        self._covered: dict[int, int] = {}
        self._children: dict[tuple[int, int], int] = {}
        self._moved: dict[int, int] = {}

    def insert(self, request: int, covered: int, end: int) -> int:
        """Add a text of so many tokens, of which ids tell the first ones; returns the stretch that it ends with."""
        ids, block_tokens = self._texts.ids[request], self._texts.block_tokens
        self._covered[request] = covered
        at, past = NONE, 0
        while past < covered:
            child = self._children.get((at, int(ids[past // block_tokens])))
            if child is None:
                break
            past = self._shared(request, child, past)
            at = self._cut(child, past)
        return at if past == end else self._new(at, past, end, request)

    def _shared(self, request: int, child: int, past: int) -> int:
        """Tokens that a text has as a stretch has them, whose first block is the same."""
        ids, block_tokens = self._texts.ids, self._texts.block_tokens
        owner = self._owners[child]
        known = min(self._ends[child], self._covered[owner], self._covered[request])
        first, stop = past // block_tokens + 1, -(-known // block_tokens)
        differ = ids[request][first:stop] != ids[owner][first:stop]
        return (first + int(differ.argmax())) * block_tokens if differ.any() else known

    def _new(self, parent: int, begin: int, end: int, owner: int) -> int:
        self._parents.append(parent)
        self._begins.append(begin)
        self._ends.append(end)
        self._owners.append(owner)
        number = len(self._parents) - 1
        self._enter(number)
        return number

    def _enter(self, stretch: int) -> None:
        """Let a stretch be found by its first block, where that has an id."""
        owner, begin = self._owners[stretch], self._begins[stretch]
        if begin < self._covered[owner]:
            first = int(self._texts.ids[owner][begin // self._texts.block_tokens])
            self._children[self._parents[stretch], first] = stretch

    def _cut(self, stretch: int, end: int) -> int:
        """The part of a stretch up to so many tokens from the beginning."""
        if end == self._ends[stretch]:
            return stretch
        upper = self._new(self._parents[stretch], self._begins[stretch], end, self._owners[stretch])
        self._parents[stretch], self._begins[stretch] = upper, end
        self._enter(stretch)
        return upper

    def tie(self, one: int, other: int, num_tokens: int) -> None:
        """Make two texts one up to so many tokens; nothing is inserted after."""
        mine, theirs = self._path(one)[::-1], self._path(other)[::-1]
        past = 0
        while past < num_tokens:
            past = min(self._ends[mine[-1]], self._ends[theirs[-1]], num_tokens)
            parts = [self._cut(path[-1], past) for path in (mine, theirs)]
            if parts[0] != parts[1]:
                self._moved[parts[1]] = parts[0]
            for path, part in zip((mine, theirs), parts, strict=True):
                if path[-1] == part:
                    path.pop()

    def _path(self, stretch: int) -> list[int]:
        """The stretches of a text, from its beginning on."""
        found = []
        stretch = self._now(stretch)
        while stretch != NONE:
            found.append(stretch)
            stretch = self._now(self._parents[stretch])
        return found[::-1]

    def _now(self, stretch: int) -> int:
        while stretch in self._moved:
            stretch = self._moved[stretch]
        return stretch

    def ending(self, bottom: int, num_tokens: int) -> int:
        """The stretch of a text that has the last one of so many tokens."""
        stretch = self._now(bottom)
        while self._begins[stretch] >= num_tokens:
            stretch = self._now(self._parents[stretch])
        return stretch

    def scope(self, marks: NDArray[np.int64], tokens: NDArray[np.int64]) -> _Scope:
        """The tree, without what was made one with others."""
        kept = [stretch for stretch in range(len(self._parents)) if stretch not in self._moved]
        place = np.full(len(self._parents) + 1, NONE)  # the last entry is that of NONE
        place[kept] = np.arange(len(kept))
        parents = np.array([self._now(self._parents[stretch]) for stretch in kept], np.int64)
        return _Scope(place[parents], np.array(self._ends, np.int64)[kept], place[marks], tokens)


def _joined(scopes: list[_Scope]) -> Contents:
    """All trees as one, each stretch split where a prompt or an answer ends, and nowhere without a reason."""
    if not scopes:
        none = np.empty(0, np.int64)
        return Contents(parents=none, ends=none, prompts=none, answers=none)
    firsts = np.cumsum([0, *(scope.ends.size for scope in scopes)])
    owners = np.repeat(np.arange(len(scopes)), np.diff(firsts))
    parents = np.concatenate(
        [np.where(s.parents == NONE, NONE, s.parents + at) for s, at in zip(scopes, firsts[:-1], strict=True)]
    )
    stretch_ends = np.concatenate([scope.ends for scope in scopes])
    marks = np.concatenate([s.marks + at for s, at in zip(scopes, firsts[:-1], strict=True)], axis=1)
    tokens = np.concatenate([scope.tokens for scope in scopes], axis=1)
    # A part is known by its stretch and its end.
    told = (marks << MOST_BITS) | tokens
    whole = (np.arange(parents.size) << MOST_BITS) | stretch_ends
    parts = np.unique(np.concatenate([told.ravel(), whole]))
    stretches, ends = parts >> MOST_BITS, parts & ((1 << MOST_BITS) - 1)
    begins_stretch = np.diff(stretches, prepend=NONE) > 0
    above = np.where(parents == NONE, NONE, np.searchsorted(parts, whole[parents]))
    up = np.where(begins_stretch, above[stretches], np.arange(parts.size) - 1)
    marked = np.zeros(parts.size, bool)
    marked[np.searchsorted(parts, told.ravel())] = True
    needed = marked | (np.bincount(up[up != NONE], minlength=parts.size) != 1)
    while (late := (up != NONE) & ~needed[up]).any():
        up[late] = up[up[late]]
    order = np.flatnonzero(needed)
    order = order[np.lexsort((ends[order], owners[stretches[order]]))]
    place = np.full(parts.size + 1, NONE)
    place[order] = np.arange(order.size)
    prompts, answers = place[np.searchsorted(parts, told)]
    return Contents(parents=place[up[order]], ends=ends[order], prompts=prompts, answers=answers)
