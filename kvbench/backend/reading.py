"""Attention of one sequence's newest queries over what its areas hold."""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from kvbench.backend.attention import Merging, attention, attention_and_lse, merged, up_to
from kvbench.backend.storage import Piece, SequenceStore, Store
from kvbench.plan.area import Score

See = Callable[[Piece, int, int, int], Tensor | Literal[False] | None]
"""Which of a piece's tokens queries may look at: as `visible`, of which it is a special case."""

Chunk = tuple[int, Tensor]
"""Queries of consecutive tokens, packed, and the position of the first of them."""


class Readable(Protocol):
    """What attention reads of a sequence, piece by piece; `SequenceStore` says what each is."""

    @property
    def score(self) -> Score | None:
        """What its slots are ranked by."""

    @property
    def num_seen(self) -> int:
        """Tokens so far."""

    @property
    def num_held(self) -> int:
        """Tokens in all areas."""

    @property
    def ends_with_newest(self) -> Store | None:
        """The one store that is read in place, if there is no other."""

    def pieces(self, layer: int) -> Iterator[tuple[Store, Piece]]:
        """What attention reads, with positions."""
        ...


def decode(sequence: SequenceStore, layer: int, queries: Tensor) -> Tensor:
    """Attend with one token's queries, which may look everywhere.

    Args:
        sequence: what holds K and V.
        layer: which.
        queries: from `attention.packed`, of one token.
    Returns:
        As queries.
    """
    pairs = sequence.read(layer)
    if isinstance(pairs, list):
        return attention(queries, pairs, None)
    return merged([attention_and_lse(queries, keys, values, None) for keys, values in pairs])


def prefill(sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, mask: Tensor) -> list[Tensor]:
    """Attend with the queries of several new tokens, causally.

    Args:
        sequence: what holds K and V; the new tokens are its newest.
        layer: which.
        chunks: of queries, in order, the last ending with the newest token.
        group_size: query heads a KV head.
        mask: from `attention.causal_mask`.
    Returns:
        An output a chunk, as its queries.
    """
    store = sequence.ends_with_newest
    if store is not None:
        return in_place(store.pieces(layer), chunks, sequence.num_seen, group_size, mask)
    return by_piece(sequence, layer, chunks, group_size, visible)


def in_place(pieces: list[Piece], chunks: list[Chunk], num_seen: int, group_size: int, mask: Tensor) -> list[Tensor]:
    """As `prefill`, over pieces whose tokens are all that its queries may look at, the newest last."""
    pairs = [(piece.keys, piece.values) for piece in pieces]
    num_held = sum(keys.shape[2] for keys, _ in pairs)
    after = [num_seen - first - queries.shape[2] // group_size for first, queries in chunks]
    return [
        attention(queries, up_to(pairs, num_held - num_after), mask)
        for (_, queries), num_after in zip(chunks, after, strict=True)
    ]


def by_piece(sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, see: See) -> list[Tensor]:
    """As `prefill`, piece by piece, whatever positions they have; a query sees what `see` says."""
    states = [Merging() for _ in chunks]
    for _, piece in sequence.pieces(layer):
        for (first, queries), merging in zip(chunks, states, strict=True):
            num_queries = queries.shape[2] // group_size
            found = see(piece, first, num_queries, group_size)
            if found is not False:
                merging.add(*attention_and_lse(queries, piece.keys, piece.values, found))
    return [merging.output() for merging in states]


def visible(piece: Piece, first: int, num_queries: int, group_size: int) -> Tensor | Literal[False] | None:
    """Which of a piece's tokens consecutive queries may look at.

    Returns:
        bool, [num_queries * group_size, tokens], with rows and heads before where they differ; None where all may look
        at all, False where none may look at any.
    """
    device, positions = piece.keys.device, piece.positions
    if isinstance(positions, range):
        if positions.stop <= first + 1:
            return None
        if positions.start >= first + num_queries:
            return False
        positions = torch.arange(positions.start, positions.stop, device=device)
    at = torch.arange(first, first + num_queries, device=device).repeat_interleave(group_size)
    return positions.unsqueeze(-2) <= at.unsqueeze(-1)
